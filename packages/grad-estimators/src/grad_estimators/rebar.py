r"""REBAR: score function estimates of discrete variables, with f itself, relaxed, as control.

With :math:`z = \theta + \mathrm{noise}`, the sample b that is the threshold of z, and a draw
:math:`\tilde z` of z given b,

.. math::

    g = (f(b) - c(\tilde z)) \, \nabla \log p(b) + \nabla c(z) - \nabla c(\tilde z),
    \qquad c(z) = \eta \, f(\sigma(z / \tau))

with a softmax in place of :math:`\sigma` for categorical variables.
"""

from typing import Any

import jax
from jax.typing import ArrayLike

from grad_estimators._logits import Kind, check_temperature
from grad_estimators._relaxed_control import Estimator, relaxed_control
from grad_estimators._sampling import DistBuilder, Function, Params


def rebar_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike = 0.5,
    scale: ArrayLike = 1.0,
) -> Any:
    """REBAR estimates of d E[f(x)] / d params, one for each sample; see the module.

    They are unbiased, for every temperature and scale.

    Args:
      function: f, from a sample, discrete or relaxed, to a scalar; differentiable. Samples are
        floats from 0 to 1 of the shape of the logits, so for a categorical distribution vectors
        that sum to 1 (one-hot where they are discrete), not classes.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli or categorical distribution,
        independent in its axes, with ``logits``.
      rng: A random key.
      num_samples: How many samples.
      temperature: The temperature of the control variate, > 0.
      scale: The factor of the control variate; with 0 this is the score function estimator.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli or
        categorical.
      ValueError: If `num_samples` or `temperature` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import rebar_jacobians
      >>> def coins(logits):
      ...     return distrax.Bernoulli(logits=logits)
      >>> def estimate(logits, key):
      ...     return rebar_jacobians(lambda x: jnp.sum(x) ** 2, [logits], coins, key, 5)[0]
      >>> jax.jit(estimate)(jnp.zeros(3), jax.random.key(0)).shape
      (5, 3)

    Reference:
      Tucker et al., REBAR: low-variance, unbiased gradient estimates for discrete latent variable
      models, 2017.
    """
    name = "rebar_jacobians"
    estimator = _rebar(name, function, params, dist_builder, rng, num_samples, temperature)
    return estimator.jacobians((temperature, scale))


def rebar_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike = 0.5,
    scale: ArrayLike = 1.0,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the REBAR estimate as its gradient.

    Args:
      function: As of `rebar_jacobians`, and so are the other arguments. What it closes over gets
        its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      temperature: The temperature of the control variate, > 0. The gradient with respect to it is
        that of the variance, as in `relax_surrogate`: descend it to tune the estimator.
      scale: The factor of the control variate, whose gradient is that of the variance, too.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `rebar_jacobians` gives for the same key.

    Raises:
      TypeError: As of `rebar_jacobians`.
      ValueError: As of `rebar_jacobians`.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import rebar_surrogate
      >>> def loss(logits, scale):
      ...     coins = lambda logits: distrax.Bernoulli(logits=logits)
      ...     key = jax.random.key(0)
      ...     return rebar_surrogate(lambda x: jnp.sum(x), [logits], coins, key, 9, 0.5, scale)
      >>> [grad.shape for grad in jax.jit(jax.grad(loss, (0, 1)))(jnp.zeros(3), 1.0)]
      [(3,), ()]

    Reference:
      Tucker et al., REBAR: low-variance, unbiased gradient estimates for discrete latent variable
      models, 2017.
    """
    name = "rebar_surrogate"
    estimator = _rebar(name, function, params, dist_builder, rng, num_samples, temperature)
    return estimator.surrogate((temperature, scale))


def _rebar(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike,
) -> Estimator:
    check_temperature(name, temperature)

    def control(kind: Kind, tuning: tuple[ArrayLike, ArrayLike], z: jax.Array) -> Any:
        temperature, scale = tuning
        return scale * function(kind.mean(z / temperature))

    return relaxed_control(
        name, function, params, dist_builder, rng, num_samples, control, decoded=False
    )
