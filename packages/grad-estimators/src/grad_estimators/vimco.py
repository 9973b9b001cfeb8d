r"""VIMCO: gradients of the multi-sample bound of importance-weighted autoencoders.

With K samples :math:`x_k` of q and their importance weights :math:`w_k = p(x_k) / q(x_k)`, the
bound on :math:`\log \sum_x p(x)` is the expectation of

.. math::

    L = \log \frac1K \sum_k w_k

Only what a sample adds to the bound of the others is blamed on it. The others' bound,
:math:`L_{-k}`, has the geometric mean of the other weights in place of :math:`w_k`:

.. math::

    g = \sum_k (L - L_{-k}) \, \nabla \log q(x_k) + \nabla L
"""

import math
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
    check_count,
    check_independent,
    dot,
    draws,
    jacobians,
    log_density,
    scalar,
    surrogate,
    zero,
)


def vimco_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    num_particles: int = 8,
) -> Any:
    """Estimates of the gradient of the K-sample bound, one for each group of K samples.

    See the module for the equation. The samples may be discrete, and log p need not be
    differentiable in them.

    Args:
      function: log p(x), from one sample to a scalar, such as a model's joint log probability of
        a latent x and what was observed. It need not be normalized.
      params: The parameters of q, a list or tuple of arrays of floating point dtype.
      dist_builder: As of `score_function_jacobians`; gives q.
      rng: A random key.
      num_samples: How many groups.
      num_particles: K, how many samples are in each group; at least 2.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape): what
      to ascend, to make the bound tight.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` or `num_particles` is too small, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import vimco_jacobians
      >>> def q(logits):
      ...     return distrax.Categorical(logits=logits)
      >>> def log_p(x):
      ...     return jnp.log(jnp.array([0.1, 0.2, 0.7]))[x]
      >>> def estimate(logits, key):
      ...     return vimco_jacobians(log_p, [logits], q, key, 5)[0]
      >>> jax.jit(estimate)(jnp.zeros(3), jax.random.key(0)).shape
      (5, 3)

    Reference:
      Mnih and Rezende, Variational inference for Monte Carlo objectives, 2016; Burda, Grosse and
      Salakhutdinov, Importance weighted autoencoders, 2016.
    """
    name = "vimco_jacobians"
    return jacobians(*_vimco(name, function, params, dist_builder, rng, num_samples, num_particles))


def vimco_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    num_particles: int = 8,
) -> jax.Array:
    """A scalar to differentiate: the mean of the K-sample bounds, with VIMCO's gradient.

    Args:
      function: As of `vimco_jacobians`, and so are the other arguments. What it closes over, such
        as the parameters of the model, gets its gradient, too.
      params: The parameters of q.
      dist_builder: Makes q from them.
      rng: A random key.
      num_samples: How many groups.
      num_particles: K, how many samples are in each group.

    Returns:
      The mean of the bounds. Its gradient with respect to `params` is the mean of the Jacobians
      that `vimco_jacobians` gives for the same key.

    Raises:
      TypeError: As of `vimco_jacobians`.
      ValueError: As of `vimco_jacobians`.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import vimco_surrogate
      >>> def negative_bound(logits):
      ...     q = lambda logits: distrax.Categorical(logits=logits)
      ...     log_p = lambda x: jnp.log(jnp.array([0.1, 0.2, 0.7]))[x]
      ...     return -vimco_surrogate(log_p, [logits], q, jax.random.key(0), 5)
      >>> jax.jit(jax.grad(negative_bound))(jnp.zeros(3)).shape
      (3,)

    Reference:
      Mnih and Rezende, Variational inference for Monte Carlo objectives, 2016.
    """
    name = "vimco_surrogate"
    return surrogate(*_vimco(name, function, params, dist_builder, rng, num_samples, num_particles))


def _vimco(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    num_particles: int,
) -> tuple[Term, Params, Any]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    check_count(name, "num_particles", num_particles, at_least=2)
    log_p = scalar(name, function)

    def term(params: Params, particles: Any) -> jax.Array:
        q = build(dist_builder, params)
        log_q = jax.vmap(lambda x: log_density(q, x))(particles)
        log_weights = jax.vmap(log_p)(particles) - log_q
        bound = log_mean_exp(log_weights)
        return bound + dot(bound - bounds_of_others(log_weights), zero(log_q))

    dist = build(dist_builder, params)
    check_independent(name, dist)
    samples = draws(dist, rng, num_samples * num_particles)
    groups = jax.tree.map(lambda x: x.reshape(num_samples, num_particles, *x.shape[1:]), samples)
    return term, params, groups


def log_mean_exp(log_weights: jax.Array) -> jax.Array:
    """The logarithm of the mean of the weights along the last axis."""
    return jax.nn.logsumexp(log_weights, axis=-1) - math.log(log_weights.shape[-1])


def bounds_of_others(log_weights: jax.Array) -> jax.Array:
    """For each weight, the bound with the geometric mean of the others in its place."""
    count = len(log_weights)
    is_own = jnp.eye(count, dtype=bool)
    others = jnp.where(is_own, 0, log_weights)
    geometric = jnp.sum(others, axis=-1, keepdims=True) / (count - 1)
    return log_mean_exp(jnp.where(is_own, geometric, log_weights))
