"""Functions that are smooth where the usual formulas divide by zero, or overflow."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._logits import product


def growth(x: jax.Array, rate: ArrayLike) -> jax.Array:
    """``(exp(rate * x) - 1) / rate``, which is x where the rate is 0."""
    exponent = product(jnp.asarray(rate), x)
    # Near 0 the derivatives of the quotient cancel, but not those of its Taylor series.
    is_small = jnp.abs(exponent) < 0.5
    near, series = jnp.where(is_small, exponent, 0), jnp.ones_like(exponent)
    for k in range(15, 1, -1):
        series = 1 + near / k * series
    quotient = (jnp.exp(jnp.where(is_small, 0, exponent)) - 1) / jnp.where(is_small, 1, rate)
    return jnp.where(is_small, jnp.where(is_small, x, 0) * series, quotient)


def absolute(x: jax.Array) -> jax.Array:
    """``abs(x)``, with derivative 0 at 0; that of `jax.numpy.abs` is 1 there."""
    return jnp.sign(x) * x


def power(base: jax.Array, exponent: ArrayLike) -> jax.Array:
    """``base**exponent`` for a base >= 0, constant where the base is 0."""
    is_zero = base == 0
    positive = jnp.where(is_zero, 1, base)
    return jnp.where(is_zero, jnp.where(jnp.equal(exponent, 0), 1, 0), positive**exponent)


def hypotenuse(x: jax.Array, y: ArrayLike) -> jax.Array:
    """``sqrt(x**2 + y**2)`` for y > 0, where squares overflow and at infinite x too."""
    is_infinite = jnp.isinf(x)
    finite = jnp.where(is_infinite, 0, x)
    unit = jax.lax.stop_gradient(jnp.maximum(jnp.abs(finite), y))
    root = unit * jnp.sqrt(jnp.square(finite / unit) + jnp.square(y / unit))
    return jnp.where(is_infinite, absolute(x), root)
