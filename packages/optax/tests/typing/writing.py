"""Transformations and schedules of users' own, by hand and with rules."""

# No expression may be Any, so nothing of ours may be. Only JAX's functions are partially unknown to
# pyright; where they return Any to mypy, a declaration says what it is.
# mypy: disallow-any-expr
# pyright: reportUnknownMemberType=false

from typing import NamedTuple, assert_type

import jax
import jax.numpy as jnp
import numpy as np

import optax
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

Params = dict[str, jax.Array]


# By hand, with the state's own type where it comes in.
class CountState(NamedTuple):
    """The number of updates, and their mean."""

    steps: jax.Array
    mean: optax.Updates


def scale_by_count(power: float = 0.5) -> optax.GradientTransformation:
    def init(params: optax.Params) -> CountState:
        return CountState(jnp.zeros((), "int32"), optax.tree.zeros_like(params))

    def update(
        updates: optax.Updates, state: CountState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, CountState]:
        del params
        steps = optax.safe_increment(state.steps)
        mean = optax.incremental_update(updates, state.mean, 1.0 / steps)
        return optax.tree.scale(1.0 / steps**power, updates), CountState(steps, mean)

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


# With a rule.
class ScaleByMineState(NamedTuple):
    """Step count and moments."""

    count: jax.Array  # type: ignore[assignment]  # pyright: ignore[reportIncompatibleMethodOverride]
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


assert_type(scale_by_mine(b1=0.95, mu_dtype="bfloat16"), optax.GradientTransformation)
assert_type(mine(1e-3), optax.GradientTransformationExtraArgs)
mine(optax.constant_schedule(1e-3), mask=r".*/kernel")


# Schedules: a plain function, one typed narrowly, a factory.
def halving(count: jax.Array) -> jax.Array:
    return 0.1 * 0.5**count


def wide(count: Numeric) -> Numeric:
    return 0.1 * jnp.sqrt(count)


def narrow(count: jax.Array) -> jax.Array:
    return 0.1 * jnp.sqrt(count)


def warmup(count: jax.Array) -> jax.Array:
    return jnp.minimum(1.0, count / 100) * optax.cosine_decay_schedule(1e-3, 1000)(count)


@schedule
def triangle(peak_value: Real, period: Real = 10) -> optax.Schedule:
    def at(count: Numeric) -> Numeric:
        return peak_value * (1 - jnp.abs(2 * jnp.mod(count / period, 1) - 1))

    return at


optax.chain(mine(1), optax.sgd(1))
optax.chain(mine(jnp.array(1e-3)), optax.sgd(np.float64(1e-3)))
optax.chain(mine(halving), optax.sgd(wide))
optax.chain(mine(narrow), optax.sgd(warmup))
optax.chain(mine(triangle(0.1)), optax.sgd(triangle(0.1)))
assert_type(triangle(1.0)(3), jax.Array)
ours: list[optax.Schedule] = [triangle(1.0), wide, optax.constant_schedule(0.1)]
either: optax.ScalarOrSchedule = narrow
optax.adam(lambda count: 1e-3 / (1 + count))
optax.scale_by_schedule(halving)
optax.scale_by_schedule(narrow)
optax.scale_by_schedule(lambda count: -triangle(0.1)(count))
last: float = float(triangle(0.1)(10))
halved: jax.Array = 0.5 * optax.linear_schedule(0.0, 1.0, 10)(jnp.array(3))
