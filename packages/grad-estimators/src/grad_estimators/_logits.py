"""Bernoulli and categorical distributions by their logits.

A sample is coded as an array of floats of the shape of the logits: 0 or 1 for a Bernoulli, a
one-hot vector for a categorical. Both are thresholds of logits plus noise, ``z = logits + noise``,
and both relax to the mean at ``z / temperature``.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from grad_estimators._sampling import (
    DistBuilder,
    Distribution,
    Params,
    build,
    check_independent,
    widened,
)


@dataclass(frozen=True)
class Binary:
    """Independent coins, one for each logit."""

    dtype: DTypeLike

    def mean(self, logits: jax.Array) -> jax.Array:
        """The expectation of a code."""
        return jax.nn.sigmoid(logits)

    def noise(self, rng: jax.Array, num_samples: int, logits: jax.Array) -> jax.Array:
        """What makes samples of logits, of shape (num_samples, *logits.shape)."""
        return jax.random.logistic(rng, (num_samples, *logits.shape), logits.dtype)

    def threshold(self, z: jax.Array) -> jax.Array:
        """The code that noisy logits stand for."""
        return (z > 0).astype(z.dtype)

    def conditional(self, logits: jax.Array, noise: jax.Array, code: jax.Array) -> jax.Array:
        """Noisy logits, given the code that they stand for, from fresh noise."""
        sign = 2 * code - 1
        return sign * jax.nn.softplus(noise + jax.nn.softplus(sign * logits))

    def decoded(self, code: jax.Array) -> jax.Array:
        """The sample, as the distribution itself would draw it."""
        return code.astype(self.dtype)

    def choices(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Of how many values each coordinate takes one, and how many coordinates there are."""
        return 2, math.prod(shape)

    def coded(self, values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Codes of rows of coordinates, for logits of the given shape."""
        return values.reshape(len(values), *shape)


@dataclass(frozen=True)
class Categorical:
    """Independent choices among the classes of the logits' last axis."""

    dtype: DTypeLike
    one_hot: bool

    def mean(self, logits: jax.Array) -> jax.Array:
        """The expectation of a code."""
        return jax.nn.softmax(logits)

    def noise(self, rng: jax.Array, num_samples: int, logits: jax.Array) -> jax.Array:
        """What makes samples of logits, of shape (num_samples, *logits.shape)."""
        return jax.random.gumbel(rng, (num_samples, *logits.shape), logits.dtype)

    def threshold(self, z: jax.Array) -> jax.Array:
        """The code that noisy logits stand for."""
        return jax.nn.one_hot(jnp.argmax(z, axis=-1), z.shape[-1], dtype=z.dtype)

    def conditional(self, logits: jax.Array, noise: jax.Array, code: jax.Array) -> jax.Array:
        """Noisy logits, given the code that they stand for, from fresh noise."""
        # The largest is a Gumbel variable at log(sum(exp(logits))), whichever it is. The others
        # are Gumbel variables at their logits, cut off there.
        top = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
        top += jnp.sum(code * noise, axis=-1, keepdims=True)
        return jnp.where(code > 0, top, -jnp.logaddexp(-logits - noise, -top))

    def decoded(self, code: jax.Array) -> jax.Array:
        """The sample, as the distribution itself would draw it."""
        return (code if self.one_hot else jnp.argmax(code, axis=-1)).astype(self.dtype)

    def choices(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Of how many values each coordinate takes one, and how many coordinates there are."""
        return shape[-1], math.prod(shape[:-1])

    def coded(self, values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Codes of rows of coordinates, for logits of the given shape."""
        return jax.nn.one_hot(values, shape[-1]).reshape(len(values), *shape)


Kind: TypeAlias = Binary | Categorical

_FALSE_FRIENDS = ("Binomial", "Continuous", "Geometric", "Multinomial", "Relaxed")
"""In the names of distributions that have logits, too, but more outcomes than a code."""


def kind_of(dist: Distribution) -> Kind | None:
    """What codes the samples of a Bernoulli or a categorical; None for other distributions."""
    base = _base(dist)
    names = f"{type(base).__name__} {getattr(base, 'name', '')}"
    logits = _raw_logits(base)
    if logits is None or any(word in names for word in _FALSE_FRIENDS):
        return None
    event = tuple(getattr(base, "event_shape", ()))
    sample = jax.eval_shape(lambda: base.sample(seed=jax.random.key(0), sample_shape=()))
    shape = jnp.shape(logits)
    if event == () and sample.shape == shape:
        return Binary(sample.dtype)
    if event == () and sample.shape == shape[:-1]:
        return Categorical(sample.dtype, one_hot=False)
    if event == shape[-1:] and sample.shape == shape:
        return Categorical(sample.dtype, one_hot=True)
    return None


def logits_of(dist: Distribution) -> jax.Array:
    """The logits of a distribution that has a kind, in at least float32 and finite.

    Infinite ones become so large that it makes no difference, and their gradients are zero.
    """
    return jnp.clip(widened(_raw_logits(_base(dist))), -1e30, 1e30)


def coded_by(
    name: str, params: Params, dist_builder: DistBuilder, binary_only: bool = False
) -> tuple[Kind, jax.Array]:
    """The kind of a distribution and its logits as constants; raises unless it has them."""
    dist = build(dist_builder, params)
    check_independent(name, dist)
    kind = kind_of(dist)
    if kind is None or (binary_only and not isinstance(kind, Binary)):
        served = "Bernoulli" if binary_only else "Bernoulli or categorical"
        others = ["rloo", "dice", *["rebar"] * (kind is not None)]
        form = name.rsplit("_", 1)[-1]
        raise TypeError(
            f"{name}: dist_builder must give a {served} distribution; got {type(dist).__name__}. "
            f"Try {', '.join(f'{other}_{form}' for other in others)}."
        )
    return kind, jax.lax.stop_gradient(logits_of(dist))


def check_temperature(name: str, temperature: ArrayLike) -> None:
    """Raises if the temperature is a Python number that is not positive."""
    if isinstance(temperature, int | float) and not 0 < temperature < math.inf:
        raise ValueError(f"{name}: temperature must be > 0 and finite; got {temperature!r}.")


def _raw_logits(base: Any) -> Any:
    """The logits, where a distribution has some; None otherwise."""
    logits = getattr(base, "logits", None)
    if logits is None and hasattr(base, "logits_parameter"):  # TFP, with probabilities given
        return base.logits_parameter()
    return logits


def _base(dist: Any) -> Any:
    """The distribution whose batch axes `Independent` calls event axes."""
    while hasattr(dist, "reinterpreted_batch_ndims"):
        dist = dist.distribution
    return dist
