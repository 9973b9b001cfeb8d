r"""Weak derivatives of distributions: each is a weight times a difference of two distributions.

.. math::

    \partial_\theta p_\theta = c_\theta (p^+_\theta - p^-_\theta),
    \qquad \partial_\theta E[f(x)] = c_\theta (E[f(x^+)] - E[f(x^-)])

With standard noise of the family on the right:

=====================  ==============  ==============================  ====================
parameter              weight          :math:`x^+`                     :math:`x^-`
=====================  ==============  ==============================  ====================
normal, mean m         1/(s sqrt 2pi)  m + s Rayleigh                  m - s Rayleigh
normal, deviation s    1/s             m + s double-sided Maxwell      m + s Normal
Poisson, rate          1               x + 1                           x
Gamma, rate b          a/b             Gamma(a, b)                     Gamma(a + 1, b)
Gamma, shape a         sqrt(2pi)/|z|   x + z^2/(2b), z ~ Normal        x
Exponential, rate      1/b             Gamma(1, b)                     Gamma(2, b)
Bernoulli, p           1               1                               0
Categorical, p_k       1               k                               nothing
Weibull, scale l       k/l             l Gamma(2, 1)^(1/k)             l Gamma(1, 1)^(1/k)
Weibull, shape k       -1/k            l T^(1/k)                       l Gamma(1, 1)^(1/k)
=====================  ==============  ==============================  ====================

The density of T is :math:`e^{-t} (t - 1) \log t`. The shape of a Gamma has no such split: a
Gamma(a + da) is a Gamma(a) and, with probability da e^(-by)/y dy, a jump by y, so the derivative is
the integral of (f(x + y) - f(x)) over jumps, which z samples. *Coupled* draws of x+ and x- share
noise: the same Rayleigh, a Maxwell and its product with a uniform, a Gamma(1) and its sum with
another. Each pair but that jump is right without being coupled, too.

References:
  Pflug, Optimization of stochastic models, 1996; Mohamed et al., Monte Carlo gradient estimation in
  machine learning, 2020, section 6.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_estimators._sampling import probabilities

Split: TypeAlias = Callable[
    [jax.Array, jax.Array, bool], tuple[jax.Array, jax.Array, jax.Array | None]
]


class WeakDerivative(NamedTuple):
    """The derivative of a distribution with independent coordinates in one of its parameters.

    Attributes:
      parameter: The parameter, differentiable in what the distribution was made from; of the shape
        of a sample, or of that shape and further axes, of several parameters per coordinate.
      split: ``split(key, sample, coupled)`` draws ``(weight, positive, negative)``, all of the
        parameter's shape: what to put in the place of each coordinate of a sample, and the factor
        of the difference of the values of f. `negative` may be None: f is then taken as 0 there.
    """

    parameter: jax.Array
    split: Split


Family: TypeAlias = Callable[[Any, tuple[int, ...]], list[WeakDerivative]]
"""``family(distribution, sample_shape)``: a derivative for each parameter."""

_FAMILIES: dict[str | type, Family] = {}


def register_weak_derivatives(*kinds: str | type) -> Callable[[Family], Family]:
    """Decorates a family of weak derivatives, to be used for distributions of some kinds.

    Args:
      *kinds: Classes of distributions, or the names of classes. Subclasses are included.

    Returns:
      A decorator of ``family(distribution, sample_shape)``, which returns a list with a
      `WeakDerivative` for each parameter.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import WeakDerivative, register_weak_derivatives
      >>> @register_weak_derivatives("Rademacher")  # +1 with probability p, or else -1
      ... def rademacher(distribution, shape):
      ...     p = jnp.broadcast_to(distribution.p, shape)
      ...
      ...     def split(key, sample, coupled):
      ...         return jnp.ones(shape), jnp.ones(shape), -jnp.ones(shape)
      ...
      ...     return [WeakDerivative(p, split)]

    Reference:
      Pflug, Optimization of stochastic models, 1996.
    """

    def register(family: Family) -> Family:
        _FAMILIES.update(dict.fromkeys(kinds, family))
        return family

    return register


def family_of(name: str, dist: Any) -> Callable[[tuple[int, ...]], list[WeakDerivative]]:
    """From the shape of a sample to the derivatives of a distribution.

    They are found by its class, the bases of that, or their names.
    """
    while type(dist).__name__ in ("Independent", "Redrawn"):
        dist = dist.distribution
    for kind in type(dist).__mro__:
        for key in (kind, kind.__name__):
            if key in _FAMILIES:
                return functools.partial(_FAMILIES[key], dist)
    known = sorted(k if isinstance(k, str) else k.__name__ for k in _FAMILIES)
    others = [name.replace("measure_valued", other) for other in ("score_function", "pathwise")]
    raise TypeError(
        f"{name}: no weak derivative of {type(dist).__name__} is known, only of "
        f"{', '.join(known)}. Use {others[0]}, or, if the function is differentiable, {others[1]}; "
        "or teach it with register_weak_derivatives."
    )


@register_weak_derivatives("MultiNormal", "Normal", "MultivariateNormalDiag")
def _normal(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    loc, scale = jnp.broadcast_to(dist.mean(), shape), jnp.broadcast_to(dist.stddev(), shape)

    def split_mean(key: jax.Array, _: jax.Array, coupled: bool) -> Any:
        kinds = 1 if coupled else 2
        rayleigh = jax.random.rayleigh(key, 1.0, (kinds, *shape), scale.dtype)
        up, down = rayleigh[0], rayleigh[-1]
        return 1 / (scale * math.sqrt(2 * math.pi)), loc + scale * up, loc - scale * down

    def split_deviation(key: jax.Array, _: jax.Array, coupled: bool) -> Any:
        key, other = jax.random.split(key)
        wide = jax.random.double_sided_maxwell(key, 0.0, 1.0, shape, scale.dtype)
        if coupled:
            normal = wide * jax.random.uniform(other, shape, scale.dtype)
        else:
            normal = jax.random.normal(other, shape, scale.dtype)
        return 1 / scale, loc + scale * wide, loc + scale * normal

    return [WeakDerivative(loc, split_mean), WeakDerivative(scale, split_deviation)]


@register_weak_derivatives("Poisson")
def _poisson(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    def split(key: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        other = sample if coupled else dist.sample(seed=key, sample_shape=())
        return jnp.ones(shape), other + 1, sample

    return [WeakDerivative(jnp.broadcast_to(dist.rate, shape), split)]


@register_weak_derivatives("Gamma")
def _gamma(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    concentration, rate = (jnp.broadcast_to(x, shape) for x in (dist.concentration, dist.rate))

    def split_concentration(key: jax.Array, sample: jax.Array, _: bool) -> Any:
        z = jnp.abs(jax.random.normal(key, shape, rate.dtype))
        z = jnp.maximum(z, float(np.finfo(np.float32).tiny))  # 1/z is finite, and x + z^2 is x
        return math.sqrt(2 * math.pi) / z, sample + z**2 / (2 * rate), sample

    def split_rate(key: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        first, second = jax.random.split(key)
        other = jax.random.gamma(second, concentration, shape) / rate
        longer = (sample if coupled else other) + jax.random.exponential(first, shape) / rate
        return concentration / rate, sample, longer

    return [
        WeakDerivative(concentration, split_concentration),
        WeakDerivative(rate, split_rate),
    ]


@register_weak_derivatives("Exponential")
def _exponential(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    rate = jnp.broadcast_to(dist.rate, shape)

    def split(key: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        more, other = jax.random.exponential(key, (2, *shape), rate.dtype) / rate
        return 1 / rate, sample, (sample if coupled else other) + more

    return [WeakDerivative(rate, split)]


@register_weak_derivatives("Bernoulli")
def _bernoulli(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    def split(_: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        return jnp.ones(shape), jnp.ones(shape), jnp.zeros(shape)

    return [WeakDerivative(jnp.broadcast_to(probabilities(dist), shape), split)]


@register_weak_derivatives("Categorical")
def _categorical(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    p = probabilities(dist)
    each = (*shape, p.shape[-1])

    def split(_: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        return jnp.ones(each), jnp.broadcast_to(jnp.arange(each[-1]), each), None

    return [WeakDerivative(jnp.broadcast_to(p / jnp.sum(p, -1, keepdims=True), each), split)]


@register_weak_derivatives("Weibull")
def _weibull(dist: Any, shape: tuple[int, ...]) -> list[WeakDerivative]:
    concentration, scale = (jnp.broadcast_to(x, shape) for x in (dist.concentration, dist.scale))

    def stretched(t: jax.Array) -> jax.Array:
        return scale * t ** (1 / concentration)

    def split_concentration(key: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        key, other = jax.random.split(key)
        wide = _sample_t(key, shape)
        uniform = jax.random.uniform(other, shape)
        negative = stretched(jnp.exp(uniform * jnp.log(wide))) if coupled else sample
        return -1 / concentration, stretched(wide), negative

    def split_scale(key: jax.Array, sample: jax.Array, coupled: bool) -> Any:
        first, second, other = jax.random.exponential(key, (3, *shape), scale.dtype)
        negative = stretched(first if coupled else other)
        return concentration / scale, stretched(first + second), negative

    return [
        WeakDerivative(concentration, split_concentration),
        WeakDerivative(scale, split_scale),
    ]


def _sample_t(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Samples of the density e^-t (t - 1) log(t), by rejection.

    Above 1, log(t) <= t - 1: t - 1 is a Gamma(3), of mass 2/e. Below 1, -log(t) is the density of
    the product of two uniforms, of mass 1.
    """

    def propose(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        side, first, second, accept = jax.random.split(key, 4)
        excess = jax.random.gamma(first, 3.0, shape)
        product = jnp.prod(jax.random.uniform(second, (2, *shape)), 0)
        above = jax.random.bernoulli(side, 2 / (2 + math.e), shape)
        t = jnp.where(above, 1 + excess, product)
        probability = jnp.where(above, jnp.log1p(excess) / excess, (1 - product) * jnp.exp(-t))
        return t, jax.random.uniform(accept, shape) < probability

    def again(state: tuple[jax.Array, jax.Array, jax.Array]) -> Any:
        key, t, done = state
        key, step = jax.random.split(key)
        proposed, accepted = propose(step)
        return key, jnp.where(done, t, proposed), done | accepted

    start = (key, jnp.ones(shape), jnp.zeros(shape, bool))
    t: jax.Array = jax.lax.while_loop(lambda state: ~jnp.all(state[2]), again, start)[1]
    return t
