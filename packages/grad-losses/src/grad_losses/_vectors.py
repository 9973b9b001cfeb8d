"""Vectors along an axis: their directions, and what is left of them without their mean."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._logits import Axis, peak


def unit(vectors: jax.Array, axis: Axis | None = -1) -> jax.Array:
    """The vectors divided by their lengths; 0, with gradient 0, where the length is 0."""
    return direction(vectors, axis, 0.0)[0]


def direction(
    vectors: jax.Array, axis: Axis | None, least: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """The vectors divided by their lengths, or by the least if that is more, as in `unit`.

    And the lengths of these quotients, 1 exactly or less, keeping the axis.
    """
    # The scale changes no direction, so it may count as a constant; without it the squares of
    # long vectors would overflow, and those of short ones vanish.
    largest = jnp.max(jnp.abs(vectors), axis=axis, keepdims=True, initial=0.0)
    scale = jax.lax.stop_gradient(jnp.where(largest == 0, 1.0, largest))
    scaled = vectors / scale
    squares = jnp.sum(jnp.square(scaled), axis=axis, keepdims=True)
    length = jnp.where(squares == 0, 0.0, jnp.sqrt(jnp.where(squares == 0, 1.0, squares)))
    divisor = jnp.maximum(length, least / scale)
    divisor = jnp.where(divisor == 0, jnp.inf, divisor)
    return scaled / divisor, length / divisor


def centered(values: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """The values less their mean along an axis, over those in the mask; 0 for the others."""
    # First less one of them, so that values that are all equal become 0, not rounding errors.
    values = jnp.where(mask, values - peak(jnp.where(mask, values, -jnp.inf), axis), 0)
    count = jnp.maximum(jnp.sum(mask, axis=axis, keepdims=True), 1)
    return jnp.where(mask, values - jnp.sum(values, axis=axis, keepdims=True) / count, 0)
