"""What every loss does with its arguments: check them, and widen them to compute in."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from numpy.lib.array_utils import normalize_axis_tuple


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


def real(loss: str, name: str, value: ArrayLike) -> jax.Array:
    """The argument `name` of `loss` as an array of real numbers: floats, integers or booleans."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"{loss}: {name} must be real; got {array.dtype}. Take {name}.real.")
    return array


def integer(loss: str, name: str, value: ArrayLike, otherwise: str) -> jax.Array:
    """The argument `name` of `loss` as integers; `otherwise` says what to do instead."""
    array = jnp.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(
            f"{loss}: {name} must be of an integer dtype; got {array.dtype}. {otherwise}"
        )
    return array


def boolean(loss: str, name: str, value: ArrayLike) -> jax.Array:
    """The argument `name` of `loss` as booleans."""
    array = jnp.asarray(value)
    if array.dtype != bool:
        raise ValueError(f"{loss}: {name} must be boolean; got {array.dtype}. Try {name} != 0.")
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


def one_per_class(loss: str, name: str, value: ArrayLike, logits: jax.Array) -> jax.Array:
    """The argument `name` of `loss`: a real number for each class, the last axis of the logits."""
    array = real(loss, name, value)
    if array.shape != logits.shape[-1:]:
        raise ShapeError(
            f"{loss}: {name} of shape {array.shape} must have one value per class, shape "
            f"{logits.shape[-1:]}."
        )
    return array.astype(logits.dtype)


def axes_of(
    loss: str, axis: int | Sequence[int] | None, name: str, array: jax.Array
) -> tuple[int, ...]:
    """The argument `axis`, if the array has it, as axes counted from 0: all of them with None."""
    try:
        return normalize_axis_tuple(range(array.ndim) if axis is None else axis, array.ndim)
    except (TypeError, ValueError):
        raise ShapeError(
            f"{loss}: axis must be an axis, or different axes, of {name} of shape {array.shape}; "
            f"got {axis!r}."
        ) from None


def widened(*arrays: jax.Array) -> list[jax.Array]:
    """The arrays in the dtype to compute in: the one they promote to, but at least float32."""
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [array.astype(dtype) for array in arrays]


def result_dtype(loss: str, dtype: DTypeLike | None, default: jnp.dtype) -> jnp.dtype:
    """The dtype to return the loss in: what the argument `dtype` of `loss` asks for."""
    if dtype is None:
        return default
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{loss}: dtype must be a real floating point dtype or None; got {dtype!r}. "
            "Try dtype=jnp.float32."
        )
    return jnp.dtype(dtype)


def masked(
    loss: str, where: ArrayLike | None, absent: tuple[float, ...], **arrays: jax.Array
) -> list[jax.Array]:
    """The arrays, by argument name, of one shape and to compute with.

    What `where` leaves out becomes the value in `absent`, one for each array.
    """
    masks = {} if where is None else {"where": boolean(loss, "where", where)}
    shape = broadcast_shape(loss, **arrays, **masks)
    mask = masks.get("where", True)
    return [
        jnp.broadcast_to(jnp.where(mask, array, value), shape)
        for array, value in zip(widened(*arrays.values()), absent, strict=True)
    ]


def prediction_error(
    loss: str, predictions: ArrayLike, targets: ArrayLike | None, broadcast: bool = False
) -> tuple[jax.Array, jnp.dtype]:
    """The error to compute with, and the dtype to return the loss in."""
    predictions = floating(loss, "predictions", predictions)
    if targets is None:
        return widened(predictions)[0], predictions.dtype
    targets = real(loss, "targets", targets)
    check = broadcast_shape if broadcast else same_shape
    check(loss, predictions=predictions, targets=targets)
    dtype = jnp.result_type(predictions, targets)
    predictions, targets = widened(predictions, targets)
    return predictions - targets, dtype


def positive(loss: str, **numbers: ArrayLike) -> None:
    """Raises unless the Python numbers, by argument name, are > 0. Arrays pass unseen."""
    for name, value in numbers.items():
        if isinstance(value, int | float) and not value > 0:
            raise ValueError(f"{loss}: {name} must be > 0; got {value!r}.")


def between(loss: str, low: float, high: float, **numbers: ArrayLike) -> None:
    """Raises unless the Python numbers, by argument name, are in [low, high]. Arrays pass."""
    for name, value in numbers.items():
        if isinstance(value, int | float) and not low <= value <= high:
            allowed = f"in [{low:g}, {high:g}]"
            if high == math.inf:
                allowed = "a number" if low == -math.inf else f">= {low:g}"
            raise ValueError(f"{loss}: {name} must be {allowed}; got {value!r}.")


def _named(arrays: dict[str, jax.Array]) -> str:
    shown = [f"{name} of shape {array.shape}" for name, array in arrays.items()]
    return " and ".join(shown)
