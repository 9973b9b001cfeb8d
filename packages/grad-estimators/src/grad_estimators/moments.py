r"""The mean and the variance of Jacobians, in memory that does not grow with the number of samples.

Batches are drawn one after the other. With means m, m' and sums of squared deviations s, s' of n
and n' samples, those of all n + n' are

.. math::

    m + \delta \frac{n'}{n + n'}, \qquad
    s + s' + \delta^2 \frac{n n'}{n + n'}, \qquad \delta = m' - m
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    check_call,
    check_count,
    widened,
)
from grad_estimators.variance_reduction import GradEstimator


class JacobianMoments(NamedTuple):
    """What `jacobian_moments` returns.

    Attributes:
      mean: The mean of the Jacobians, for each of the parameters: the estimated gradient.
      variance: The variance of the Jacobians of one sample, as jnp.var has it.
    """

    mean: Any
    variance: Any


def jacobian_moments(
    grad_estimator: GradEstimator,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    *,
    batch_size: int = 1000,
) -> JacobianMoments:
    """The mean and the variance of an estimator's Jacobians, of which it holds one batch only.

    Args:
      grad_estimator: What estimates the Jacobians, such as `score_function_jacobians`. Further
        arguments are set with ``functools.partial``.
      function: f, from one sample to a scalar.
      params: The parameters, a list or tuple of arrays of floating point dtype.
      dist_builder: ``dist_builder(*params)`` gives the distribution.
      rng: A random key.
      num_samples: How many samples in all.
      batch_size: How many of them to hold at once. Estimators that compare the samples of a call
        with each other compare those of a batch; the last may be smaller.

    Returns:
      The mean and the variance, each a list or tuple like `params`, of arrays in their shapes.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If a number of samples is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import jacobian_moments, multi_normal, pathwise_jacobians
      >>> mean, variance = jacobian_moments(
      ...     pathwise_jacobians,
      ...     jnp.sum,
      ...     [jnp.ones(2), jnp.zeros(2)],
      ...     multi_normal,
      ...     jax.random.key(0),
      ...     10_000,
      ...     batch_size=100,
      ... )
      >>> mean[0].round(3), variance[1].round(1)
      (Array([1., 1.], dtype=float32), Array([1., 1.], dtype=float32))

    Reference:
      Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983.
    """
    name = "jacobian_moments"
    check_call(name, function, params, dist_builder, rng, num_samples)
    check_count(name, "batch_size", batch_size)
    first = num_samples % batch_size or batch_size  # a smaller batch, if there is one
    batches = (num_samples - first) // batch_size
    first_key, *keys = jax.random.split(rng)

    def of_batch(key: jax.Array, size: int) -> JacobianMoments:
        jacobians = jax.tree.map(widened, grad_estimator(function, params, dist_builder, key, size))
        return JacobianMoments(
            jax.tree.map(lambda x: jnp.mean(x, 0), jacobians),
            jax.tree.map(lambda x: jnp.sum((x - jnp.mean(x, 0)) ** 2, 0), jacobians),
        )

    def add(so_far: JacobianMoments, inputs: tuple[jax.Array, jax.Array]) -> Any:
        key, count = inputs
        batch = of_batch(key, batch_size)
        share = batch_size / (count + batch_size)
        delta = jax.tree.map(jnp.subtract, batch.mean, so_far.mean)
        total = JacobianMoments(
            jax.tree.map(lambda m, d: m + d * share, so_far.mean, delta),
            jax.tree.map(
                lambda s, more, d: s + more + d**2 * (count * share),
                so_far.variance,
                batch.variance,
                delta,
            ),
        )
        return total, None

    total = of_batch(first_key, first)
    if batches:
        counts = jnp.asarray(first + batch_size * np.arange(batches), jnp.float32)
        total, _ = jax.lax.scan(add, total, (jax.random.split(keys[0], batches), counts))

    def like_params(tree: Any) -> Any:
        dtypes = jax.tree.map(jnp.result_type, list(params))
        leaves = jax.tree.map(lambda x, dtype: x.astype(dtype), list(tree), dtypes)
        return type(tree)(leaves)

    variance = jax.tree.map(lambda s: s / num_samples, total.variance)
    return JacobianMoments(like_params(total.mean), like_params(variance))
