r"""Line search by backtracking: shrink the step size until the value falls enough.

Along the direction u from x, the first t of :math:`t_0, \beta t_0, \beta^2 t_0, \ldots` is taken
for which

.. math::

    f(x + t u) \le f(x) + c t \langle f'(x), u \rangle + \varepsilon_r |f(x)| + \varepsilon_a,

and the next search starts at a multiple of it.

Reference:
  Armijo, Minimization of functions having Lipschitz continuous first partial derivatives, 1966.
  Vaswani et al., Painless stochastic gradient, 2019 (arXiv 1905.09997), for the next start.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    Fraction,
    GradientTransformationExtraArgs,
    NonNegative,
    OptState,
    Params,
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
from grad_second_order.zoom import TAKES_STEPS


class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search went.

    Attributes:
      num_linesearch_steps: The number of evaluations of the value.
      decrease_error: By how much the last step size misses the condition, tolerances aside; if
        the direction leads uphill, the slope.
    """

    num_linesearch_steps: jax.Array
    decrease_error: jax.Array


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """Where the last search led.

    Attributes:
      learning_rate: The step size; after a search that failed, the last that was tried.
      value: The value there.
      grad: The gradient there; None if it is not stored.
      info: How the search went.
    """

    learning_rate: jax.Array
    value: jax.Array
    grad: Updates | None
    info: BacktrackingLinesearchInfo


class _Rules(NamedTuple):
    """The hyperparameters of a search."""

    max_steps: int
    max_step_size: jax.Array
    growth: jax.Array
    shrinkage: jax.Array
    c: jax.Array
    atol: jax.Array
    rtol: jax.Array

    def error(self, point: Point, start: Point) -> jax.Array:
        """By how much a point misses the condition, tolerances aside."""
        error = point.value - start.value - self.c * point.step * start.slope
        return jnp.where(jnp.isfinite(point.value), jnp.maximum(error, 0), jnp.inf)

    def leeway(self, start: Point) -> jax.Array:
        return self.rtol * jnp.abs(start.value) + self.atol


class _Search(NamedTuple):
    """The step size to try next, and the last point that was tried: the start, first."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    step: jax.Array
    last: Point
    grad: Updates | None
    error: jax.Array
    done: jax.Array


@exempt("decreases_convex_loss", reason=TAKES_STEPS)
@exempt("decreases_nonconvex_loss", reason=TAKES_STEPS)
@exempt("decreases_stochastic_loss", reason=TAKES_STEPS)
@needs_extra_args(value_fn=half_square)
@example(10)
@transformation
def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: NonNegative = 1e-4,
    decrease_factor: Fraction = 0.8,
    increase_factor: NonNegative = 1.5,
    max_learning_rate: NonNegative = 1.0,
    atol: NonNegative = 0.0,
    rtol: NonNegative = 0.0,
    store_grad: bool = False,
    verbose: bool = False,
) -> GradientTransformationExtraArgs:
    """Multiplies steps by the first of falling step sizes that lowers the value; see the module.

    Its ``update`` takes steps that lead downhill, the parameters, and the extra arguments that
    `scale_by_zoom_linesearch` tells of. It should come last in a `chain`. If the last value that is
    tried is not lower than the first, the search fails: the update is zero. Derivatives take the
    step size for a constant.

    State: the gradient if it is stored, 4 bytes a parameter for float32.

    Args:
      max_backtracking_steps: How often to shrink the step size at most, >= 0.
      slope_rtol: The constant c of the condition.
      decrease_factor: The factor beta that shrinks the step size, in [0, 1].
      increase_factor: What the last step size, 1 at first, is multiplied by for the next search;
        infinity to start always at `max_learning_rate`.
      max_learning_rate: The largest step size.
      atol: How much the value may rise.
      rtol: How much it may rise relative to the value.
      store_grad: Whether to compute gradients with the values and to keep the last, for
        `value_and_grad_from_state`.
      verbose: Whether to print how each search went.

    Returns:
      A transformation whose state is a `ScaleByBacktrackingLinesearchState`.

    Raises:
      ValueError: If a number is out of its range.
      MissingArgumentError: By ``update``, without parameters or ``value_fn``.
      TreeMismatchError: By ``update``, if trees differ, or ``value_fn`` returns no number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core import chain, scale
      >>> from grad_second_order import scale_by_backtracking_linesearch
      >>> def square(x):
      ...     return jnp.sum(x**2)
      >>> descent = chain(scale(-1.0), scale_by_backtracking_linesearch(10, decrease_factor=0.5))
      >>> x = jnp.array([1.0, 2.0])
      >>> value, grad = jax.value_and_grad(square)(x)
      >>> updates, state = descent.update(
      ...     grad, descent.init(x), x, value=value, grad=grad, value_fn=square
      ... )
      >>> updates, state[1].info.num_linesearch_steps
      (Array([-1., -2.], dtype=float32), Array(2, dtype=int32))
    """
    if max_backtracking_steps < 0:
        raise ValueError(
            "scale_by_backtracking_linesearch: max_backtracking_steps must be >= 0; "
            f"got {max_backtracking_steps}."
        )

    def init(params: Params) -> OptState:
        structure.check_inexact(params, "params")
        dtype = scalar_dtype(params)
        return ScaleByBacktrackingLinesearchState(
            learning_rate=jnp.ones([], dtype),
            value=jnp.full([], jnp.inf, dtype),
            grad=jax.tree.map(zeros_like, params) if store_grad else None,
            info=BacktrackingLinesearchInfo(jnp.zeros([], jnp.int32), jnp.full([], jnp.inf, dtype)),
        )

    def update(
        updates: Updates, state: Any, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        line = Line(params, updates, extra_args)
        line.check_state(state, ScaleByBacktrackingLinesearchState)
        numbers = max_learning_rate, increase_factor, decrease_factor, slope_rtol, atol, rtol
        rules = _Rules(max_backtracking_steps + 1, *map(line.number, numbers))

        def advance(search: _Search) -> _Search:
            if store_grad:
                point, grad = line.point(search.step)
            else:
                point, grad = line.value_alone(search.step), None
            return _advance(search, point, grad, line.start, rules)

        grad = line.grad if store_grad else None
        begin = _begin(line.start, grad, line.number(state.learning_rate), rules)
        found: _Search = loop(lambda search: ~search.done, advance, begin)
        step, state = _where_it_led(found, line.start, grad, rules)
        if verbose:
            jax.debug.print(
                "backtracking line search: step size {t}, value {f}, decrease error {d}, after {n} "
                "evaluations",
                t=found.last.step,
                f=found.last.value,
                d=found.error,
                n=found.count,
            )
        return scaled(updates, step), state

    return GradientTransformationExtraArgs(init, update)


@dispatched_once
def _begin(start: Point, grad: Updates | None, last_step: jax.Array, rules: _Rules) -> _Search:
    """The search before the first evaluation."""
    grown = rules.growth * last_step  # NaN if that is infinity times 0
    return _Search(
        count=jnp.zeros([], jnp.int32),
        step=jnp.fmin(grown, rules.max_step_size),
        last=start,
        grad=grad,
        error=start.first_error,
        done=~start.leads_down,
    )


@dispatched_once
def _advance(
    search: _Search, point: Point, grad: Updates | None, start: Point, rules: _Rules
) -> _Search:
    """The search once a point is known."""
    count, error = search.count + 1, rules.error(point, start)
    return _Search(
        count=count,
        step=rules.shrinkage * point.step,
        last=point,
        grad=grad,
        error=error,
        done=(error <= rules.leeway(start)) | (count == rules.max_steps),
    )


@dispatched_once
def _where_it_led(
    found: _Search, start: Point, grad: Updates | None, rules: _Rules
) -> tuple[jax.Array, ScaleByBacktrackingLinesearchState]:
    """The step size to take, which is 0 if no value was lower, and the state."""
    last = found.last
    is_lower = (found.error <= rules.leeway(start)) | (last.value < start.value)
    is_found = (found.count > 0) & is_lower
    value, grad = jax.tree.map(
        lambda new, old: jnp.where(is_found, new, old),
        (last.value, found.grad),
        (start.value, grad),
    )
    info = BacktrackingLinesearchInfo(found.count, found.error)
    tried = jnp.where(found.count > 0, last.step, found.step)
    state = ScaleByBacktrackingLinesearchState(tried, value, grad, info)
    return jnp.where(is_found, last.step, 0), state
