r"""Control variates: functions of known expectation, subtracted so that less is left to chance.

.. math::

    \nabla E[f(x)] = \nabla E[f(x) - c \, h_\theta(x)] + c \, \nabla E[h_\theta(x)]

The first term is estimated, the second known. Where h depends on the parameters by itself, that
dependence is part of the first term:

.. math::

    \nabla E[h_\theta(x)] = \left.\nabla E[h_\vartheta(x)]\right|_{\vartheta = \theta}
        + E[\nabla_\theta h_\theta(x)]

A control variate is a function of f that returns three functions: ``h(params, sample, state)``, its
expectation ``expected_value(params, state)``, and ``update_state(params, samples, state)``. The
state that samples meet was made before them: a baseline that has seen the sample it is subtracted
from would bias the estimate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import Numeric
from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    build,
    scalar,
    values,
    widened,
)
from grad_estimators.normal import multi_normal


class ControlVariate(NamedTuple):
    """The three functions that a control variate is.

    Attributes:
      control_variate: ``h(params, sample, state)``, a scalar.
      expected_value: ``expected_value(params, state)``, the expectation of h.
      update_state: ``update_state(params, samples, state)``, the state for the next call.
    """

    control_variate: Callable[[Any, Any, Any], jax.Array]
    expected_value: Callable[[Any, Any], jax.Array]
    update_state: Callable[[Any, Any, Any], Any]


ControlVariateFromFunction: TypeAlias = Callable[
    [Function],
    tuple[
        Callable[[Any, Any, Any], Any],
        Callable[[Any, Any], Any],
        Callable[[Any, Any, Any], Any],
    ],
]


def control_delta_method(
    function: Function, dist_builder: DistBuilder = multi_normal
) -> ControlVariate:
    """The second-order Taylor polynomial of f around the mean, as a control variate.

    With mean m and deviations s, h(x) = f(m) + g.z + z.H.z / 2 for z = x - m, the gradient g and
    the Hessian H of f at m; its expectation is f(m) + sum(s**2 * diag(H)) / 2.

    Args:
      function: f, from one sample to a scalar, differentiable three times.
      dist_builder: What `params` are the parameters of: `multi_normal`, or what gives a distrax
        distribution with independent coordinates. Set it as in ``functools.partial(
        control_delta_method, dist_builder=distrax.Normal)``.

    Returns:
      A control variate without state, for `control_variates_jacobians`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_estimators import control_delta_method
      >>> delta = control_delta_method(lambda x: jnp.sum(x**2))
      >>> params = [jnp.array([1.0, 2.0]), jnp.zeros(2)]
      >>> delta.control_variate(params, jnp.array([3.0, 0.0]), None)
      Array(9., dtype=float32)
      >>> delta.expected_value(params, None)
      Array(7., dtype=float32)

    Reference:
      Paisley, Blei and Jordan, Variational Bayesian inference with stochastic search, 2012.
    """
    f = scalar("control_delta_method", function)

    def taylor(mean: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(f)(mean)
        hessian = jax.hessian(f)(mean).reshape(mean.size, mean.size)
        return value, gradient.reshape(-1), hessian

    def control_variate(params: Params, sample: jax.Array, state: Any = None) -> jax.Array:
        mean, _ = _moments(build(dist_builder, params))
        z = jnp.reshape(sample - mean, -1)
        value, gradient, hessian = taylor(mean)
        return value + gradient @ z + z @ hessian @ z / 2

    def expected_value(params: Params, state: Any = None) -> jax.Array:
        mean, deviation = _moments(build(dist_builder, params))
        value, _, hessian = taylor(mean)
        return value + jnp.reshape(deviation, -1) ** 2 @ jnp.diag(hessian) / 2

    def update_state(params: Params, samples: jax.Array, state: Any = None) -> Any:
        return state

    return ControlVariate(control_variate, expected_value, update_state)


def moving_avg_baseline(
    function: Function,
    decay: Numeric = 0.99,
    zero_debias: bool = True,
    use_decay_early_training_heuristic: bool = True,
) -> ControlVariate:
    """The moving average of f over earlier calls, as a control variate: a constant baseline.

    After call i, with mean m of f over its samples, b = b + (1 - d) / w * (m - b), where w =
    1 - (product of all d so far) with `zero_debias`, or else 1.

    Args:
      function: f, from one sample to a scalar. It need not be differentiable.
      decay: The weight d of the past, in [0, 1].
      zero_debias: Whether b is a mean of what was seen, not of that and of the 0 it started from.
      use_decay_early_training_heuristic: Whether d is min(decay, (1 + i) / (10 + i)), so that
        early values, of what is not yet trained, are forgotten sooner.

    Returns:
      A control variate for `control_variates_jacobians`. Its state is ``(baseline, calls)``, at
      first (0, 0), or None.

    Raises:
      ValueError: If `decay` is not in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_estimators import moving_avg_baseline
      >>> average = moving_avg_baseline(jnp.sum)
      >>> state = average.update_state(None, jnp.array([[1.0, 2.0], [3.0, 4.0]]), None)
      >>> average.control_variate(None, jnp.zeros(2), state)
      Array(5., dtype=float32)

    Reference:
      Williams, Simple statistical gradient-following algorithms for connectionist reinforcement
      learning, 1992.
    """
    if isinstance(decay, int | float) and not 0 <= decay <= 1:
        raise ValueError(f"moving_avg_baseline: decay must be in [0, 1]; got {decay!r}.")

    def control_variate(params: Params, sample: Any, state: Any) -> jax.Array:
        return _average(state)[0]

    def expected_value(params: Params, state: Any) -> jax.Array:
        return _average(state)[0]

    def update_state(params: Params, samples: Any, state: Any) -> Any:
        average, count = _average(state)
        mean = jax.lax.stop_gradient(jnp.mean(values("moving_avg_baseline", function, samples)))
        i = count.astype(average.dtype)
        current, past = jnp.asarray(decay, i.dtype), jnp.asarray(decay, i.dtype) ** i
        if use_decay_early_training_heuristic:
            current = jnp.minimum(current, (1 + i) / (10 + i))
            past = _product_of_decays(i, decay)
        share = (1 - current) / (1 - current * past if zero_debias else 1)
        share = jnp.where(current < 1, share, 0)
        return average + share * (mean - average), count + 1

    return ControlVariate(control_variate, expected_value, update_state)


def _moments(dist: Any) -> tuple[jax.Array, jax.Array]:
    """The mean and the standard deviations of a distribution, of the shape of a sample."""
    mean, deviation = jnp.broadcast_arrays(dist.mean(), dist.stddev())
    return mean, deviation


def _average(state: Any) -> tuple[jax.Array, jax.Array]:
    """The baseline, and how many calls it has seen."""
    average, count = (0.0, 0) if state is None else state
    return widened(average), jnp.asarray(count)


def _product_of_decays(count: jax.Array, decay: Numeric) -> jax.Array:
    """The product of min(decay, (1 + i) / (10 + i)) over i < count.

    The second is the smaller one while i < (10 decay - 1) / (1 - decay). The product of n of them
    is that of k / (n + k) over k = 1, ..., 9.
    """
    decay = jnp.asarray(decay, count.dtype)
    rising = jnp.clip(jnp.ceil((10 * decay - 1) / (1 - decay)), 0, count)
    k = jnp.arange(1, 10)
    return jnp.prod(k / (rising + k)) * decay ** (count - rising)
