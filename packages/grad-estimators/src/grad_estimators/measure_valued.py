r"""The measure-valued estimator, also called the weak derivative.

.. math::

    \nabla_\theta E[f(x)] = c_\theta (E[f(x^+)] - E[f(x^-)])

As `grad_estimators.weak_derivatives` has it for each parameter of a family. It asks as little of f
as the score function does, with a variance that is often near the pathwise one, at the cost of two
evaluations of f for each coordinate of each parameter, the other coordinates being those of the
sample.
"""

from collections.abc import Callable
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
    draws,
    jacobians,
    pulled_back,
    scalar,
    surrogate,
)
from grad_estimators.weak_derivatives import WeakDerivative, family_of

_EVALUATIONS = 2**24  # numbers in samples that are evaluated at once: 64 MiB of float32


def measure_valued_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    coupling: bool = True,
) -> Any:
    """Measure-valued estimates of d E[f(x)] / d params, one for each sample.

    Each is the weight times f(x+) - f(x-), coordinate by coordinate, pulled back to `params`.

    Args:
      function: f, from one sample to a scalar. It need not be differentiable.
      params: The parameters, a list or tuple of arrays of floating point dtype.
      dist_builder: ``dist_builder(*params)`` gives `multi_normal`, or a distribution of distrax or
        TFP: Normal, MultivariateNormalDiag, Poisson, Gamma, Exponential, Weibull, Bernoulli,
        Categorical, an Independent of these, or a kind that `register_weak_derivatives` was told.
      rng: A random key.
      num_samples: How many samples.
      coupling: Whether x+ and x- share noise, which lowers the variance where f is smooth.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution of no known kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import measure_valued_jacobians, multi_normal
      >>> @jax.jit
      ... def estimate(params, key):
      ...     return measure_valued_jacobians(
      ...         lambda x: jnp.sum(x > 0), params, multi_normal, key, 5
      ...     )
      >>> jacobians = estimate([jnp.ones(2), jnp.zeros(2)], jax.random.key(0))
      >>> [jacobian.shape for jacobian in jacobians]
      [(5, 2), (5, 2)]

    Reference:
      Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020, section 6.
    """
    name = "measure_valued_jacobians"
    return jacobians(
        *_measure_valued(name, function, params, dist_builder, rng, num_samples, coupling)
    )


def measure_valued_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    coupling: bool = True,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the measure-valued estimate as its gradient.

    Args:
      function: As of `measure_valued_jacobians`, and so are the other arguments. What it closes
        over gets its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      coupling: Whether x+ and x- share noise.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `measure_valued_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind, or the distribution of no known kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import distrax, jax, jax.numpy as jnp
      >>> from grad_estimators import measure_valued_surrogate
      >>> def heads(logits):
      ...     return measure_valued_surrogate(
      ...         jnp.sum, [logits], distrax.Bernoulli, jax.random.key(0), 10
      ...     )
      >>> jax.grad(heads)(jnp.zeros(2)).round(3)
      Array([0.25, 0.25], dtype=float32)

    Reference:
      Mohamed et al., Monte Carlo gradient estimation in machine learning, 2020, section 6.
    """
    name = "measure_valued_surrogate"
    return surrogate(
        *_measure_valued(name, function, params, dist_builder, rng, num_samples, coupling)
    )


def _measure_valued(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    coupling: bool,
) -> tuple[Term, Params, Any, Any]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    f = scalar(name, function)
    dist = build(dist_builder, jax.lax.stop_gradient(params))
    family = family_of(name, dist)
    samples = draws(dist, rng, num_samples)
    shape = samples.shape[1:]
    chunk = max(1, _EVALUATIONS // max(1, samples.size))

    def gradient(sample: jax.Array, key: jax.Array) -> list[jax.Array]:
        derivatives = family(shape)
        keys = jax.random.split(key, len(derivatives))
        return [
            _differences(f, derivative, key, sample, coupling, chunk)
            for derivative, key in zip(derivatives, keys, strict=True)
        ]

    # This key is none of those that the samples are drawn with.
    keys = jax.random.split(jax.random.fold_in(rng, num_samples), num_samples)
    gradients = jax.vmap(gradient)(samples, keys)

    def parameters(dist: Any) -> list[jax.Array]:
        return [derivative.parameter for derivative in family_of(name, dist)(shape)]

    return pulled_back(f, dist_builder, parameters), params, samples, gradients


def _differences(
    f: Callable[[Any], jax.Array],
    derivative: WeakDerivative,
    key: jax.Array,
    sample: jax.Array,
    coupling: bool,
    chunk: int,
) -> jax.Array:
    """The weighted differences of f, one for each entry of the parameter."""
    weight, positive, negative = derivative.split(key, sample, coupling)
    places = jnp.arange(sample.size)
    place_of_entry = jnp.repeat(places, positive.size // sample.size)

    def value(place: jax.Array, replacement: jax.Array) -> jax.Array:
        here = places.reshape(sample.shape) == place
        return f(jnp.where(here, replacement, sample).astype(sample.dtype))

    def difference(inputs: tuple[jax.Array, ...]) -> jax.Array:
        place, up, *down = inputs
        return value(place, up) - value(place, *down) if down else value(place, up)

    replacements = [x.reshape(-1) for x in (positive, negative) if x is not None]
    inputs = (place_of_entry, *replacements)
    differences: jax.Array = jax.lax.map(difference, inputs, batch_size=chunk)
    return weight * differences.reshape(positive.shape)
