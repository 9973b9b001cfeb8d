"""What every estimator does: check its arguments, draw samples, and turn terms into gradients.

An estimator is a *term*: a scalar function ``term(params, *inputs)`` of the parameters and of what
one sample brings (a draw, a value, a cotangent). Its value is f of that sample, and its gradient
with respect to `params` is that sample's estimate of the gradient of the expectation. The Jacobian
form is the gradient of each term; the surrogate form is the mean of the terms. So both forms of an
estimator agree, for the same key, by construction.
"""

import abc
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core.errors import shown


class Distribution(Protocol):
    """What estimators ask of a distribution; those of distrax and of TFP fit."""

    def sample(self, *, seed: Any, sample_shape: Any) -> Any: ...

    def log_prob(self, value: Any, /) -> Any: ...


Function: TypeAlias = Callable[[Any], Any]
"""From one sample to a scalar."""

Params: TypeAlias = list[Any] | tuple[Any, ...]
"""The parameters of a distribution: a list or a tuple of arrays (or of trees of arrays)."""

DistBuilder: TypeAlias = Callable[..., Distribution]
"""``dist_builder(*params)`` gives the distribution."""

Term: TypeAlias = Callable[..., jax.Array]
"""``term(params, *inputs)``: a scalar whose value is f and whose gradient is the estimate."""

Tree = TypeVar("Tree")


def check_call(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    at_least: int = 1,
) -> None:
    """Raises unless the arguments that all estimators share are of the right kind."""
    for argument, value in {"function": function, "dist_builder": dist_builder}.items():
        if not callable(value):
            raise TypeError(f"{name}: {argument} must be callable; got {shown(value)}.")
    if not isinstance(params, list | tuple):
        raise TypeError(
            f"{name}: params must be a list or a tuple, one entry for each argument of "
            f"dist_builder; got {shown(params)}. Wrap it, as in [params]."
        )
    check_floating(name, params)
    check_key(name, rng)
    check_count(name, "num_samples", num_samples, at_least)


def check_floating(name: str, params: Any) -> None:
    """Raises unless all parameters are of real floating point dtypes."""
    for i, leaf in enumerate(jax.tree.leaves(params)):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"{name}: params must be of real floating point dtypes; array {i} is of "
                f"{jnp.result_type(leaf)}. Convert it, or close over it."
            )


def check_key(name: str, rng: jax.Array) -> None:
    """Raises unless `rng` is one random key, of either kind that JAX knows."""
    dtype, shape = getattr(rng, "dtype", None), getattr(rng, "shape", None)
    is_typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    is_raw = dtype == jnp.uint32
    if not (is_typed or is_raw):
        raise TypeError(
            f"{name}: rng must be a random key; got {shown(rng)}. Make one with jax.random.key(0)."
        )
    one = () if is_typed else jax.eval_shape(jax.random.PRNGKey, 0).shape
    if shape != one:
        raise ValueError(
            f"{name}: rng must be one random key, an array of shape {one}; got shape {shape}. "
            "Take one of several, or map over them with jax.vmap."
        )


def check_count(name: str, argument: str, value: int, at_least: int = 1) -> None:
    """Raises unless the argument is a whole number, and large enough."""
    try:
        count = value.__index__()
    except (AttributeError, TypeError):
        raise TypeError(f"{name}: {argument} must be an integer; got {shown(value)}.") from None
    if isinstance(value, bool) or count < at_least:
        raise ValueError(f"{name}: {argument} must be >= {at_least}; got {value!r}.")


def scalar(name: str, function: Function) -> Callable[[Any], jax.Array]:
    """`function`, with its value checked to be a real scalar, in at least float32."""

    def checked(sample: Any) -> jax.Array:
        value = function(sample)
        leaves = jax.tree.leaves(value)
        if len(leaves) != 1 or leaves[0] is not value:
            raise TypeError(f"{name}: function must return a scalar; got {shown(value)}.")
        if jnp.shape(value) != ():
            raise ValueError(
                f"{name}: function must return a scalar for one sample of shape "
                f"{jax.tree.map(jnp.shape, sample)}; got shape {jnp.shape(value)}. Sum it, as "
                "with jnp.sum."
            )
        if jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
            raise TypeError(f"{name}: function must return a real scalar; got a complex one.")
        return widened(jnp.asarray(value))

    return checked


def values(name: str, function: Function, samples: Any) -> jax.Array:
    """The values of `function` at samples along the first axis, of shape (n,)."""
    return jax.vmap(scalar(name, function))(samples)


def widened(value: ArrayLike) -> jax.Array:
    """The array in the dtype to compute in, at least float32."""
    return jnp.asarray(value, jnp.promote_types(jnp.result_type(value), jnp.float32))


def build(dist_builder: DistBuilder, params: Params) -> Distribution:
    """The distribution, with its parameters in at least float32."""
    return dist_builder(*jax.tree.map(widened, params))


class ByNoise(abc.ABC):
    """A distribution whose samples, which may depend on each other, are made from noise."""

    @abc.abstractmethod
    def noise(self, rng: jax.Array, num_samples: int) -> jax.Array:
        """What the samples are made from, along the first axis."""

    @abc.abstractmethod
    def transform(self, noise: jax.Array) -> Any:
        """The sample that is made from this noise."""


def randomness(dist: Any, rng: jax.Array, num_samples: int) -> jax.Array:
    """What each sample is made from: a key, but for distributions that are made from noise."""
    if isinstance(dist, ByNoise):
        return dist.noise(rng, num_samples)
    return jax.random.split(rng, num_samples)


def draw(dist: Any, noise: jax.Array) -> Any:
    """One sample from its randomness; differentiable where the distribution is."""
    if isinstance(dist, ByNoise):
        return dist.transform(noise)
    return dist.sample(seed=noise, sample_shape=())


def draws(dist: Distribution, rng: jax.Array, num_samples: int) -> Any:
    """Samples along a new first axis, constant as far as derivatives are concerned."""
    samples = jax.vmap(lambda noise: draw(dist, noise))(randomness(dist, rng, num_samples))
    return jax.lax.stop_gradient(samples)


def check_independent(name: str, dist: Any) -> None:
    """Raises if samples depend on each other, as some estimators must not have it."""
    if isinstance(dist, ByNoise):
        form = name.rsplit("_", 1)[-1]
        raise TypeError(
            f"{name}: dist_builder must give independent samples; got {type(dist).__name__}, whose "
            "samples depend on each other. Pass the builder that it was made from, or use "
            f"score_function_{form}."
        )


def probabilities(dist: Any) -> jax.Array:
    """Those of a discrete distribution of distrax or TFP, whatever it was made from."""
    method = getattr(dist, "probs_parameter", None)
    return jnp.asarray(dist.probs if method is None else method())


def log_density(dist: Distribution, sample: Any) -> jax.Array:
    """The log-density of one whole sample: axes of a batch of distributions are summed over."""
    return jnp.sum(dist.log_prob(sample))


def zero(value: Tree) -> Tree:
    """0, whose derivative is that of `value`."""
    difference: Tree = jax.tree.map(lambda x: x - jax.lax.stop_gradient(x), value)
    return difference


def dot(cotangents: Any, outputs: Any) -> jax.Array:
    """The inner product of two trees; the first one is held constant."""
    products = jax.tree.map(lambda g, x: jnp.sum(jax.lax.stop_gradient(g) * x), cotangents, outputs)
    return jnp.asarray(sum(jax.tree.leaves(products)))


def pulled_back(
    function: Callable[[Any], jax.Array],
    dist_builder: DistBuilder,
    outputs: Callable[[Any], Any],
) -> Term:
    """The term of an estimator that knows gradients with respect to `outputs` of a distribution.

    The outputs are arrays, such as its logits. ``term(params, sample, cotangents)`` pulls the
    cotangents, which are of one sample, back through `dist_builder` to the parameters.
    """

    def term(params: Params, sample: Any, cotangents: Any) -> jax.Array:
        return function(sample) + dot(cotangents, zero(outputs(build(dist_builder, params))))

    return term


def jacobians(term: Term, params: Params, *inputs: Any) -> Any:
    """The gradient of each term: for each of `params`, an array (num_samples, *param.shape)."""
    params = jax.tree.map(jnp.asarray, params)
    return jax.vmap(jax.grad(term), (None, *[0] * len(inputs)))(params, *inputs)


def surrogate(term: Term, params: Params, *inputs: Any) -> jax.Array:
    """The mean of the terms, whose gradient is the mean of the Jacobians."""
    return jnp.mean(jax.vmap(term, (None, *[0] * len(inputs)))(params, *inputs))
