r"""The normal distribution with independent coordinates, by its mean and the log of its scale.

.. math::

    \log p(x) = -\sum_i \left(\tfrac12 z_i^2 + \log \sigma_i + \tfrac12 \log 2 \pi\right),
    \qquad z = (x - \mu) / \sigma

The log of the scale has no bound, so a gradient step can be taken in it.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from grad_core import Numeric

__all__ = ["MultiNormal", "multi_normal"]


@jax.tree_util.register_pytree_node_class
class MultiNormal:
    """What `multi_normal` returns: a pytree of a mean and a log-scale.

    Attributes:
      loc: The mean.
      log_scale: The logarithm of the standard deviations.
    """

    def __init__(self, loc: Numeric, log_scale: Numeric) -> None:
        self.loc = jnp.asarray(loc)
        self.log_scale = jnp.asarray(log_scale)

    @property
    def params(self) -> list[jax.Array]:
        """The mean and the log-scale."""
        return [self.loc, self.log_scale]

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return jnp.broadcast_shapes(self.loc.shape, self.log_scale.shape)

    def mean(self) -> jax.Array:
        """The mean."""
        return jnp.broadcast_to(self.loc, self.event_shape)

    def stddev(self) -> jax.Array:
        """The standard deviations."""
        return jnp.broadcast_to(jnp.exp(self.log_scale), self.event_shape)

    def sample(
        self,
        sample_shape: int | Sequence[int] = (),
        key: jax.Array | None = None,
        *,
        seed: jax.Array | None = None,
    ) -> jax.Array:
        """Draws independent samples, differentiable in the mean and the log-scale.

        Args:
          sample_shape: How many; a number, or a shape.
          key: A random key.
          seed: The same key under the name that distrax gives it.

        Returns:
          An array of shape ``(*sample_shape, *event_shape)``.

        Raises:
          TypeError: Unless exactly one of `key` and `seed` is given.
        """
        keys = [x for x in (key, seed) if x is not None]
        if len(keys) != 1:
            raise TypeError("multi_normal: sample() needs one random key: sample(shape, key).")
        shape = (sample_shape,) if isinstance(sample_shape, int) else tuple(sample_shape)
        dtype = jnp.result_type(self.loc, self.log_scale, float)
        noise = jax.random.normal(keys[0], shape + self.event_shape, dtype)
        return self.loc + jnp.exp(self.log_scale) * noise

    def log_prob(self, value: jax.typing.ArrayLike) -> jax.Array:
        """The log-density.

        Args:
          value: Points, of shape ``(..., *event_shape)``.

        Returns:
          An array of shape ``(...)``.

        Raises:
          ValueError: If the last axes of `value` are not those of a sample.
        """
        value, event = jnp.asarray(value), self.event_shape
        batch = value.ndim - len(event)
        if batch < 0 or value.shape[batch:] != event:
            raise ValueError(
                f"multi_normal: log_prob() takes points of shape (..., {str(event)[1:-1]}); "
                f"got {value.shape}."
            )
        z = (value - self.loc) * jnp.exp(-self.log_scale)
        density = -0.5 * z**2 - self.log_scale - 0.5 * math.log(2 * math.pi)
        return jnp.sum(density, range(batch, value.ndim))

    def tree_flatten(self) -> tuple[tuple[jax.Array, jax.Array], None]:
        """The mean and the log-scale, for JAX."""
        return (self.loc, self.log_scale), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[jax.Array, jax.Array]) -> "MultiNormal":
        """The distribution from its parameters, which may be anything that JAX puts there."""
        distribution: MultiNormal = object.__new__(cls)
        distribution.loc, distribution.log_scale = children
        return distribution

    def __repr__(self) -> str:
        return f"multi_normal(loc={self.loc!r}, log_scale={self.log_scale!r})"


def multi_normal(loc: Numeric, log_scale: Numeric) -> MultiNormal:
    """The normal distribution with independent coordinates; see the module for its density.

    Args:
      loc: The mean, of any shape.
      log_scale: The logarithm of the standard deviations, of a shape that broadcasts with `loc`.

    Returns:
      A distribution with ``sample(shape, key)``, ``log_prob(value)`` and ``params``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal
      >>> normal = multi_normal(jnp.zeros(3), jnp.zeros(3))
      >>> samples = normal.sample((5,), jax.random.key(0))
      >>> samples.shape, normal.log_prob(samples).shape
      ((5, 3), (5,))
    """
    return MultiNormal(loc, log_scale)
