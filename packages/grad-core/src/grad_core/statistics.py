"""First values of statistics, and the dtypes they are kept in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core.hyperparameters import DType
from grad_core.types import Numeric, Params


def zeros_like(p: Any, dtype: DType | None = None) -> jax.Array:
    """Zeros of the shape and sharding of `p`, also where `jax.jit` decides the sharding.

    Under ``jit`` a constant is replicated; so the zeros are computed from `p`, in a way that no
    value of `p` can disturb: nothing is greater than infinity.
    """
    if isinstance(p, jax.ShapeDtypeStruct):
        return jnp.zeros(p.shape, dtype or p.dtype, device=p.sharding)
    p = jnp.asarray(p)
    return (jnp.real(p) > jnp.inf).astype(dtype or p.dtype)


def full_like(p: Any, value: Any, dtype: DType | None = None) -> jax.Array:
    """An array of one value with the shape and sharding of `p`."""
    zeros = zeros_like(p, dtype)
    return zeros + jnp.asarray(value, zeros.dtype)


def copy_of(p: Any, dtype: DType | None = None) -> jax.Array:
    """A copy of `p` in a buffer of its own: parameters and state may both be donated."""
    if isinstance(p, jax.ShapeDtypeStruct):
        return zeros_like(p, dtype)
    return jnp.array(p, dtype or jnp.result_type(p), copy=True)


class SharedNumber:
    """The first value of a number that all leaves share, computed from all parameters.

    It is kept in their widest real dtype, float32 at least.

    Args:
      first: The function from the tree of parameters, or of their shapes, to the number.
    """

    def __init__(self, first: Callable[[Params], Numeric]) -> None:
        self.first = first

    def __call__(self, params: Params) -> jax.Array:
        return jnp.asarray(self.first(params), scalar_dtype(params))


def scalar_dtype(params: Params) -> Any:
    """The real dtype of numbers that all leaves share: the widest of all, at least float32."""
    widest = jnp.result_type(jnp.float32, *map(jnp.result_type, jax.tree.leaves(params)))
    return jnp.finfo(widest).dtype  # type: ignore[no-untyped-call]


def first_moment(dtype: DType | None = None) -> Callable[[jax.Array], jax.Array]:
    """Zeros in the parameter's dtype, or in `dtype`."""
    return lambda p: zeros_like(p, dtype)


def second_moment(dtype: DType | None = None) -> Callable[[jax.Array], jax.Array]:
    """Real zeros in at least float32, or in `dtype`.

    In bfloat16, a second moment stops at half its true value: the steps are lost in rounding.
    """
    return lambda p: zeros_like(p, dtype or at_least_float32(p))


def at_least_float32(p: Any) -> Any:
    """The real dtype that second moments of `p` are kept in."""
    wide = jnp.promote_types(jnp.result_type(p), jnp.float32)
    return jnp.finfo(wide).dtype  # type: ignore[no-untyped-call]
