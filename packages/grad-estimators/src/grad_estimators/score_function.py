r"""The score function estimator, also called REINFORCE or the likelihood ratio method.

.. math::

    \nabla_\theta E[f(x)] = E[f(x) \, \nabla_\theta \log p_\theta(x)]

It asks nothing of f, not even that it be continuous, and only a log-density of the distribution,
which may be discrete. Where a sample is possible must not depend on the parameters, as with a
uniform distribution it does. The variance grows with f(x)^2: take a control variate, or a baseline.
"""

from typing import Any

import jax

from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    build,
    check_call,
    draws,
    jacobians,
    log_density,
    scalar,
    surrogate,
    zero,
)


def score_function_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    """Score function estimates of d E[f(x)] / d params, one for each sample.

    Each is f(x) times the gradient of log p(x), for a sample x.

    Args:
      function: f, from one sample to a scalar. It need not be differentiable.
      params: The parameters, a list or tuple of arrays of floating point dtype.
      dist_builder: ``dist_builder(*params)`` gives the distribution: any object with
        ``sample(seed=, sample_shape=)`` and ``log_prob``. Axes of a batch of distributions belong
        to the sample, and are independent.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, score_function_jacobians
      >>> params = [jnp.ones(2), jnp.zeros(2)]
      >>> jacobians = score_function_jacobians(
      ...     jnp.sum, params, multi_normal, jax.random.key(0), 5
      ... )
      >>> [jacobian.shape for jacobian in jacobians]
      [(5, 2), (5, 2)]

    Reference:
      Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
      learning, 1992; Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020,
      section 4.
    """
    name = "score_function_jacobians"
    return jacobians(*_score_function(name, function, params, dist_builder, rng, num_samples))


def score_function_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the score function estimate as its gradient.

    Args:
      function: As of `score_function_jacobians`, and so are the other arguments. What it closes
        over gets its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `score_function_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, score_function_surrogate
      >>> def loss(params):
      ...     return score_function_surrogate(
      ...         jnp.sum, params, multi_normal, jax.random.key(0), 100
      ...     )
      >>> [gradient.shape for gradient in jax.grad(loss)([jnp.ones(2), jnp.zeros(2)])]
      [(2,), (2,)]

    Reference:
      Schulman et al., Gradient estimation using stochastic computation graphs, 2015.
    """
    name = "score_function_surrogate"
    return surrogate(*_score_function(name, function, params, dist_builder, rng, num_samples))


def _score_function(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> tuple[Term, Params, Any]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    f = scalar(name, function)

    def term(params: Params, sample: Any) -> jax.Array:
        value = f(sample)
        log_prob = log_density(build(dist_builder, params), sample)
        return value + jax.lax.stop_gradient(value) * zero(log_prob)

    return term, params, draws(build(dist_builder, jax.lax.stop_gradient(params)), rng, num_samples)
