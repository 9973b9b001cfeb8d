"""Values and gradients that a line search has computed already."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import OptState, Params, Updates, structure, tree
from grad_second_order._line import ValueFn

ValueAndGradFn = Callable[..., tuple[jax.Array, Updates]]


def value_and_grad_from_state(value_fn: ValueFn) -> ValueAndGradFn:
    """`jax.value_and_grad`, but for what the state of a line search knows.

    The last point that a line search evaluates is, most often, the one at which the next update
    needs the value and the gradient. They are looked up in the state's fields ``value`` and
    ``grad``, and computed where these do not serve: before the first update; and if there are
    several such fields, or the gradient is one of other leaves, as in `partition`, where the values
    are out of date. They are out of date, too, if updates are changed after the line search, which
    nobody can see: let it come last.

    Args:
      value_fn: ``value_fn(params, *args, **kwargs)``, a real number.

    Returns:
      A function ``value_and_grad(params, *args, state, **kwargs)``, to be called with the arguments
      of ``value_fn`` and the optimizer's state.

    Raises:
      ValueError: By that function, if the state has no value or no gradient: a
        `scale_by_backtracking_linesearch` keeps it with ``store_grad=True``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import lbfgs, value_and_grad_from_state
      >>> x = jnp.array([1.0, 2.0])
      >>> value_and_grad_from_state(lambda x: jnp.sum(x**2))(x, state=lbfgs().init(x))
      (Array(5., dtype=float32), Array([2., 4.], dtype=float32))
    """

    def value_and_grad(
        params: Params, *args: Any, state: OptState, **kwargs: Any
    ) -> tuple[jax.Array, Updates]:
        def compute() -> tuple[jax.Array, Updates]:
            return jax.value_and_grad(value_fn)(params, *args, **kwargs)

        values, grads = (tree.get_all_with_path(state, name) for name in ("value", "grad"))
        known = [grad for _, grad in grads if grad is not None]
        if not values or not known:
            raise ValueError(
                "value_and_grad_from_state: the state has no fields 'value' and 'grad' with "
                "numbers in them. Use a line search that keeps them, such as "
                "scale_by_zoom_linesearch, or scale_by_backtracking_linesearch with "
                "store_grad=True."
            )
        if len(values) > 1 or len(known) > 1 or not _is_like(known[0], params):
            return compute()
        value: Any = values[0][1]

        def cast(x: Any, like: Any) -> jax.Array:
            return jnp.asarray(x, like.dtype)

        computed = jax.eval_shape(compute)
        stored = jax.tree.map(cast, (value, known[0]), computed)
        return jax.lax.cond(jnp.isfinite(value), lambda: stored, compute)  # type: ignore[no-any-return]

    return value_and_grad


def _is_like(grad: Any, params: Params) -> bool:
    here, there = structure.flatten(grad), structure.flatten(params)
    if here[1] != there[1]:
        return False
    pairs = zip(here[0], there[0], strict=True)
    return all(structure.is_absent(g) == structure.is_absent(p) for g, p in pairs)
