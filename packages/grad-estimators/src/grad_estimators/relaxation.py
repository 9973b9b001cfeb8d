r"""Discrete samples made differentiable: Gumbel-softmax and straight-through. Both are biased.

A categorical sample is the place of the largest of its logits plus Gumbel noise, a Bernoulli sample
the sign of its logit plus logistic noise. With a temperature :math:`\tau` they relax to

.. math::

    x_\tau = \mathrm{softmax}((\theta + \gamma) / \tau), \qquad
    x_\tau = \sigma((\theta + \gamma) / \tau)

which f must accept. Straight-through estimates evaluate f at the discrete sample b itself, and
pretend that its derivative were that of something smooth: of :math:`x_\tau`, or of the mean
:math:`p` of b.
"""

from typing import Any

import jax
from jax.typing import ArrayLike

from grad_estimators._logits import check_temperature, coded_by, logits_of
from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    build,
    check_call,
    jacobians,
    scalar,
    surrogate,
    zero,
)


def gumbel_softmax_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike = 0.5,
    straight_through: bool = False,
) -> Any:
    """Gradients of f at relaxed samples, one for each; see the module for the equation.

    The expectation of f at relaxed samples is another than that of f, by a bias that falls with the
    temperature, while the variance grows. `rebar_jacobians` is unbiased.

    Args:
      function: f, from relaxed samples to a scalar: floats between 0 and 1 of the shape of the
        logits, so for a categorical distribution vectors that sum to 1, not classes.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli or categorical distribution,
        independent in its axes, with ``logits``.
      rng: A random key.
      num_samples: How many samples.
      temperature: The temperature, > 0.
      straight_through: Whether f is evaluated at the discrete samples (as floats, one-hot for a
        categorical distribution), with the gradients of the relaxed ones.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli or
        categorical.
      ValueError: If `num_samples` or `temperature` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import gumbel_softmax_jacobians
      >>> def choice(logits):
      ...     return distrax.Categorical(logits=logits)
      >>> def cost(one_hot):
      ...     return one_hot @ jnp.array([1.0, 2.0, 4.0])
      >>> def estimate(logits, key):
      ...     return gumbel_softmax_jacobians(cost, [logits], choice, key, 5)[0]
      >>> jax.jit(estimate)(jnp.zeros(3), jax.random.key(0)).shape
      (5, 3)

    Reference:
      Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax, 2017; Maddison, Mnih
      and Teh, The concrete distribution, 2017.
    """
    name = "gumbel_softmax_jacobians"
    return jacobians(
        *_gumbel_softmax(
            name, function, params, dist_builder, rng, num_samples, temperature, straight_through
        )
    )


def gumbel_softmax_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike = 0.5,
    straight_through: bool = False,
) -> jax.Array:
    """The mean of f at relaxed samples, to differentiate.

    Args:
      function: As of `gumbel_softmax_jacobians`, and so are the other arguments. What it closes
        over gets its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      temperature: The temperature, > 0.
      straight_through: Whether f is evaluated at the discrete samples.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `gumbel_softmax_jacobians` gives for the same key.

    Raises:
      TypeError: As of `gumbel_softmax_jacobians`.
      ValueError: As of `gumbel_softmax_jacobians`.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import gumbel_softmax_surrogate
      >>> def loss(logits):
      ...     coins = lambda logits: distrax.Bernoulli(logits=logits)
      ...     return gumbel_softmax_surrogate(jnp.sum, [logits], coins, jax.random.key(0), 9)
      >>> jax.jit(jax.grad(loss))(jnp.zeros(3)).shape
      (3,)

    Reference:
      Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax, 2017.
    """
    name = "gumbel_softmax_surrogate"
    return surrogate(
        *_gumbel_softmax(
            name, function, params, dist_builder, rng, num_samples, temperature, straight_through
        )
    )


def straight_through_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    r"""Gradients of f at discrete samples b, as if the derivative of b were that of its mean.

    .. math:: g = \nabla f(b) \cdot \nabla_\theta \, p

    It is right for linear f only: for a Bernoulli and f(b) = (b - t)**2 it is off by
    (2 p - 1) p (1 - p).

    Args:
      function: f, differentiable, from samples as floats of the shape of the logits to a scalar:
        0 or 1, for a categorical distribution one-hot.
      params: As of `score_function_jacobians`.
      dist_builder: ``dist_builder(*params)`` gives a Bernoulli or categorical distribution,
        independent in its axes, with ``logits``.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution no Bernoulli or
        categorical.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import straight_through_jacobians
      >>> def coin(logit):
      ...     return distrax.Bernoulli(logits=logit)
      >>> key = jax.random.key(0)
      >>> straight_through_jacobians(lambda x: 4 * x, [jnp.zeros(())], coin, key, 2)
      [Array([1., 1.], dtype=float32)]

    Reference:
      Bengio, Leonard and Courville, Estimating or propagating gradients through stochastic neurons
      for conditional computation, 2013.
    """
    name = "straight_through_jacobians"
    return jacobians(*_straight_through(name, function, params, dist_builder, rng, num_samples))


def straight_through_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the straight-through gradient.

    Args:
      function: As of `straight_through_jacobians`, and so are the other arguments. What it closes
        over gets its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `straight_through_jacobians` gives for the same key.

    Raises:
      TypeError: As of `straight_through_jacobians`.
      ValueError: As of `straight_through_jacobians`.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import straight_through_surrogate
      >>> def loss(logits):
      ...     coins = lambda logits: distrax.Bernoulli(logits=logits)
      ...     return straight_through_surrogate(jnp.sum, [logits], coins, jax.random.key(0), 9)
      >>> jax.jit(jax.grad(loss))(jnp.zeros(3))
      Array([0.25, 0.25, 0.25], dtype=float32)

    Reference:
      Bengio, Leonard and Courville, Estimating or propagating gradients through stochastic neurons
      for conditional computation, 2013.
    """
    name = "straight_through_surrogate"
    return surrogate(*_straight_through(name, function, params, dist_builder, rng, num_samples))


def _gumbel_softmax(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    temperature: ArrayLike,
    straight_through: bool,
) -> tuple[Term, Params, jax.Array]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    check_temperature(name, temperature)
    kind, logits = coded_by(name, params, dist_builder)
    f = scalar(name, function)

    def term(params: Params, noise: jax.Array) -> jax.Array:
        z = logits_of(build(dist_builder, params)) + noise
        relaxed = kind.mean(z / temperature)
        return f(kind.threshold(z) + zero(relaxed) if straight_through else relaxed)

    return term, params, kind.noise(rng, num_samples, logits)


def _straight_through(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> tuple[Term, Params, jax.Array]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    kind, logits = coded_by(name, params, dist_builder)
    f = scalar(name, function)

    def term(params: Params, code: jax.Array) -> jax.Array:
        return f(code + zero(kind.mean(logits_of(build(dist_builder, params)))))

    return term, params, kind.threshold(logits + kind.noise(rng, num_samples, logits))
