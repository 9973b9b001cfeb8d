"""Transformations and schedules of users' own, by hand and with rules."""

from typing import NamedTuple, assert_type

import jax
import jax.numpy as jnp
from grad_core import (
    Decay,
    DType,
    LeafRule,
    LearningRate,
    NonNegative,
    Numeric,
    Real,
    first_moment,
    rule,
    schedule,
    second_moment,
    transformation,
)

import optax

Params = dict[str, jax.Array]


# By hand, with the state's own type where it comes in.
class CountState(NamedTuple):
    """The number of updates."""

    count: jax.Array
    mean: optax.Updates


def scale_by_count(power: float = 0.5) -> optax.GradientTransformation:
    def init(params: optax.Params) -> CountState:
        return CountState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: CountState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, CountState]:
        del params
        count = optax.safe_increment(state.count)
        updates = optax.tree.scale(1.0 / count**power, updates)
        return updates, CountState(count, state.mean)

    return optax.GradientTransformation(init, update)


assert_type(scale_by_count(), optax.GradientTransformation)
optax.chain(scale_by_count(), optax.scale(-0.1))


# By hand, for parameters of one type, with an extra argument.
def clip_by_value() -> optax.GradientTransformationExtraArgs:
    def init(params: Params) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Params,
        state: optax.EmptyState,
        params: Params | None = None,
        *,
        value: jax.Array | float = 1.0,
        **extra_args: object,
    ) -> tuple[Params, optax.EmptyState]:
        del params, extra_args
        return {name: jnp.clip(u, -value, value) for name, u in updates.items()}, state

    return optax.GradientTransformationExtraArgs(init, update)


# By hand, without state, as a lambda.
double = optax.GradientTransformation(
    init=lambda params: optax.EmptyState(),
    update=lambda updates, state, params=None: (optax.tree.scale(2.0, updates), state),
)


# With a rule.
class ScaleByMineState(NamedTuple):
    """Step count and moments."""

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates


@rule
def scale_by_mine(
    b1: Decay = 0.9, b2: Decay = 0.999, eps: NonNegative = 1e-8, mu_dtype: DType | None = None
) -> LeafRule:
    def once(t: jax.Array) -> dict[str, Numeric]:
        return {"c1": 1 - b1**t, "c2": 1 - b2**t}

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, c1: jax.Array, c2: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * g * g
        return (mu / c1) / (jnp.sqrt(nu / c2) + eps), mu, nu

    return LeafRule(
        step, ScaleByMineState, once=once, mu=first_moment(mu_dtype), nu=second_moment()
    )


@transformation
def mine(
    learning_rate: LearningRate, b1: Decay = 0.9, *, mask: optax.MaskOrFn | None = None
) -> optax.GradientTransformationExtraArgs:
    return optax.chain(
        scale_by_mine(b1),
        optax.add_decayed_weights(1e-2, mask),
        optax.scale_by_learning_rate(learning_rate),
    )


assert_type(scale_by_mine(b1=0.95, mu_dtype=jnp.bfloat16), optax.GradientTransformation)
assert_type(mine(1e-3), optax.GradientTransformationExtraArgs)
mine(optax.constant_schedule(1e-3), mask=r".*/kernel")


# Schedules: a plain function, one typed narrowly, a factory.
def halving(count: Numeric) -> Numeric:
    return 0.1 * 0.5**count


def narrow(count: jax.Array) -> jax.Array:
    return 0.1 * jnp.sqrt(count)


@schedule
def triangle(peak_value: Real, period: Real = 10) -> optax.Schedule:
    def at(count: Numeric) -> Numeric:
        return peak_value * (1 - jnp.abs(2 * (count % period) / period - 1))

    return at


assert_type(triangle(1.0), optax.Schedule)
for learning_rate in (1e-3, jnp.float32(1e-3), halving, narrow, triangle(0.1)):
    optax.chain(mine(learning_rate), optax.sgd(learning_rate))
optax.adam(lambda count: 1e-3 / (1 + count))
optax.scale_by_schedule(halving)
optax.scale_by_schedule(narrow)
optax.scale_by_schedule(lambda count: -triangle(0.1)(count))
last: float = float(triangle(0.1)(10))
rate: jax.Array = jnp.asarray(optax.linear_schedule(0.0, 1.0, 10)(jnp.int32(3)))
