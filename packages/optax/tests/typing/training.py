"""A training loop, as users write it: types of parameters come out as they went in."""

# No expression may be Any, so nothing of ours may be. Only JAX's functions are partially unknown to
# pyright; where they return Any to mypy, a declaration says what it is.
# mypy: disallow-any-expr
# pyright: reportUnknownMemberType=false

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, assert_type

import jax
import jax.numpy as jnp

import optax

Params = dict[str, jax.Array]


class Batch(NamedTuple):
    """Inputs and targets."""

    x: jax.Array
    y: jax.Array


def loss_fn(params: Params, batch: Batch) -> jax.Array:
    predictions = batch.x @ params["kernel"] + params["bias"]
    losses = assert_type(optax.l2_loss(predictions, batch.y), jax.Array)
    return jnp.mean(losses)


schedule = optax.warmup_cosine_decay_schedule(
    init_value=0.0, peak_value=1e-3, warmup_steps=100, decay_steps=1000
)
optimizer = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.adamw(schedule, b1=0.9, weight_decay=1e-2, mask=r".*/kernel", mu_dtype="bfloat16"),
)
assert_type(schedule(3), jax.Array)
assert_type(optimizer, optax.GradientTransformationExtraArgs)
assert_type(optimizer.init, optax.TransformInitFn)
assert_type(optimizer.update, optax.TransformUpdateExtraArgsFn)
assert_type(optax.sgd(1e-3, momentum=0.9), optax.GradientTransformationExtraArgs)
assert_type(optax.adam(learning_rate=1e-3), optax.GradientTransformationExtraArgs)
assert_type(optax.lion(1e-3), optax.GradientTransformationExtraArgs)
assert_type(optax.scale(0.5), optax.GradientTransformation)
assert_type(optax.scale_by_adam(b2=0.99), optax.GradientTransformation)


gradient: Callable[[Params, Batch], Params] = jax.grad(loss_fn)  # pyright: ignore[reportUnknownVariableType]


def train_step(
    params: Params, state: optax.OptState, batch: Batch
) -> tuple[Params, optax.OptState]:
    grads = gradient(params, batch)
    updates, state = optimizer.update(grads, state, params)
    assert_type(updates, optax.Updates)
    assert_type(state, optax.OptState)
    params = assert_type(optax.apply_updates(params, updates), dict[str, jax.Array])
    return params, state


# `jax.jit` forgets the type, so it is said again.
jitted_step: Callable[[Params, optax.OptState, Batch], tuple[Params, optax.OptState]] = jax.jit(
    train_step, donate_argnums=(0, 1)
)


def fit(params: Params, batches: list[Batch]) -> Params:
    state = optimizer.init(params)
    for batch in batches:
        params, state = jitted_step(params, state, batch)
    return params


@dataclass(frozen=True)
class TrainState:
    """What training carries along; the optimizer is a value, and may be a field."""

    params: Params
    average: Params
    opt_state: optax.OptState
    tx: optax.GradientTransformation

    @classmethod
    def create(cls, params: Params, tx: optax.GradientTransformation) -> "TrainState":
        return cls(params=params, average=params, opt_state=tx.init(params), tx=tx)

    def apply_gradients(self, grads: Params) -> "TrainState":
        updates, opt_state = self.tx.update(grads, self.opt_state, self.params)
        params = optax.apply_updates(self.params, updates)
        average = optax.incremental_update(params, self.average, step_size=0.01)
        assert_type(average, dict[str, jax.Array])
        return TrainState(params=params, average=average, opt_state=opt_state, tx=self.tx)


class Model(NamedTuple):
    """Parameters in a named tuple."""

    kernel: jax.Array
    layers: tuple[jax.Array, ...]


def generic_step(model: Model, grads: Model, state: optax.OptState) -> Model:
    updates, _ = optimizer.update(grads, state, model, value=jnp.array(1.0), step=3)
    return assert_type(optax.apply_updates(model, updates), Model)
