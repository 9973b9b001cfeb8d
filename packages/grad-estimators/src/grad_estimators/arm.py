r"""ARM and DisARM: Bernoulli variables, drawn in antithetic pairs.

With uniform noise u, logits :math:`\theta` and the logistic function :math:`\sigma`, both of

.. math::

    b = [u \geq \sigma(-\theta)], \qquad \tilde b = [u < \sigma(\theta)]

are samples, as different as they can be. ARM is unbiased, and DisARM is its expectation given the
pair, of less variance:

.. math::

    g_\mathrm{ARM} &= (f(b) - f(\tilde b)) \, (u - \tfrac12) \\
    g_\mathrm{DisARM} &= \tfrac12 (f(b) - f(\tilde b)) \, (b - \tilde b) \, \sigma(|\theta|)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_estimators._logits import coded_by, logits_of
from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    check_call,
    jacobians,
    pulled_back,
    scalar,
    surrogate,
    values,
)

_Direction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""From the logits, u, and both codes to what f(b) - f(b~) is multiplied with."""


def arm_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    """ARM estimates of d E[f(x)] / d params for Bernoulli x, one for each pair of samples.

    See the module for the equation. `disarm_jacobians` has no more variance at the same cost.

    Args:
      function: f, from a sample of the distribution to a scalar, called for both of each pair.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli distribution, independent in its
        axes, with ``logits``.
      rng: A random key.
      num_samples: How many pairs.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import arm_jacobians
      >>> def coins(logits):
      ...     return distrax.Bernoulli(logits=logits)
      >>> def estimate(logits, key):
      ...     return arm_jacobians(lambda x: jnp.sum(x) ** 2.0, [logits], coins, key, 5)[0]
      >>> jax.jit(estimate)(jnp.zeros(3), jax.random.key(0)).shape
      (5, 3)

    Reference:
      Yin and Zhou, ARM: augment-REINFORCE-merge gradient for stochastic binary networks, 2019.
    """
    name = "arm_jacobians"
    return jacobians(*_pairs(name, _arm, function, params, dist_builder, rng, num_samples))


def arm_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the ARM estimate as its gradient.

    Args:
      function: As of `arm_jacobians`, and so are the other arguments. What it closes over gets
        its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many pairs.

    Returns:
      The mean of f over all pairs. Its gradient with respect to `params` is the mean of the
      Jacobians that `arm_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import arm_surrogate
      >>> def loss(logits):
      ...     coins = lambda logits: distrax.Bernoulli(logits=logits)
      ...     return arm_surrogate(lambda x: 1.0 * x, [logits], coins, jax.random.key(0), 9)
      >>> jax.jit(jax.grad(loss))(0.0).shape
      ()

    Reference:
      Yin and Zhou, ARM: augment-REINFORCE-merge gradient for stochastic binary networks, 2019.
    """
    name = "arm_surrogate"
    return surrogate(*_pairs(name, _arm, function, params, dist_builder, rng, num_samples))


def disarm_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    """DisARM estimates of d E[f(x)] / d params for Bernoulli x, one for each pair of samples.

    See the module for the equation. Also called U2G.

    Args:
      function: f, from a sample of the distribution to a scalar, called for both of each pair.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli distribution, independent in its
        axes, with ``logits``.
      rng: A random key.
      num_samples: How many pairs.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import disarm_jacobians
      >>> def coin(logit):
      ...     return distrax.Bernoulli(logits=logit)
      >>> disarm_jacobians(lambda x: 4.0 * x, [jnp.zeros(())], coin, jax.random.key(0), 2)
      [Array([1., 1.], dtype=float32)]

    Reference:
      Dong, Mnih and Tucker, DisARM: an antithetic gradient estimator for binary latent variables,
      2020; Yin et al., Probabilistic best subset selection via gradient-based optimization, 2020.
    """
    name = "disarm_jacobians"
    return jacobians(*_pairs(name, _disarm, function, params, dist_builder, rng, num_samples))


def disarm_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the DisARM estimate as its gradient.

    Args:
      function: As of `disarm_jacobians`, and so are the other arguments. What it closes over gets
        its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many pairs.

    Returns:
      The mean of f over all pairs. Its gradient with respect to `params` is the mean of the
      Jacobians that `disarm_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import disarm_surrogate
      >>> def loss(logits):
      ...     coins = lambda logits: distrax.Bernoulli(logits=logits)
      ...     return disarm_surrogate(lambda x: 4.0 * x, [logits], coins, jax.random.key(0), 9)
      >>> jax.jit(jax.grad(loss))(0.0)
      Array(1., dtype=float32, weak_type=True)

    Reference:
      Dong, Mnih and Tucker, DisARM: an antithetic gradient estimator for binary latent variables,
      2020.
    """
    name = "disarm_surrogate"
    return surrogate(*_pairs(name, _disarm, function, params, dist_builder, rng, num_samples))


def _arm(logits: jax.Array, u: jax.Array, b: jax.Array, other: jax.Array) -> jax.Array:
    return u - 0.5


def _disarm(logits: jax.Array, u: jax.Array, b: jax.Array, other: jax.Array) -> jax.Array:
    return 0.5 * (b - other) * jax.nn.sigmoid(jnp.abs(logits))


def _pairs(
    name: str,
    direction: _Direction,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> tuple[Term, Params, Any, jax.Array]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    kind, logits = coded_by(name, params, dist_builder, binary_only=True)
    u = jax.random.uniform(rng, (num_samples, *logits.shape), logits.dtype)
    b = (u >= jax.nn.sigmoid(-logits)).astype(u.dtype)
    other = (u < jax.nn.sigmoid(logits)).astype(u.dtype)
    pairs = kind.decoded(b), kind.decoded(other)
    difference = values(name, function, pairs[0]) - values(name, function, pairs[1])
    cotangents = jax.vmap(jnp.multiply)(difference, direction(logits, u, b, other))
    f = scalar(name, function)

    def mean(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        return 0.5 * (f(pair[0]) + f(pair[1]))

    return pulled_back(mean, dist_builder, logits_of), params, pairs, cotangents
