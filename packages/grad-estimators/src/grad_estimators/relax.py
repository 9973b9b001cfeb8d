r"""RELAX: score function estimates of discrete variables, with a control variate that is learnt.

With :math:`z = \theta + \mathrm{noise}`, the sample b that is the threshold of z, a draw
:math:`\tilde z` of z given b, and any differentiable function c,

.. math::

    g = (f(b) - c(\tilde z)) \, \nabla \log p(b) + \nabla c(z) - \nabla c(\tilde z)

f may be a black box. c is usually a network; its parameters descend the variance of g.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from grad_estimators._logits import Kind
from grad_estimators._relaxed_control import Estimator, relaxed_control
from grad_estimators._sampling import DistBuilder, Function, Params

ControlVariate: TypeAlias = Callable[[Any, jax.Array], Any]
"""c, from its parameters and noisy logits to a scalar."""


def relax_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate: ControlVariate,
    control_params: Any,
) -> Any:
    """RELAX estimates of d E[f(x)] / d params, one for each sample; see the module.

    They are unbiased, for every control variate.

    Args:
      function: f, from a sample of the distribution to a scalar. It need not be differentiable,
        nor known but for its values.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli or categorical distribution,
        independent in its axes, with ``logits``.
      rng: A random key.
      num_samples: How many samples.
      control_variate: c, from `control_params` and noisy logits z, floats of the shape of the
        logits, to a scalar; differentiable. The closer c is to f(b), the better, where b is z > 0
        for a Bernoulli, the place of the largest z for a categorical.
      control_params: A tree of arrays, such as the weights of a network.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli or
        categorical.
      ValueError: If `num_samples` is not positive, or f or c gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import relax_jacobians
      >>> def coins(logits):
      ...     return distrax.Bernoulli(logits=logits)
      >>> def control(weights, z):
      ...     return jnp.tanh(z) @ weights
      >>> def estimate(logits, weights, key):
      ...     f = lambda x: x[0] * 2.0
      ...     return relax_jacobians(f, [logits], coins, key, 5, control, weights)[0]
      >>> jax.jit(estimate)(jnp.zeros(3), jnp.ones(3), jax.random.key(0)).shape
      (5, 3)

    Reference:
      Grathwohl et al., Backpropagation through the void: optimizing control variates for black-box
      gradient estimation, 2018.
    """
    name = "relax_jacobians"
    estimator = _relax(name, function, params, dist_builder, rng, num_samples, control_variate)
    return estimator.jacobians(control_params)


def relax_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate: ControlVariate,
    control_params: Any,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the RELAX estimate as its gradient.

    The gradient with respect to `control_params` is another: that of the variance of the estimate,
    of the mean over the samples of the sum over the logits of g**2. So one gradient step trains
    both, the distribution and the control variate.

    Args:
      function: As of `relax_jacobians`, and so are the other arguments. What it closes over gets
        its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      control_variate: The function c. What it closes over gets no gradient.
      control_params: Its parameters.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `relax_jacobians` gives for the same key.

    Raises:
      TypeError: As of `relax_jacobians`.
      ValueError: As of `relax_jacobians`.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import relax_surrogate
      >>> def loss(logits, weights):
      ...     return relax_surrogate(
      ...         lambda x: x[0] * 2.0,
      ...         [logits],
      ...         lambda logits: distrax.Bernoulli(logits=logits),
      ...         jax.random.key(0),
      ...         5,
      ...         lambda weights, z: jnp.tanh(z) @ weights,
      ...         weights,
      ...     )
      >>> [grad.shape for grad in jax.jit(jax.grad(loss, (0, 1)))(jnp.zeros(3), jnp.ones(3))]
      [(3,), (3,)]

    Reference:
      Grathwohl et al., Backpropagation through the void: optimizing control variates for black-box
      gradient estimation, 2018.
    """
    name = "relax_surrogate"
    estimator = _relax(name, function, params, dist_builder, rng, num_samples, control_variate)
    return estimator.surrogate(control_params)


def _relax(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate: ControlVariate,
) -> Estimator:
    def control(kind: Kind, control_params: Any, z: jax.Array) -> Any:
        return control_variate(control_params, z)

    return relaxed_control(
        name, function, params, dist_builder, rng, num_samples, control, decoded=True
    )
