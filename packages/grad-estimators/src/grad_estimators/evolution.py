r"""Evolution strategies: gradients of a function that is only evaluated, by mirrored perturbations.

.. math::

    \nabla E[f(\theta + \sigma \epsilon)]
        = E\left[\frac{f(\theta + \sigma \epsilon) - f(\theta - \sigma \epsilon)}{2 \sigma}
          \, \epsilon\right], \qquad \epsilon \sim N(0, 1)

The function may be anything that returns a number: a simulation, an accuracy. Its parameters may be
a whole network's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core.errors import shown
from grad_estimators._sampling import (
    check_count,
    check_floating,
    check_key,
    dot,
    scalar,
    widened,
    zero,
)

Fitness = Callable[[jax.Array], jax.Array]


def evolution_strategies_jacobians(
    function: Callable[[Any], Any],
    params: Any,
    rng: jax.Array,
    num_samples: int,
    sigma: ArrayLike = 0.1,
    fitness: Fitness | None = None,
) -> Any:
    """Evolution strategies' estimates of d E[f(params + sigma * noise)] / d params, one for a pair.

    Each is (f(params + sigma * e) - f(params - sigma * e)) / (2 * sigma) * e, with normal e.

    Args:
      function: f, from parameters to a scalar. It need not be differentiable.
      params: Any tree of arrays of floating point dtype.
      rng: A random key.
      num_samples: How many pairs; f is evaluated twice for each.
      sigma: The scale of the noise, > 0.
      fitness: What to put in the place of the values of f, from all 2 * num_samples of them to as
        many: `centered_ranks`, or none with None.

    Returns:
      A tree like `params`, of arrays of shape (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` or `sigma` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import evolution_strategies_jacobians
      >>> jacobians = evolution_strategies_jacobians(
      ...     lambda params: jnp.sum(params["w"] ** 2),
      ...     {"w": jnp.array([1.0, 2.0])},
      ...     jax.random.key(0),
      ...     10_000,
      ... )
      >>> jacobians["w"].mean(0).round(0)
      Array([2., 4.], dtype=float32)

    Reference:
      Salimans et al., Evolution strategies as a scalable alternative to reinforcement learning,
      2017.
    """
    name = "evolution_strategies_jacobians"
    _check(name, function, params, rng, num_samples, sigma)
    keys = jax.random.split(rng, (1, num_samples))
    _, (weights,) = _evaluate(name, function, params, keys, sigma, fitness)
    return jax.vmap(lambda key, weight: _direction(params, key, weight))(keys[0], weights)


def evolution_strategies_surrogate(
    function: Callable[[Any], Any],
    params: Any,
    rng: jax.Array,
    num_samples: int,
    sigma: ArrayLike = 0.1,
    fitness: Fitness | None = None,
    *,
    batch_size: int | None = None,
) -> jax.Array:
    """A scalar to differentiate: the mean of f, with the estimate of evolution strategies.

    Args:
      function: As of `evolution_strategies_jacobians`, and so are the other arguments. What it
        closes over gets its gradient, too.
      params: Any tree of arrays of floating point dtype.
      rng: A random key.
      num_samples: How many pairs.
      sigma: The scale of the noise.
      fitness: What to put in the place of the values of f.
      batch_size: How many pairs to evaluate at once, a divisor of `num_samples`; all with None. The
        memory for perturbed parameters is that of a batch. The estimate does not depend on it.

    Returns:
      The mean of f over all pairs. Its gradient with respect to `params` is the mean of the
      Jacobians that `evolution_strategies_jacobians` gives for the same key.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` or `sigma` is not positive, `batch_size` does not divide
        `num_samples`, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import evolution_strategies_surrogate
      >>> def loss(w):
      ...     return evolution_strategies_surrogate(
      ...         lambda w: jnp.sum(w > 0), w, jax.random.key(0), 10_000, 1.0, batch_size=100
      ...     )
      >>> jax.grad(loss)(jnp.zeros(2)).round(1)  # the density of a normal at 0
      Array([0.4, 0.4], dtype=float32)

    Reference:
      Salimans et al., Evolution strategies as a scalable alternative to reinforcement learning,
      2017.
    """
    name = "evolution_strategies_surrogate"
    _check(name, function, params, rng, num_samples, sigma)
    size = num_samples if batch_size is None else batch_size
    check_count(name, "batch_size", size)
    if num_samples % size:
        raise ValueError(
            f"{name}: batch_size must divide num_samples; got {size} and {num_samples}."
        )
    keys = jax.random.split(rng, (num_samples // size, size))
    fixed = jax.lax.stop_gradient(params)
    mean, weights = _evaluate(name, function, fixed, keys, sigma, fitness)

    def add(total: Any, batch: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        directions = jax.vmap(lambda key, weight: _direction(wide, key, weight))(*batch)
        return jax.tree.map(lambda t, d: t + jnp.sum(d, 0) / num_samples, total, directions), None

    wide = jax.tree.map(widened, fixed)
    start = jax.tree.map(jnp.zeros_like, wide)
    gradient, _ = jax.lax.scan(add, start, (keys, jax.lax.stop_gradient(weights)))
    return mean + dot(gradient, zero(params))


def centered_ranks(values: jax.Array) -> jax.Array:
    """The ranks of values, from -1/2 for the least to 1/2 for the greatest.

    As a `fitness` they make evolution strategies invariant to every increasing transformation of f,
    outliers among them. The gradient is then no longer that of the mean of f.

    Args:
      values: Of shape (n,).

    Returns:
      The ranks, of shape (n,). Equal values share the mean of their ranks.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_estimators import centered_ranks
      >>> centered_ranks(jnp.array([3.0, 1.0, 100.0]))
      Array([ 0. , -0.5,  0.5], dtype=float32)

    Reference:
      Salimans et al., Evolution strategies as a scalable alternative to reinforcement learning,
      2017, section 2.1.
    """
    values = jnp.asarray(values)
    ordered = jnp.sort(values)
    first, after = (jnp.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    rank = (first + after - 1) / 2
    return (rank / max(1, values.size - 1) - 0.5).astype(jnp.result_type(values, float))


def _check(
    name: str,
    function: Callable[[Any], Any],
    params: Any,
    rng: jax.Array,
    num_samples: int,
    sigma: ArrayLike,
) -> None:
    if not callable(function):
        raise TypeError(f"{name}: function must be callable; got {shown(function)}.")
    check_floating(name, params)
    check_key(name, rng)
    check_count(name, "num_samples", num_samples)
    if isinstance(sigma, int | float) and not sigma > 0:
        raise ValueError(f"{name}: sigma must be > 0; got {sigma!r}.")


def _noise(params: Any, key: jax.Array) -> Any:
    """Normal noise for each number, of the shapes of the parameters, in at least float32."""
    leaves, structure = jax.tree.flatten(jax.tree.map(widened, params))
    keys = jax.random.split(key, max(1, len(leaves)))[: len(leaves)]
    samples = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, samples)


def _direction(params: Any, key: jax.Array, weight: jax.Array) -> Any:
    """The noise of a pair times its weight, in the dtypes of the parameters."""
    return jax.tree.map(
        lambda x, e: (weight * e).astype(jnp.result_type(x)), params, _noise(params, key)
    )


def _evaluate(
    name: str,
    function: Callable[[Any], Any],
    params: Any,
    keys: jax.Array,
    sigma: ArrayLike,
    fitness: Fitness | None,
) -> tuple[jax.Array, jax.Array]:
    """The mean of f, and the weight of the noise of each pair; of keys (batches, batch size)."""
    f = scalar(name, function)

    def pair(key: jax.Array) -> jax.Array:
        noise = _noise(params, key)
        up, down = (
            f(jax.tree.map(lambda x, e, sign=sign: widened(x) + sign * sigma * e, params, noise))
            for sign in (1, -1)
        )
        return jnp.stack([up, down])

    values = jax.lax.map(jax.vmap(pair), keys)
    chosen = values if fitness is None else fitness(values.reshape(-1)).reshape(values.shape)
    return jnp.mean(values), (chosen[..., 0] - chosen[..., 1]) / (2 * sigma)
