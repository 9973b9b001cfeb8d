"""Estimates with control variates; `grad_estimators.control_variates` has these and the equations.

The parts of an estimate, for a control variate h, are the Jacobians of f, those of h, and the
gradient of the expectation of h. The coefficients of h are 1, or estimated from other samples.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core.errors import shown
from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    build,
    check_call,
    check_count,
    dot,
    draws,
    values,
    widened,
    zero,
)
from grad_estimators.control_variates import ControlVariate, ControlVariateFromFunction

GradEstimator: TypeAlias = Callable[[Function, Any, DistBuilder, jax.Array, int], Any]
"""``grad_estimator(function, params, dist_builder, rng, num_samples)``: per-sample Jacobians."""


def estimate_control_variate_coefficients(
    function: Function,
    control_variate_from_function: ControlVariateFromFunction,
    grad_estimator: GradEstimator,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate_state: Any = None,
    eps: float = 1e-3,
) -> list[jax.Array]:
    """Estimates the coefficient of a control variate that leaves the least variance.

    For each parameter, it is the sum of the covariances of the Jacobians of f and of h, over the
    sum of the variances of those of h.

    Args:
      function: As of `control_variates_jacobians`, and so are the other arguments.
      control_variate_from_function: Makes the control variate.
      grad_estimator: Makes Jacobians.
      params: The parameters.
      dist_builder: Makes the distribution.
      rng: A random key. For an unbiased estimate, it must not be the key of the Jacobians.
      num_samples: How many samples; at least 2.
      control_variate_state: The state of the control variate.
      eps: Added to the variance.

    Returns:
      A scalar for each of `params`.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is less than 2, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import grad_estimators as ge
      >>> @jax.jit
      ... def estimate(params, key):
      ...     return ge.estimate_control_variate_coefficients(
      ...         lambda x: jnp.sum(x**2),
      ...         ge.control_delta_method,
      ...         ge.score_function_jacobians,
      ...         params,
      ...         ge.multi_normal,
      ...         key,
      ...         20,
      ...     )
      >>> coefficients = estimate([jnp.ones(2), jnp.zeros(2)], jax.random.key(0))
      >>> [float(coefficient.round(2)) for coefficient in coefficients]
      [1.0, 1.0]

    Reference:
      Glasserman, Monte Carlo methods in financial engineering, 2003, section 4.1.
    """
    name = "estimate_control_variate_coefficients"
    check_call(name, function, params, dist_builder, rng, num_samples, at_least=2)
    control_variate = _control_variate(name, control_variate_from_function, function)
    parts = _parts(
        function,
        control_variate,
        grad_estimator,
        params,
        dist_builder,
        rng,
        num_samples,
        control_variate_state,
    )

    def coefficient(f: Any, h: Any) -> jax.Array:
        def centred(tree: Any) -> list[jax.Array]:
            return [widened(x) - jnp.mean(widened(x), 0) for x in jax.tree.leaves(tree)]

        covariance = dot(centred(f), centred(h)) / num_samples
        variance = dot(centred(h), centred(h)) / num_samples
        return covariance / (variance + eps)

    return [coefficient(*pair) for pair in zip(parts.function, parts.control_variate, strict=True)]


def control_variates_jacobians(
    function: Function,
    control_variate_from_function: ControlVariateFromFunction,
    grad_estimator: GradEstimator,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate_state: Any = None,
    estimate_cv_coeffs: bool = False,
    estimate_cv_coeffs_num_samples: int = 20,
) -> tuple[list[Any], Any]:
    """Estimates of d E[f(x)] / d params with a control variate, one for each sample.

    Each is the Jacobian of f, less c times that of h, plus c times the gradient of E[h(x)].

    Args:
      function: f, from one sample to a scalar.
      control_variate_from_function: From f to a control variate: `control_delta_method`,
        `moving_avg_baseline`, or any function that returns three functions as these do.
      grad_estimator: What estimates the Jacobians, such as `score_function_jacobians`.
      params: The parameters, a list or tuple of arrays of floating point dtype.
      dist_builder: ``dist_builder(*params)`` gives the distribution.
      rng: A random key.
      num_samples: How many samples.
      control_variate_state: The state of the control variate, made from earlier samples only.
      estimate_cv_coeffs: Whether to estimate a coefficient c for each parameter; 1 if not.
      estimate_cv_coeffs_num_samples: How many further samples that takes. They are drawn apart, so
        that the estimate stays unbiased.

    Returns:
      A list with an array (num_samples, *param.shape) for each of `params`, and the state of the
      control variate for the next call.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If a number of samples is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import grad_estimators as ge
      >>> @jax.jit
      ... def estimate(params, key):
      ...     return ge.control_variates_jacobians(
      ...         lambda x: jnp.sum(x**2),
      ...         ge.control_delta_method,
      ...         ge.score_function_jacobians,
      ...         params,
      ...         ge.multi_normal,
      ...         key,
      ...         5,
      ...     )
      >>> jacobians, state = estimate([jnp.ones(2), jnp.zeros(2)], jax.random.key(0))
      >>> jacobians[0].mean(0).round(3)
      Array([2., 2.], dtype=float32)

    Reference:
      Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020, section 7.4.
    """
    name = "control_variates_jacobians"
    check_call(name, function, params, dist_builder, rng, num_samples)
    coefficients: list[Any] = [1.0] * len(params)
    if estimate_cv_coeffs:
        count = estimate_cv_coeffs_num_samples
        check_count(name, "estimate_cv_coeffs_num_samples", count, 2)
        rng, other = jax.random.split(rng)
        coefficients = estimate_control_variate_coefficients(
            function,
            control_variate_from_function,
            grad_estimator,
            params,
            dist_builder,
            other,
            count,
            control_variate_state,
        )
    control_variate = _control_variate(name, control_variate_from_function, function)
    parts = _parts(
        function,
        control_variate,
        grad_estimator,
        params,
        dist_builder,
        rng,
        num_samples,
        control_variate_state,
    )
    jacobians = [
        jax.tree.map(lambda f, h, mean, c=c: (f - c * (h - mean)).astype(f.dtype), *of_param)
        for c, *of_param in zip(
            coefficients, parts.function, parts.control_variate, parts.expected, strict=True
        )
    ]
    return jacobians, control_variate.update_state(params, parts.samples, control_variate_state)


def control_variates_surrogate(
    function: Function,
    control_variate_from_function: ControlVariateFromFunction,
    grad_estimator: GradEstimator,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    control_variate_state: Any = None,
    estimate_cv_coeffs: bool = False,
    estimate_cv_coeffs_num_samples: int = 20,
) -> tuple[jax.Array, Any]:
    """A scalar to differentiate: the mean of f, whose gradient is estimated with a control variate.

    Args:
      function: As of `control_variates_jacobians`, and so are the other arguments. What it closes
        over gets its gradient, too.
      control_variate_from_function: Makes the control variate.
      grad_estimator: Makes Jacobians.
      params: The parameters.
      dist_builder: Makes the distribution.
      rng: A random key.
      num_samples: How many samples.
      control_variate_state: The state of the control variate.
      estimate_cv_coeffs: Whether to estimate coefficients.
      estimate_cv_coeffs_num_samples: How many further samples that takes.

    Returns:
      The mean of f, and the state of the control variate for the next call: for
      ``jax.grad(..., has_aux=True)``. The gradient with respect to `params` is the mean of the
      Jacobians that `control_variates_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If a number of samples is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> import grad_estimators as ge
      >>> def loss(params, state):
      ...     return ge.control_variates_surrogate(
      ...         jnp.sum,
      ...         ge.moving_avg_baseline,
      ...         ge.score_function_jacobians,
      ...         params,
      ...         ge.multi_normal,
      ...         jax.random.key(0),
      ...         100,
      ...         state,
      ...     )
      >>> params = [jnp.ones(2), jnp.zeros(2)]
      >>> gradients, state = jax.grad(loss, has_aux=True)(params, None)
      >>> gradients[0].shape, int(state[1])
      ((2,), 1)

    Reference:
      Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020, section 7.4.
    """
    name = "control_variates_surrogate"
    check_call(name, function, params, dist_builder, rng, num_samples)
    constant = jax.lax.stop_gradient(params)
    jacobians, state = control_variates_jacobians(
        function,
        control_variate_from_function,
        grad_estimator,
        constant,
        dist_builder,
        rng,
        num_samples,
        control_variate_state,
        estimate_cv_coeffs,
        estimate_cv_coeffs_num_samples,
    )
    if estimate_cv_coeffs:
        rng, _ = jax.random.split(rng)
    samples = draws(build(dist_builder, constant), rng, num_samples)
    gradients = jax.tree.map(lambda jacobian: jnp.mean(jacobian, 0), jacobians)
    mean = jnp.mean(values(name, function, samples))
    return mean + dot(gradients, zero(list(params))), state


class _Parts(NamedTuple):
    """What an estimate with a control variate is put together from, for each parameter.

    Attributes:
      function: The Jacobians of f.
      control_variate: The Jacobians of h, its own dependence on the parameters included.
      expected: The gradients of the expectation of h.
      samples: The samples.
    """

    function: list[Any]
    control_variate: list[Any]
    expected: list[Any]
    samples: Any


def _parts(
    function: Function,
    control_variate: ControlVariate,
    grad_estimator: GradEstimator,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    state: Any,
) -> _Parts:
    params = jax.tree.map(jnp.asarray, params)
    h, expected_value, _ = control_variate

    def jacobians(function: Function) -> list[Any]:
        return list(grad_estimator(function, params, dist_builder, rng, num_samples))

    samples = draws(build(dist_builder, params), rng, num_samples)
    through_samples = jacobians(lambda sample: h(params, sample, state))
    # The parameters are few and the samples many: forward mode differentiates what h computes from
    # the parameters alone once, not for every sample.
    by_itself = jax.jacfwd(lambda p: jax.vmap(lambda sample: h(p, sample, state))(samples))(params)
    return _Parts(
        jacobians(function),
        jax.tree.map(jnp.add, through_samples, list(by_itself)),
        list(jax.grad(expected_value)(params, state)),
        samples,
    )


def _control_variate(
    name: str, from_function: ControlVariateFromFunction, function: Function
) -> ControlVariate:
    """The control variate, checked to be three functions."""
    if callable(from_function):
        made = from_function(function)
        if isinstance(made, tuple | list) and len(made) == 3 and all(map(callable, made)):
            return ControlVariate(*made)
    raise TypeError(
        f"{name}: control_variate_from_function must return three functions, as "
        f"moving_avg_baseline does; got {shown(from_function)}."
    )
