"""What every loss does with its arguments: check them, and widen them to compute in."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class ShapeError(ValueError, TypeError):
    """Two arrays do not fit together. JAX, and optax 0.2, raise either of the bases."""


def floating(loss: str, name: str, value: ArrayLike) -> jax.Array:
    """The argument `name` of `loss` as an array of real floating point numbers."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"{loss}: {name} must be of a real floating point dtype; got {array.dtype}. "
            f"Convert, as with {name}.astype(jnp.float32)."
        )
    return array


def integer(loss: str, name: str, value: ArrayLike, otherwise: str) -> jax.Array:
    """The argument `name` of `loss` as integers; `otherwise` says what to do instead."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{loss}: {name} must be of an integer dtype; got {array.dtype}. {otherwise}"
        )
    return array


def same_shape(loss: str, **arrays: jax.Array) -> None:
    """Raises unless the arrays, by argument name, have one shape."""
    if len({array.shape for array in arrays.values()}) > 1:
        raise ShapeError(
            f"{loss}: {_named(arrays)} must have the same shape. Reshape one, or repeat it with "
            "jnp.broadcast_to where that is meant."
        )


def broadcast_shape(loss: str, **arrays: jax.Array) -> tuple[int, ...]:
    """The shape that the arrays, by argument name, broadcast to."""
    try:
        return jnp.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        raise ShapeError(
            f"{loss}: {_named(arrays)} cannot be broadcast together. Give them the same shape."
        ) from None


def widened(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in the dtype to compute in: the one they promote to, but at least float32."""
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [array.astype(dtype) for array in arrays]


def _named(arrays: dict[str, jax.Array]) -> str:
    shown = [f"{name} of shape {array.shape}" for name, array in arrays.items()]
    return " and ".join(shown)
