r"""Perturbed functions: smooth for any function, by the noise that is added to its input.

.. math::

    f_\sigma(x) &= E[f(x + \sigma z)] \\
    \nabla f_\sigma(x) &= -E[f(x + \sigma z) \, \nabla \log p(z)] / \sigma

Only values of f are asked for, so f may be piecewise constant: an argmax, a sort, a shortest path.
Derivatives of every order come from one factor, exp(log p - log p), with the second term held
constant: 1, whose derivatives are those of the density over the density.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from grad_core.errors import shown
from grad_estimators._sampling import check_count, check_key, widened, zero

__all__ = ["Gumbel", "Normal", "make_perturbed_fun"]


class Noise(Protocol):
    """What `make_perturbed_fun` asks of a distribution of noise."""

    def sample(self, key: Any, sample_shape: Any, dtype: Any, /) -> Any: ...

    def log_prob(self, inputs: Any, /) -> Any: ...


class Gumbel:
    """The standard Gumbel distribution, with log-density -z - exp(-z).

    With it, a perturbed argmax of x has the probabilities softmax(x / sigma).

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators.perturbations import Gumbel
      >>> Gumbel().sample(jax.random.key(0), (2, 3)).shape
      (2, 3)
      >>> Gumbel().log_prob(jnp.zeros(2))
      Array([-1., -1.], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Independent samples, an array of this shape and dtype."""
        return jax.random.gumbel(key, sample_shape, dtype)

    def log_prob(self, inputs: ArrayLike) -> jax.Array:
        """The log-density of each number."""
        z = jnp.asarray(inputs)
        return -z - jnp.exp(-z)


class Normal:
    """The standard normal distribution, with log-density -z**2 / 2, up to a constant.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators.perturbations import Normal
      >>> Normal().sample(jax.random.key(0), (2, 3)).shape
      (2, 3)
      >>> Normal().log_prob(jnp.array([0.0, 2.0]))
      Array([-0., -2.], dtype=float32)
    """

    def sample(
        self, key: jax.Array, sample_shape: Sequence[int] = (), dtype: DTypeLike = float
    ) -> jax.Array:
        """Independent samples, an array of this shape and dtype."""
        return jax.random.normal(key, sample_shape, dtype)

    def log_prob(self, inputs: ArrayLike) -> jax.Array:
        """The log-density of each number, but for the constant -log(2 pi) / 2."""
        return -0.5 * jnp.square(jnp.asarray(inputs))


_GUMBEL = Gumbel()


def make_perturbed_fun(
    fun: Callable[[Any], Any],
    num_samples: int = 1000,
    sigma: ArrayLike = 0.1,
    noise: Noise = _GUMBEL,
    use_baseline: bool = True,
) -> Callable[[jax.Array, Any], Any]:
    """The mean of a function over perturbations of its input, which is smooth in it.

    Derivatives with respect to the input are estimated from values of `fun` alone, and unbiased in
    every order. Those with respect to what `fun` closes over are the usual ones.

    Args:
      fun: From a tree of arrays of floating point dtype to a tree of arrays.
      num_samples: How many perturbations to average over.
      sigma: Their scale, not 0.
      noise: What they are drawn from, independently for each number: `Gumbel`, `Normal`, or any
        object with ``sample(key, sample_shape, dtype)`` and ``log_prob(inputs)``.
      use_baseline: Whether the value at the unperturbed input is subtracted from the values that
        derivatives are estimated from, which lowers their variance.

    Returns:
      ``perturbed(key, x)``, which returns what `fun` does, with means as leaves.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is not positive or `sigma` is 0, or, by the perturbed function,
        if inputs are not of floating point dtype.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators.perturbations import make_perturbed_fun
      >>> def argmax(x):
      ...     return jax.nn.one_hot(jnp.argmax(x), 2)
      >>> soft = make_perturbed_fun(argmax, num_samples=10_000, sigma=1.0)
      >>> x = jnp.array([1.0, 0.0])
      >>> soft(jax.random.key(0), x).round(1), jax.nn.softmax(x).round(1)
      (Array([0.7, 0.3], dtype=float32), Array([0.7, 0.3], dtype=float32))

    Reference:
      Berthet et al., Learning with differentiable perturbed optimizers, 2020; Foerster et al.,
      DiCE: the infinitely differentiable Monte Carlo estimator, 2018.
    """
    name = "make_perturbed_fun"
    if not callable(fun):
        raise TypeError(f"{name}: fun must be callable; got {shown(fun)}.")
    check_count(name, "num_samples", num_samples)
    if isinstance(sigma, int | float) and sigma == 0:
        raise ValueError(f"{name}: sigma must not be 0: nothing would be perturbed.")

    def perturbed(key: jax.Array, x: Any) -> Any:
        check_key(name, key)
        x = jax.tree.map(jnp.asarray, x)
        dtype = _floating(name, x)
        fixed = jax.lax.stop_gradient(x)

        def sample(key: jax.Array) -> tuple[jax.Array, Any]:
            z = _noise_like(noise, key, x)
            y = fun(jax.tree.map(lambda x, z: x + (sigma * z).astype(x.dtype), fixed, z))
            # The sample stays where it is: as x moves, the noise that led there changes.
            moved = jax.tree.map(lambda z, x: widened(z) - zero(widened(x)) / sigma, z, x)
            log_prob = sum(jnp.sum(noise.log_prob(leaf)) for leaf in jax.tree.leaves(moved))
            return jnp.exp(zero(log_prob)), y

        def average(y: jax.Array, baseline: ArrayLike) -> jax.Array:
            b = widened(baseline)
            mean = jnp.mean(jax.vmap(jnp.multiply)(ones, widened(y) - b), 0) + b
            return mean.astype(jnp.promote_types(y.dtype, dtype))

        ones, values = jax.vmap(sample)(jax.random.split(key, num_samples))
        baselines = fun(fixed) if use_baseline else jax.tree.map(lambda y: 0, values)
        return jax.tree.map(average, values, baselines)

    return perturbed


def _floating(name: str, x: Any) -> Any:
    """The dtype that the leaves promote to, checked to be of floating point."""
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"{name}: inputs must be of floating point dtypes; got {leaf.dtype}. Convert "
                "them, as with x.astype(jnp.float32)."
            )
    return jnp.result_type(*(jax.tree.leaves(x) or [jnp.float32]))


def _noise_like(noise: Noise, key: jax.Array, inputs: Any) -> Any:
    """Noise of the shapes and dtypes of a tree, from a key for each leaf."""
    leaves, structure = jax.tree.flatten(inputs)
    keys = jax.random.split(key, max(1, len(leaves)))[: len(leaves)]
    samples = [noise.sample(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, samples)
