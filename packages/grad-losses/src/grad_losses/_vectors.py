"""Vectors along an axis: their directions, and what is left of them without their mean."""

import jax
import jax.numpy as jnp

from grad_losses._logits import peak


def unit(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """The vectors divided by their lengths; 0, with gradient 0, where the length is 0."""
    # The scale changes no direction, so it may count as a constant; without it the squares of
    # long vectors would overflow, and those of short ones vanish.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(vectors), axis=axis, keepdims=True, initial=0.0))
    vectors = vectors / jnp.where(scale == 0, jnp.inf, scale)
    squares = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    return vectors / jnp.sqrt(jnp.where(squares == 0, 1.0, squares))


def centered(values: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """The values less their mean along an axis, over those in the mask; 0 for the others."""
    # First less one of them, so that values that are all equal become 0, not rounding errors.
    values = jnp.where(mask, values - peak(jnp.where(mask, values, -jnp.inf), axis), 0)
    count = jnp.maximum(jnp.sum(mask, axis=axis, keepdims=True), 1)
    return jnp.where(mask, values - jnp.sum(values, axis=axis, keepdims=True) / count, 0)
