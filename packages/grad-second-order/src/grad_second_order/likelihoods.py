r"""Likelihoods of targets given a model's outputs: what Fisher matrices need to know of a loss.

Each is in its natural parameters, so that the Fisher matrix by the outputs is the Hessian of the
negative log-likelihood, whatever the targets (where that Hessian does not depend on them):

.. math::

    \text{categorical: } \mathrm{diag}(p) - p p^\top,\ p = \mathrm{softmax}(z); \qquad
    \text{Bernoulli: } \sigma(z) (1 - \sigma(z)); \qquad
    \text{Gaussian: } 1 / \sigma^2 .
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from grad_core.numerics import widen


class Likelihood(NamedTuple):
    """A distribution of targets, given outputs whose first axis counts the examples.

    Attributes:
      negative_log_likelihood: Of outputs and targets, one number an example, up to a constant.
      sample: Of a random key and outputs, targets drawn from the distribution.
      fisher: Of outputs and an array like them, its product with the Fisher matrix by the outputs,
        the expectation of the outer products of gradients of the first, example by example.
    """

    negative_log_likelihood: Callable[[jax.Array, jax.Array], jax.Array]
    sample: Callable[[jax.Array, jax.Array], jax.Array]
    fisher: Callable[[jax.Array, jax.Array], jax.Array]


def categorical_likelihood() -> Likelihood:
    """Of one class out of C, by logits of shape (examples, ..., C); targets are integers.

    Returns:
      The likelihood, -log softmax(z)_y.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import categorical_likelihood
      >>> likelihood = categorical_likelihood()
      >>> print(likelihood.negative_log_likelihood(jnp.zeros((1, 4)), jnp.array([2])))
      [1.3862944]
    """

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        log_p = jax.nn.log_softmax(widen(logits))
        return -_per_example(jnp.take_along_axis(log_p, labels[..., None], axis=-1))

    def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
        return jax.random.categorical(key, widen(logits))

    def fisher(logits: jax.Array, v: jax.Array) -> jax.Array:
        p = jax.nn.softmax(widen(logits))
        return p * (v - jnp.sum(p * v, axis=-1, keepdims=True))

    return Likelihood(loss, sample, fisher)


def bernoulli_likelihood() -> Likelihood:
    """Of a yes or no, by its log-odds; outputs of any shape, targets 0 or 1 of the same.

    Returns:
      The likelihood, log(1 + exp(z)) - y z.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import bernoulli_likelihood
      >>> bernoulli_likelihood().fisher(jnp.zeros(1), jnp.ones(1))
      Array([0.25], dtype=float32)
    """

    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        z = widen(logits)
        return _per_example(jax.nn.softplus(z) - targets * z)

    def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
        z = widen(logits)
        return jax.random.bernoulli(key, jax.nn.sigmoid(z)).astype(z.dtype)

    def fisher(logits: jax.Array, v: jax.Array) -> jax.Array:
        z = widen(logits)
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z) * v

    return Likelihood(loss, sample, fisher)


def gaussian_likelihood(variance: jax.Array | float = 1.0) -> Likelihood:
    """Of real targets around their mean, the outputs, of any shape.

    Args:
      variance: Of each target, > 0: a number, or an array that broadcasts with the outputs.

    Returns:
      The likelihood, (y - z)**2 / (2 variance), up to a constant.

    Raises:
      ValueError: If `variance` is a Python number, and not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import gaussian_likelihood
      >>> gaussian_likelihood(0.5).fisher(jnp.zeros(1), jnp.ones(1))
      Array([2.], dtype=float32)
    """
    if isinstance(variance, int | float) and not variance > 0:
        raise ValueError(f"gaussian_likelihood: variance must be > 0; got {variance!r}.")

    def loss(means: jax.Array, targets: jax.Array) -> jax.Array:
        return _per_example((targets - widen(means)) ** 2 / (2 * variance))

    def sample(key: jax.Array, means: jax.Array) -> jax.Array:
        z = widen(means)
        return z + jnp.sqrt(variance) * jax.random.normal(key, z.shape, z.dtype)

    def fisher(means: jax.Array, v: jax.Array) -> jax.Array:
        return v / variance

    return Likelihood(loss, sample, fisher)


def _per_example(terms: jax.Array) -> jax.Array:
    return jnp.sum(terms, axis=tuple(range(1, terms.ndim)))
