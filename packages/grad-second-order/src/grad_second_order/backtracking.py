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
    structure,
    transformation,
    zeros_like,
)
from grad_second_order._line import Line, half_square, loop, scaled, step_dtype
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


class _Search(NamedTuple):
    """The last step size that was tried, the value and gradient there, and its error."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    step: jax.Array
    value: jax.Array
    grad: Updates | None
    error: jax.Array
    next_step: jax.Array


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
        dtype = step_dtype(params)
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
        start, number = line.start, line.number
        leeway = number(rtol) * jnp.abs(start.value) + number(atol)

        def advance(search: _Search) -> _Search:
            step = search.next_step
            if store_grad:
                (_, value, _), grad = line.point(step)
            else:
                value, grad = line.value(step), None
            error = value - start.value - number(slope_rtol) * step * start.slope
            error = jnp.where(jnp.isfinite(value), jnp.maximum(error, 0), jnp.inf)
            following = number(decrease_factor) * step
            return _Search(search.count + 1, step, value, grad, error, following)

        def goes_on(search: _Search) -> jax.Array:
            is_left = search.count <= max_backtracking_steps
            return (search.error > leeway) & is_left & line.is_descent

        grown = number(increase_factor) * number(state.learning_rate)
        first = jnp.minimum(grown, number(max_learning_rate))
        at_start = (start.value, line.grad if store_grad else None)
        begin = _Search(jnp.zeros([], jnp.int32), first, *at_start, line.first_error, first)
        found: _Search = loop(goes_on, advance, begin)
        is_found = (found.error <= leeway) | (found.value < start.value)
        value, grad = jax.tree.map(
            lambda new, old: jnp.where(is_found, new, old), (found.value, found.grad), at_start
        )
        info = BacktrackingLinesearchInfo(found.count, found.error)
        if verbose:
            jax.debug.print(
                "backtracking line search: step size {t}, value {f}, decrease error {d}, after {n} "
                "evaluations",
                t=found.step,
                f=value,
                d=info.decrease_error,
                n=info.num_linesearch_steps,
            )
        state = ScaleByBacktrackingLinesearchState(found.step, value, grad, info)
        return scaled(updates, jnp.where(is_found, found.step, 0)), state

    return GradientTransformationExtraArgs(init, update)
