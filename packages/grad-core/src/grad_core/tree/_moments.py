"""Running averages of gradients and their powers.

A moment follows ``m <- decay * m + (1 - decay) * g**order``. Arithmetic is done in at least
float32; the result has the dtype that update and moment promote to. Where an update is None there
is nothing to average and the result is None.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from grad_core.numerics import abs_sq, inexact_dtype, one_minus_power, real_dtype, widen
from grad_core.tree._map import is_none, map_leaves
from grad_core.types import Numeric, PyTree, Tree


def update_moment(updates: Tree, moments: PyTree, decay: Numeric, order: int | float) -> Tree:
    """Update an exponential moving average of a power of the updates.

    ``m <- decay * m + (1 - decay) * g**order``

    Args:
      updates: tree of arrays, the g; leaves may be None.
      moments: tree of the same structure, the m.
      decay: number in [0, 1].
      order: the power. For complex updates it is a complex power, without modulus.

    Returns:
      The new moments, None where updates are.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.update_moment(jnp.array(3.0), jnp.array(1.0), 0.5, 2)
      Array(5., dtype=float32)
    """
    return _average(lambda g: g if order == 1 else g**order, updates, moments, decay)


def update_moment_per_elem_norm(
    updates: Tree, moments: PyTree, decay: Numeric, order: int | float
) -> Tree:
    """Update an exponential moving average of a power of the moduli of the updates.

    ``m <- decay * m + (1 - decay) * |g|**order`` for complex g; ``g**order`` for real g.

    Args:
      updates: tree of arrays, the g; leaves may be None.
      moments: tree of the same structure, the m, real.
      decay: number in [0, 1].
      order: the power.

    Returns:
      The new moments, None where updates are.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.update_moment_per_elem_norm(jnp.array(3 + 4j), jnp.array(1.0), 0.5, 2)
      Array(13., dtype=float32)
    """

    def power(g: jax.Array) -> jax.Array:
        if not jnp.iscomplexobj(g):
            return g**order
        if order % 2 == 0:  # |g|^2 has a derivative at zero, |g| has none
            return abs_sq(g) ** int(order // 2)
        return jnp.abs(g) ** order

    return _average(power, updates, moments, decay)


def _average(
    power: Callable[[jax.Array], jax.Array], updates: Tree, moments: PyTree, decay: Numeric
) -> Tree:
    def leaf(g: jax.Array, m: jax.Array) -> jax.Array:
        return m * decay + power(g) * (1 - decay)

    return map_leaves(_in_float32(leaf), updates, moments, is_leaf=is_none)


def update_infinity_moment(updates: Tree, moments: PyTree, decay: Numeric, eps: Numeric) -> Tree:
    """Update an exponentially weighted infinity norm, as in Adamax.

    ``m <- max(|g| + eps, decay * m)``

    Args:
      updates: tree of arrays, the g; leaves may be None.
      moments: tree of the same structure, the m, real.
      decay: number in [0, 1].
      eps: non-negative number that keeps the moment away from zero.

    Returns:
      The new moments, None where updates are.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.update_infinity_moment(jnp.array(-3.0), jnp.array(4.0), 0.5, 0.0)
      Array(3., dtype=float32)

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, section 7.1.
    """

    def leaf(g: jax.Array, m: jax.Array) -> jax.Array:
        return jnp.maximum(jnp.abs(g) + eps, decay * m)

    return map_leaves(_in_float32(leaf), updates, moments, is_leaf=is_none)


def bias_correction(moment: Tree, decay: Numeric, count: Numeric) -> Tree:
    """Divide a moving average that began at zero by the weight it has gathered.

    ``m / (1 - decay**count)``. Where that weight is zero (no step taken, or ``decay = 1``) the
    moment is still zero, and is returned as it is.

    Args:
      moment: tree of arrays.
      decay: number in [0, 1]; the weight is exact to rounding however close to 1 it is.
      count: number of steps taken, of shape ().

    Returns:
      The corrected moments in the dtypes of ``moment``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.bias_correction({"a": jnp.array(1.5)}, decay=0.5, count=2)
      {'a': Array(2., dtype=float32)}

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, section 3.
    """
    weight = one_minus_power(decay, count)
    weight = jnp.where(weight == 0, jnp.ones_like(weight), weight)
    return map_leaves(_in_float32(lambda m: m / weight), moment)


def _in_float32(f: Callable[..., jax.Array]) -> Callable[..., jax.Array | None]:
    """``f`` computed in at least float32 and returned in the dtype its arguments promote to."""

    def widened(first: jax.Array | None, *rest: jax.Array) -> jax.Array | None:
        if first is None:
            return None
        leaves = (first, *rest)
        result = f(*(widen(x) for x in leaves))
        dtype_of = inexact_dtype if jnp.iscomplexobj(result) else real_dtype
        return result.astype(dtype_of(*leaves))

    return widened
