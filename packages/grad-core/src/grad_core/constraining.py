"""Keeping updates and parameters within bounds: non-negative parameters, updates without NaN."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grad_core.conformance import exempt
from grad_core.errors import LeafTypeError
from grad_core.rules import LeafRule
from grad_core.transformations import rule
from grad_core.types import EmptyState, PyTree

NonNegativeParamsState = EmptyState


class ZeroNansState(NamedTuple):
    """For each leaf, whether its last update held a NaN; of shape () and dtype bool."""

    found_nan: PyTree


@exempt("complex64", reason="complex numbers are neither negative nor non-negative")
@rule
def keep_params_nonnegative() -> LeafRule:
    """Shortens updates that would make parameters negative: u = -p where p + g < 0, else g.

    The parameter then becomes 0. A NaN stays one. Put it last, after the learning rate. Updates in
    a narrower dtype than the parameter's round -p, so that it ends at 0 up to that rounding.

    Returns:
      A transformation without state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.
      LeafTypeError: By ``update``, if updates are complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates, keep_params_nonnegative
      >>> tx = keep_params_nonnegative()
      >>> params = jnp.array([1.0, 2.0])
      >>> updates, _ = tx.update(jnp.array([-3.0, -0.5]), tx.init(params), params)
      >>> apply_updates(params, updates)
      Array([0. , 1.5], dtype=float32)
    """

    def step(g: jax.Array, p: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(p):
            raise LeafTypeError(
                "parameters must be real, for complex numbers have no order; "
                "leave them out with masked or partition."
            )
        return jnp.where(p + g < 0, -p, g)

    return LeafRule(step)


@rule
def zero_nans() -> LeafRule:
    """Replaces NaN by zero, and remembers which leaves had any: u = 0 where g is NaN, else g.

    Infinities stay. A complex number is NaN if one of its parts is.

    Returns:
      A transformation whose state is a `ZeroNansState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import zero_nans
      >>> tx = zero_nans()
      >>> updates, state = tx.update(jnp.array([1.0, jnp.nan]), tx.init(jnp.zeros(2)))
      >>> updates, bool(state.found_nan)
      (Array([1., 0.], dtype=float32), True)
    """

    def step(g: jax.Array) -> tuple[jax.Array, jax.Array]:
        is_nan = jnp.isnan(g)
        return jnp.where(is_nan, 0, g), jnp.any(is_nan)

    return LeafRule(step, ZeroNansState, found_nan=lambda p: jnp.zeros([], bool))
