r"""Samples that are drawn together, so that their mean is nearer to the expectation.

*Antithetic* samples come in pairs, of uniform numbers u and 1 - u. *Quasi-Monte-Carlo* samples come
from points that fill the unit cube evenly, moved by one random shift,

.. math::

    u_i = (s + i \alpha) \bmod 1, \qquad \alpha_j = \sqrt{p_j}

with the primes p. Either way each sample by itself has the right distribution, so every estimator
stays unbiased. The variance of its mean is no longer that of one sample over their number.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_estimators._quantiles import quantiles
from grad_estimators._sampling import ByNoise, DistBuilder, Distribution


def antithetic(dist_builder: DistBuilder) -> DistBuilder:
    """Draws the samples of an estimator in antithetic pairs.

    Each pair is made from u and 1 - u. For f = x, or any odd function around the center of a
    symmetric distribution, the errors of a pair cancel. For an even one a pair tells no more than
    one sample.

    Args:
      dist_builder: ``dist_builder(*params)`` gives the distribution: `multi_normal`, a Normal,
        Uniform, Logistic, Laplace, Gumbel, Bernoulli or Categorical of distrax, what Independent or
        a bijector makes of these, or any distribution with a method ``quantile``.

    Returns:
      A builder to give to an estimator in the place of `dist_builder`. The number of samples must
      then be even.

    Raises:
      TypeError: By the builder, if no quantile function of the distribution is known.
      ValueError: By the estimator, if the number of samples is odd.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import antithetic, multi_normal, pathwise_jacobians
      >>> @jax.jit
      ... def estimate(params, key):
      ...     return pathwise_jacobians(jnp.sum, params, antithetic(multi_normal), key, 2)
      >>> jacobians = estimate([jnp.ones(1), jnp.zeros(1)], jax.random.key(0))
      >>> abs(jacobians[1].mean().round(3))
      Array(0., dtype=float32)

    Reference:
      Hammersley and Morton, A new Monte Carlo technique: antithetic variates, 1956.
    """

    def points(rng: jax.Array, num_samples: int, dimensions: int) -> jax.Array:
        if num_samples % 2:
            raise ValueError(
                f"antithetic: the number of samples must be even; got {num_samples}. Add one."
            )
        u = _uniform(jax.random.bits(rng, (num_samples // 2, dimensions)))
        return jnp.stack([u, 1 - u], 1).reshape(num_samples, dimensions)

    return _redrawn("antithetic", dist_builder, points)


def quasi_monte_carlo(dist_builder: DistBuilder) -> DistBuilder:
    """Draws the samples of an estimator from evenly spread points with a random shift.

    The error of a mean of n samples falls nearly as 1/n in few dimensions, not as 1/sqrt(n).

    Args:
      dist_builder: ``dist_builder(*params)`` gives the distribution, of a kind that `antithetic`
        takes.

    Returns:
      A builder to give to an estimator in the place of `dist_builder`.

    Raises:
      TypeError: By the builder, if no quantile function of the distribution is known.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, pathwise_jacobians, quasi_monte_carlo
      >>> @jax.jit
      ... def estimate(params, key):
      ...     dist_builder = quasi_monte_carlo(multi_normal)
      ...     return pathwise_jacobians(lambda x: x**2, params, dist_builder, key, 1000)
      >>> jacobians = estimate([jnp.array(1.0), jnp.array(0.0)], jax.random.key(0))
      >>> [float(jacobian.mean().round(1)) for jacobian in jacobians]
      [2.0, 2.0]

    Reference:
      Richtmyer, The evaluation of definite integrals, and a quasi-Monte-Carlo method based on the
      properties of algebraic numbers, 1951; Cranley and Patterson, Randomization of number
      theoretic methods for multiple integration, 1976.
    """

    def points(rng: jax.Array, num_samples: int, dimensions: int) -> jax.Array:
        # Integers wrap around: this is arithmetic modulo 1, in units of 2^-32, without rounding.
        shift = jax.random.bits(rng, (dimensions,))
        steps = jnp.arange(num_samples, dtype=jnp.uint32)[:, None] * _roots(dimensions)
        return _uniform(shift + steps)

    return _redrawn("quasi_monte_carlo", dist_builder, points)


class Redrawn(ByNoise):
    """A distribution with another way to draw several samples at once.

    Attributes:
      distribution: The distribution that each sample has.
    """

    def __init__(
        self, name: str, dist: Any, points: Callable[[jax.Array, int, int], jax.Array]
    ) -> None:
        self.distribution = dist
        self._shape, self._quantiles = quantiles(name, dist)
        self._points = points

    def noise(self, rng: jax.Array, num_samples: int) -> jax.Array:
        points = self._points(rng, num_samples, math.prod(self._shape))
        return points.reshape(num_samples, *self._shape)

    def transform(self, noise: jax.Array) -> Any:
        return self._quantiles(noise)

    def sample(self, *, seed: jax.Array, sample_shape: Any = ()) -> Any:
        """Samples, drawn together, of this shape and that of one."""
        shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        if shape == ():
            return self.distribution.sample(seed=seed, sample_shape=())
        samples = jax.vmap(self.transform)(self.noise(seed, math.prod(shape)))
        return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), samples)

    def log_prob(self, value: Any) -> Any:
        """The log-density of each sample by itself."""
        return self.distribution.log_prob(value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "distribution":
            raise AttributeError(name)
        return getattr(self.distribution, name)


def _redrawn(
    name: str, dist_builder: DistBuilder, points: Callable[[jax.Array, int, int], jax.Array]
) -> DistBuilder:
    def build(*params: Any) -> Distribution:
        return Redrawn(name, dist_builder(*params), points)

    return build


def _uniform(bits: jax.Array) -> jax.Array:
    """Numbers in (0, 1) from 32 bits each: odd multiples of 2^-24, so that 1 - u is exact."""
    return (2 * (bits >> 9).astype(jnp.float32) + 1) * 2.0**-24


@functools.cache
def _roots(count: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
    """The fractions of the square roots of the first primes, in units of 2^-32."""
    primes: list[int] = []
    candidate = 2
    while len(primes) < count:
        if all(candidate % prime for prime in primes):
            primes.append(candidate)
        candidate += 1
    return np.array([math.isqrt(p << 64) % 2**32 for p in primes], np.uint32)
