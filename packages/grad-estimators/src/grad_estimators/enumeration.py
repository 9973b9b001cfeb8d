r"""Exact gradients, where the outcomes are few enough to visit them all.

.. math::

    \nabla_\theta \sum_x p_\theta(x) \, f(x) = \sum_x f(x) \, \nabla_\theta \, p_\theta(x)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_estimators._logits import kind_of, logits_of
from grad_estimators._sampling import (
    DistBuilder,
    Distribution,
    Function,
    Params,
    build,
    check_call,
    log_density,
    values,
)

_LIMIT = 2**20


def enumeration_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array | None = None,
    num_samples: int = 1,
    *,
    support: Any = None,
) -> Any:
    """The exact gradient of E[f], in the form of an estimate that has no variance.

    Args:
      function: As of `score_function_jacobians`; called for every outcome at once.
      params: As of `score_function_jacobians`.
      dist_builder: As of `score_function_jacobians`.
      rng: Of no effect: here, so that this can stand wherever an estimator does.
      num_samples: How often to repeat the gradient, as if for so many samples.
      support: All outcomes, along a new first axis. With None, those of the distribution, which
        must then be Bernoulli or categorical, with batch axes or without. Those
        of probability 0 may be left out.

    Returns:
      For each of `params` an array of shape (num_samples, *param.shape).

    Raises:
      TypeError: As of `score_function_jacobians`, or if there is no `support` where it is needed.
      ValueError: As of `score_function_jacobians`, or if there are more than 2**20 outcomes.

    Example:
      >>> import distrax, jax.numpy as jnp
      >>> from grad_estimators import enumeration_jacobians
      >>> coin = lambda logit: distrax.Bernoulli(logits=logit)
      >>> enumeration_jacobians(lambda x: 4.0 * x, [jnp.zeros(())], coin)
      [Array([1.], dtype=float32)]

    Reference:
      Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020, section 2.
    """
    name = "enumeration_jacobians"
    expectation = _expectation(name, function, params, dist_builder, rng, num_samples, support)
    params = type(params)(jax.tree.map(jnp.asarray, p) for p in params)
    gradient = jax.grad(expectation)(params)
    return jax.tree.map(lambda g: jnp.broadcast_to(g, (num_samples, *g.shape)), gradient)


def enumeration_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array | None = None,
    num_samples: int = 1,
    *,
    support: Any = None,
) -> jax.Array:
    """The expectation E[f] itself, whose derivatives of every order are exact.

    Args:
      function: As of `enumeration_jacobians`.
      params: As of `enumeration_jacobians`.
      dist_builder: As of `enumeration_jacobians`.
      rng: Of no effect.
      num_samples: Of no effect.
      support: As of `enumeration_jacobians`.

    Returns:
      A scalar.

    Raises:
      TypeError: As of `enumeration_jacobians`.
      ValueError: As of `enumeration_jacobians`.

    Example:
      >>> import distrax, jax.numpy as jnp
      >>> from grad_estimators import enumeration_surrogate
      >>> dice = lambda logits: distrax.Categorical(logits=logits)
      >>> enumeration_surrogate(lambda x: 1.0 + x, [jnp.zeros(6)], dice).round(4)
      Array(3.5, dtype=float32)
    """
    name = "enumeration_surrogate"
    expectation = _expectation(name, function, params, dist_builder, rng, num_samples, support)
    return expectation(params)


def _expectation(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array | None,
    num_samples: int,
    support: Any,
) -> Callable[[Params], jax.Array]:
    rng = jax.random.key(0) if rng is None else rng
    check_call(name, function, params, dist_builder, rng, num_samples)

    def expectation(params: Params) -> jax.Array:
        dist = build(dist_builder, params)
        outcomes = _outcomes(name, dist) if support is None else support
        p = jnp.exp(jax.vmap(lambda x: log_density(dist, x))(outcomes))
        # What cannot happen costs nothing, were it infinite.
        return jnp.sum(p * jnp.where(p > 0, values(name, function, outcomes), 0))

    return expectation


def _outcomes(name: str, dist: Distribution) -> jax.Array:
    """All outcomes of a distribution, along a new first axis."""
    kind = kind_of(dist)
    if kind is None:
        raise TypeError(
            f"{name}: only the outcomes of Bernoulli and categorical distributions are known; got "
            f"{type(dist).__name__}. Pass them all as support=, or sample: "
            "score_function_jacobians, rloo_jacobians."
        )
    shape = logits_of(dist).shape
    ways, coordinates = kind.choices(shape)
    if ways**coordinates > _LIMIT:
        raise ValueError(
            f"{name}: logits of shape {shape} have {ways}**{coordinates} outcomes, more than "
            f"{_LIMIT:,}. Sample them, as with rloo_jacobians."
        )
    rows = np.arange(ways**coordinates)[:, None] // ways ** np.arange(coordinates) % ways
    return kind.decoded(kind.coded(jnp.asarray(rows), shape))
