r"""Line search by zooming: a step size that meets the strong Wolfe conditions.

Along the direction u from x, :math:`\varphi(t) = f(x + t u)`. A step size t is accepted if the
value falls enough and the slope is small enough:

.. math::

    \varphi(t) &\le \varphi(0) + c_1 t \varphi'(0) \\
    |\varphi'(t)| &\le c_2 |\varphi'(0)|

Close to a minimum, differences of values are all rounding. There the first condition may be
replaced by one on slopes, :math:`\varphi'(t) \le (2 c_1 - 1) \varphi'(0)`, as long as
:math:`\varphi(t) \le \varphi(0) + \varepsilon |\varphi(0)|`.

The search grows t until an interval brackets such step sizes. It then shrinks the interval: to the
minimum of a cubic, else of a parabola, through what is known, or else to its middle. Its end ``lo``
always is the best step size so far that falls enough.

References:
  Nocedal and Wright, Numerical optimization, 2006, algorithms 3.5 and 3.6.
  Hager and Zhang, A new conjugate gradient method with guaranteed descent and an efficient line
  search, 2005, equation (4.1).
"""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformationExtraArgs,
    NonNegative,
    OptState,
    Params,
    Real,
    Updates,
    example,
    exempt,
    needs_extra_args,
    scalar_dtype,
    structure,
    transformation,
    zeros_like,
)
from grad_core.sharing import dispatched_once
from grad_second_order._line import Line, Point, half_square, loop, scaled

InitialGuess: TypeAlias = Literal["keep", "one"]
TAKES_STEPS = "it takes steps, which lead downhill, not gradients"


class ZoomLinesearchInfo(NamedTuple):
    """How the last search went.

    Attributes:
      num_linesearch_steps: The number of evaluations of value and gradient.
      decrease_error: By how much the step taken, or after a search that failed the last that was
        tried, misses the condition on the value; if the direction leads uphill, the slope.
      curvature_error: By how much it misses the condition on the slope.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array
    curvature_error: jax.Array


class ScaleByZoomLinesearchState(NamedTuple):
    """Where the last search led.

    Attributes:
      learning_rate: The step size; after a search that failed, the last that was tried.
      value: The value there.
      grad: The gradient there.
      info: How the search went.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates
    info: ZoomLinesearchInfo


class _Rules(NamedTuple):
    """The hyperparameters of a search."""

    max_steps: int
    eps: jax.Array | None
    max_step_size: jax.Array
    tol: jax.Array
    growth: jax.Array
    c1: jax.Array
    c2: jax.Array
    precision: jax.Array

    def errors(self, point: Point, start: Point) -> tuple[jax.Array, jax.Array]:
        """By how much a point misses the condition on the value, and that on the slope."""
        rise = point.value - start.value
        decrease = rise - self.c1 * point.step * start.slope
        if self.eps is not None:
            close = rise - self.eps * jnp.abs(start.value)
            flat = point.slope - (2 * self.c1 - 1) * start.slope
            decrease = jnp.minimum(decrease, jnp.maximum(close, flat))
        is_finite = jnp.isfinite(point.value) & jnp.isfinite(point.slope)
        decrease = jnp.where(is_finite, jnp.maximum(decrease, 0), jnp.inf)
        curvature = jnp.maximum(jnp.abs(point.slope) - self.c2 * jnp.abs(start.slope), 0)
        return decrease, jnp.where(is_finite, curvature, jnp.inf)


class _Search(NamedTuple):
    """The state of a search.

    Attributes:
      count: The number of evaluations.
      step: The step size to try next.
      lo: The best point that falls enough; the start, first.
      grad: The gradient there.
      hi: The other end of the interval; at infinity while there is none.
      cut: The point that the interval lost last; at infinity, if none.
      decrease: The error of the last point in the condition on the value.
      curvature: Its error in that on the slope.
      done: Whether to stop.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    step: jax.Array
    lo: Point
    grad: Updates
    hi: Point
    cut: Point
    decrease: jax.Array
    curvature: jax.Array
    done: jax.Array


@exempt("decreases_convex_loss", reason=TAKES_STEPS)
@exempt("decreases_nonconvex_loss", reason=TAKES_STEPS)
@exempt("decreases_stochastic_loss", reason=TAKES_STEPS)
@needs_extra_args(value_fn=half_square)
@example(10)
@transformation
def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: NonNegative | None = None,
    tol: NonNegative = 0.0,
    increase_factor: Real = 2.0,
    slope_rtol: NonNegative = 1e-4,
    curv_rtol: NonNegative = 0.9,
    approx_dec_rtol: NonNegative | None = 1e-6,
    stepsize_precision: NonNegative = 1e-5,
    initial_guess_strategy: InitialGuess = "keep",
    verbose: bool = False,
) -> GradientTransformationExtraArgs:
    """Multiplies steps by a step size that meets the strong Wolfe conditions; see the module.

    Its ``update`` takes steps, which lead downhill (``chain(scale(-1.0), ...)`` makes them of
    gradients), the parameters, and as extra arguments

    - ``value_fn``, the function of the parameters that is minimised, required;
    - ``value`` and ``grad``, its value and its gradient at the parameters, computed if they are
      missing; `value_and_grad_from_state` has them for nothing;
    - any other that ``value_fn`` takes by name: a batch, for instance.

    It should come last in a `chain`. A search that finds no lower value fails: the update is zero,
    and ``state.info.decrease_error`` positive. Derivatives take the step size for a constant.

    State: the gradient, 4 bytes a parameter for float32.

    Args:
      max_linesearch_steps: How many step sizes to try at most, >= 1.
      max_learning_rate: The largest step size; any with None.
      tol: How large both errors may be.
      increase_factor: What the step size grows by while there is no interval.
      slope_rtol: The constant c_1 of the condition on the value.
      curv_rtol: The constant c_2 of that on the slope.
      approx_dec_rtol: The rise of the value, relative to it, that passes for rounding; with None
        the condition on slopes does not replace that on values.
      stepsize_precision: How short an interval, relative to its larger end, ends the search.
      initial_guess_strategy: What to try first: ``"keep"`` for the last step size, ``"one"`` for 1.
      verbose: Whether to print how each search went.

    Returns:
      A transformation whose state is a `ScaleByZoomLinesearchState`.

    Raises:
      ValueError: If a number is out of its range, or there is no such strategy.
      MissingArgumentError: By ``update``, without parameters or ``value_fn``.
      TreeMismatchError: By ``update``, if trees differ, or ``value_fn`` returns no number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core import apply_updates, chain, scale
      >>> from grad_second_order import scale_by_zoom_linesearch
      >>> def square(x):
      ...     return jnp.sum(x**2)
      >>> descent = chain(scale(-1.0), scale_by_zoom_linesearch(10))
      >>> x = jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(square)(x)
      >>> updates, state = descent.update(
      ...     grad, descent.init(x), x, value=value, grad=grad, value_fn=square
      ... )
      >>> apply_updates(x, updates), state[1].learning_rate
      (Array([0., 0.], dtype=float32), Array(0.5, dtype=float32))
    """
    if max_linesearch_steps < 1:
        raise ValueError(
            "scale_by_zoom_linesearch: max_linesearch_steps must be >= 1; "
            f"got {max_linesearch_steps}."
        )

    def init(params: Params) -> OptState:
        structure.check_inexact(params, "params")
        dtype = scalar_dtype(params)
        return ScaleByZoomLinesearchState(
            learning_rate=jnp.ones([], dtype),
            value=jnp.full([], jnp.inf, dtype),
            grad=jax.tree.map(zeros_like, params),
            info=ZoomLinesearchInfo(
                jnp.zeros([], jnp.int32), jnp.full([], jnp.inf, dtype), jnp.full([], jnp.inf, dtype)
            ),
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        line = Line(params, updates, extra_args)
        line.check_state(state, ScaleByZoomLinesearchState)
        longest = jnp.inf if max_learning_rate is None else max_learning_rate
        numbers = longest, tol, increase_factor, slope_rtol, curv_rtol, stepsize_precision
        eps = None if approx_dec_rtol is None else line.number(approx_dec_rtol)
        rules = _Rules(max_linesearch_steps, eps, *map(line.number, numbers))
        first = line.number(state.learning_rate if initial_guess_strategy == "keep" else 1.0)
        found = _search(line, first, rules)
        state = _where_it_led(found, line.start, rules)
        if verbose:
            jax.debug.print(
                "zoom line search: step size {t}, value {f}, decrease error {d}, curvature error "
                "{c}, after {n} evaluations",
                t=found.lo.step,
                f=found.lo.value,
                d=state.info.decrease_error,
                c=state.info.curvature_error,
                n=state.info.num_linesearch_steps,
            )
        return scaled(updates, found.lo.step), state

    return GradientTransformationExtraArgs(init, update)


def _search(line: Line, first: jax.Array, rules: _Rules) -> _Search:
    """Evaluates points on the line until one meets both conditions, or there is no hope."""

    def advance(search: _Search) -> _Search:
        point, grad = line.point(search.step)
        return _advance(search, point, grad, line.start, rules)

    begin = _begin(line.start, line.grad, first, rules)
    found: _Search = loop(lambda search: ~search.done, advance, begin)
    return found


@dispatched_once
def _begin(start: Point, grad: Updates, first: jax.Array, rules: _Rules) -> _Search:
    """The search before the first evaluation."""
    infinity = jnp.full_like(start.step, jnp.inf)
    far = Point(infinity, infinity, infinity)
    return _Search(
        count=jnp.zeros([], jnp.int32),
        step=jnp.minimum(first, rules.max_step_size),
        lo=start,
        grad=grad,
        hi=far,
        cut=far,
        decrease=start.first_error,
        curvature=start.first_error,
        done=~start.leads_down,
    )


@dispatched_once
def _advance(search: _Search, point: Point, grad: Updates, start: Point, rules: _Rules) -> _Search:
    """The search once a point, and the gradient there, are known."""
    lo, hi, count = search.lo, search.hi, search.count + 1
    decrease, curvature = rules.errors(point, start)
    falls = decrease <= rules.tol
    is_accepted = falls & (curvature <= rules.tol)
    is_worse = ~is_accepted & (~falls | ((point.value >= lo.value) & (lo.step > 0)))
    turns = ~is_worse & (point.slope * (hi.step - lo.step) >= 0)
    new_lo = _either(is_worse, lo, point)
    new_hi = _either(is_worse, point, _either(turns, lo, hi))
    cut = _either(is_worse | turns, hi, lo)
    is_bracketed = jnp.isfinite(new_hi.step)
    width, longer = jnp.abs(new_hi.step - new_lo.step), jnp.maximum(new_hi.step, new_lo.step)
    is_hopeless = jnp.where(
        is_bracketed, width <= rules.precision * longer, point.step >= rules.max_step_size
    )
    done = is_accepted | is_hopeless | (count == rules.max_steps)
    grown = jnp.minimum(rules.growth * point.step, rules.max_step_size)
    step = jnp.where(is_bracketed, _inside(new_lo, new_hi, cut), grown)
    return _Search(
        count=count,
        step=jnp.where(done, point.step, step),
        lo=new_lo,
        grad=jax.tree.map(lambda new, old: jnp.where(is_worse, old, new), grad, search.grad),
        hi=new_hi,
        cut=cut,
        decrease=decrease,
        curvature=curvature,
        done=done,
    )


@dispatched_once
def _where_it_led(found: _Search, start: Point, rules: _Rules) -> ScaleByZoomLinesearchState:
    """The best point, and its errors; those of the last that was tried, if none was better."""
    is_found = found.lo.step > 0
    tried = found.step, found.decrease, found.curvature
    taken = found.lo.step, *rules.errors(found.lo, start)
    step, *errors = (jnp.where(is_found, x, y) for x, y in zip(taken, tried, strict=True))
    info = ZoomLinesearchInfo(found.count, *errors)
    return ScaleByZoomLinesearchState(step, found.lo.value, found.grad, info)


def _either(condition: jax.Array, a: Point, b: Point) -> Point:
    return Point(*(jnp.where(condition, x, y) for x, y in zip(a, b, strict=True)))


def _inside(lo: Point, hi: Point, cut: Point) -> jax.Array:
    """A step size inside the interval, not too near to its ends."""
    width = jnp.abs(hi.step - lo.step)
    left = jnp.minimum(lo.step, hi.step)

    def is_inside(step: jax.Array, margin: float) -> jax.Array:
        return (step > left + margin * width) & (step < left + (1 - margin) * width)

    cubic, parabola = _least_of_cubic(lo, hi, cut), _least_of_parabola(lo, hi)
    middle = left + width / 2
    return jnp.where(
        is_inside(cubic, 0.2), cubic, jnp.where(is_inside(parabola, 0.1), parabola, middle)
    )


def _least_of_parabola(lo: Point, hi: Point) -> jax.Array:
    """Where the parabola through two values and the slope at `lo` is least."""
    width = hi.step - lo.step
    bend = (hi.value - lo.value - lo.slope * width) / width**2
    return lo.step - lo.slope / (2 * bend)


def _least_of_cubic(lo: Point, hi: Point, cut: Point) -> jax.Array:
    """Where the cubic through three values and the slope at `lo` is least; NaN if nowhere."""
    b, c = hi.step - lo.step, cut.step - lo.step
    # The cubic is value + slope s + quadratic s^2 + cubic s^3, with s counted from lo.
    rest_b = (hi.value - lo.value - lo.slope * b) / b**2
    rest_c = (cut.value - lo.value - lo.slope * c) / c**2
    cubic = (rest_b - rest_c) / (b - c)
    quadratic = rest_b - cubic * b
    root = jnp.sqrt(quadratic**2 - 3 * cubic * lo.slope)
    return lo.step + (root - quadratic) / (3 * cubic)
