"""Quantile functions: from uniform numbers to samples of a distribution, one coordinate each."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from grad_estimators._sampling import draw, probabilities

Quantiles: TypeAlias = Callable[[jax.Array], Any]


def quantiles(name: str, dist: Any) -> tuple[tuple[int, ...], Quantiles]:
    """The shape of the uniform numbers for one sample, and the function that takes them to it."""
    names = [kind.__name__ for kind in type(dist).__mro__]
    if "Independent" in names:
        return quantiles(name, dist.distribution)
    if any(kind in _QUANTILES for kind in names):
        function = next(_QUANTILES[kind] for kind in names if kind in _QUANTILES)(dist)
    elif hasattr(dist, "bijector"):  # the multivariate normals of distrax are among these
        shape, inner = quantiles(name, dist.distribution)
        return shape, lambda u: dist.bijector.forward(inner(u))
    elif hasattr(dist, "quantile"):
        function = dist.quantile
    else:
        raise TypeError(
            f"{name}: no quantile function of {names[0]} is known, only of "
            f"{', '.join(sorted(_QUANTILES))}, of what Independent and bijectors make of these, "
            "and of distributions that have a method quantile. Sample it without this."
        )
    shape = jax.eval_shape(lambda: draw(dist, jax.random.key(0))).shape
    return shape, function


def _normal(dist: Any) -> Quantiles:
    return lambda u: dist.mean() + dist.stddev() * jax.scipy.special.ndtri(u)


def _uniform(dist: Any) -> Quantiles:
    return lambda u: dist.low + (dist.high - dist.low) * u


def _logistic(dist: Any) -> Quantiles:
    return lambda u: dist.loc + dist.scale * (jnp.log(u) - jnp.log1p(-u))


def _laplace(dist: Any) -> Quantiles:
    def quantile(u: jax.Array) -> jax.Array:
        tail = jnp.log(2 * jnp.minimum(u, 1 - u))
        return jnp.asarray(dist.loc + dist.scale * jnp.where(u < 0.5, tail, -tail))

    return quantile


def _gumbel(dist: Any) -> Quantiles:
    return lambda u: dist.loc - dist.scale * jnp.log(-jnp.log(u))


def _bernoulli(dist: Any) -> Quantiles:
    def quantile(u: jax.Array) -> jax.Array:
        return (u > 1 - probabilities(dist)).astype(dist.dtype)

    return quantile


def _categorical(dist: Any) -> Quantiles:
    def quantile(u: jax.Array) -> jax.Array:
        # The last class takes what rounding leaves.
        below = jnp.cumsum(probabilities(dist), -1)[..., :-1] < u[..., None]
        return jnp.sum(below, -1).astype(dist.dtype)

    return quantile


_QUANTILES: dict[str, Callable[[Any], Quantiles]] = {
    "Bernoulli": _bernoulli,
    "Categorical": _categorical,
    "Gumbel": _gumbel,
    "Laplace": _laplace,
    "Logistic": _logistic,
    "MultiNormal": _normal,
    "Normal": _normal,
    "Uniform": _uniform,
}
