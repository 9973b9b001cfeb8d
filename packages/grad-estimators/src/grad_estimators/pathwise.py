r"""The pathwise estimator, also called the reparameterization trick.

.. math::

    \nabla_\theta E[f(x)] = E[\nabla_\theta f(x_\theta(\epsilon))]

A sample is a differentiable function of the parameters and of noise that does not depend on them.
So f must be differentiable. Distributions that have no such function in closed form, such as Gamma,
Beta and Dirichlet, differentiate their samples implicitly, through their distribution function.
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
    draw,
    jacobians,
    log_density,
    randomness,
    scalar,
    surrogate,
)


def pathwise_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> Any:
    """Pathwise estimates of d E[f(x)] / d params, one for each sample.

    Each is the derivative of f(x) through the sample x, at fixed noise.

    Args:
      function: f, from one sample to a scalar; continuous, and differentiable almost everywhere.
      params: The parameters, a list or tuple of arrays of floating point dtype.
      dist_builder: ``dist_builder(*params)`` gives the distribution: any object whose
        ``sample(seed=, sample_shape=)`` is differentiable, and that has a ``log_prob``.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind, or samples are not differentiable in one of
        `params`: they are discrete, or a mixture's.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, pathwise_jacobians
      >>> params = [jnp.ones(2), jnp.zeros(2)]
      >>> jacobians = pathwise_jacobians(jnp.sum, params, multi_normal, jax.random.key(0), 3)
      >>> jacobians[0]
      Array([[1., 1.],
             [1., 1.],
             [1., 1.]], dtype=float32)

    Reference:
      Kingma and Welling, Auto-encoding variational Bayes, 2014; Figurnov et al., Implicit
      reparameterization gradients, 2018.
    """
    name = "pathwise_jacobians"
    return jacobians(*_pathwise(name, function, params, dist_builder, rng, num_samples))


def pathwise_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the pathwise estimate as its gradient.

    Args:
      function: As of `pathwise_jacobians`, and so are the other arguments. What it closes over
        gets its gradient, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.

    Returns:
      The mean of f. Its gradient with respect to `params` is the mean of the Jacobians that
      `pathwise_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind, or samples are not differentiable in one of
        `params`: they are discrete, or a mixture's.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import multi_normal, pathwise_surrogate
      >>> def loss(loc):
      ...     params = [loc, jnp.zeros(2)]
      ...     return pathwise_surrogate(jnp.sum, params, multi_normal, jax.random.key(0), 100)
      >>> jax.grad(loss)(jnp.zeros(2)).round(3)
      Array([1., 1.], dtype=float32)

    Reference:
      Kingma and Welling, Auto-encoding variational Bayes, 2014.
    """
    name = "pathwise_surrogate"
    return surrogate(*_pathwise(name, function, params, dist_builder, rng, num_samples))


def _pathwise(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
) -> tuple[Term, Params, Any]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    f = scalar(name, function)
    noise = randomness(build(dist_builder, params), rng, num_samples)

    def sample(params: Params, noise: jax.Array) -> Any:
        return draw(build(dist_builder, params), noise)

    _check_reparameterized(name, sample, params, dist_builder, jax.tree.map(lambda x: x[0], noise))
    return (lambda params, noise: f(sample(params, noise))), params, noise


def _check_reparameterized(
    name: str,
    sample: Callable[[Params, Any], Any],
    params: Params,
    dist_builder: DistBuilder,
    noise: jax.Array,
) -> None:
    """Raises if a parameter moves the density, but not the samples, in all that JAX can see."""
    x = jax.lax.stop_gradient(sample(params, noise))

    def density(params: Params) -> jax.Array:
        return log_density(build(dist_builder, params), x)

    for i in range(len(params)):
        if not _depends(lambda p: sample(p, noise), params, i) and _depends(density, params, i):
            kind = type(dist_builder(*params)).__name__
            raise TypeError(
                f"{name}: samples of {kind} are not differentiable in params[{i}]. Use "
                f"{name.replace('pathwise', 'score_function')}, which needs only the density."
            )


def _depends(function: Callable[[Params], Any], params: Params, i: int) -> bool:
    """Whether the derivative of `function` in `params[i]` is more than a symbolic zero."""
    found = []

    @jax.custom_jvp
    def probe(x: Any) -> Any:
        return x

    def record(primals: Any, tangents: Any) -> Any:
        zeros = jax.tree.map(lambda t: isinstance(t, jax.custom_derivatives.SymbolicZero), tangents)
        found.append(not all(jax.tree.leaves(zeros)))
        return primals[0], tangents[0]

    probe.defjvp(record, symbolic_zeros=True)

    def of(param: Any) -> Any:
        return probe(function(type(params)([*params[:i], param, *params[i + 1 :]])))

    jax.eval_shape(lambda p: jax.jvp(of, (p,), (p,)), jax.tree.map(jnp.asarray, params[i]))
    return any(found)
