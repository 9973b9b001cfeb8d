r"""The score-function estimator with a leave-one-out baseline (RLOO).

.. math::

    g_i = \Bigl(f(x_i) - \frac{1}{n - 1} \sum_{j \neq i} f(x_j)\Bigr) \nabla \log p(x_i)

The baseline of a sample does not depend on that sample, so the estimate is unbiased: subtracting
the mean of all n values instead would shrink it by (n - 1) / n.
"""

from typing import Any

import jax
import jax.numpy as jnp

from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    build,
    check_call,
    check_independent,
    draws,
    jacobians,
    log_density,
    scalar,
    surrogate,
    values,
    zero,
)


def rloo_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    """Score-function Jacobians with the mean of the other samples' values as each one's baseline.

    It serves every distribution and function, discrete or not. See the module for the equation.

    Args:
      function: As of `score_function_jacobians`.
      params: As of `score_function_jacobians`.
      dist_builder: As of `score_function_jacobians`.
      rng: As of `score_function_jacobians`.
      num_samples: How many samples, at least 2. Their Jacobians are not independent.

    Returns:
      For each of `params` an array of shape (num_samples, *param.shape).

    Raises:
      TypeError: As of `score_function_jacobians`.
      ValueError: As of `score_function_jacobians`, or if `num_samples` < 2.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, rloo_jacobians
      >>> params, key = [jnp.array([1.0]), jnp.array([0.0])], jax.random.key(0)
      >>> d_loc, _ = rloo_jacobians(lambda x: 3 * x[0], params, multi_normal, key, 10_000)
      >>> d_loc.shape, bool(abs(d_loc.mean() - 3) < 0.2)
      ((10000, 1), True)

    Reference:
      Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free!, 2019.
    """
    name = "rloo_jacobians"
    return jacobians(*_rloo(name, function, params, dist_builder, rng, num_samples))


def rloo_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """The mean of f, whose gradient is the mean of `rloo_jacobians` for the same key.

    Args:
      function: As of `rloo_jacobians`. Gradients flow to what it closes over, too.
      params: As of `rloo_jacobians`.
      dist_builder: As of `rloo_jacobians`.
      rng: As of `rloo_jacobians`.
      num_samples: As of `rloo_jacobians`.

    Returns:
      A scalar, for first derivatives.

    Raises:
      TypeError: As of `rloo_jacobians`.
      ValueError: As of `rloo_jacobians`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, rloo_surrogate
      >>> def loss(params, rng):
      ...     return rloo_surrogate(lambda x: jnp.sum(x**2), params, multi_normal, rng, 8)
      >>> params = [jnp.zeros(3), jnp.zeros(3)]
      >>> [grad.shape for grad in jax.jit(jax.grad(loss))(params, jax.random.key(0))]
      [(3,), (3,)]
    """
    name = "rloo_surrogate"
    return surrogate(*_rloo(name, function, params, dist_builder, rng, num_samples))


def _rloo(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> tuple[Term, Params, Any, jax.Array]:
    check_call(name, function, params, dist_builder, rng, num_samples, at_least=2)
    function = scalar(name, function)
    dist = build(dist_builder, params)
    check_independent(name, dist)
    samples = draws(dist, rng, num_samples)
    costs = jax.lax.stop_gradient(values(name, function, samples))

    def term(params: Params, sample: Any, advantage: jax.Array) -> jax.Array:
        log_p = log_density(build(dist_builder, params), sample)
        return function(sample) + advantage * zero(log_p)

    # f(x_i) less the mean of the others is its distance from the mean of all, stretched.
    return term, params, samples, (costs - jnp.mean(costs)) * num_samples / (num_samples - 1)
