"""Functions of trees and losses: whatever goes in decides what comes out."""

# No expression may be Any, so nothing of ours may be. Only JAX's functions are partially unknown to
# pyright; where they return Any to mypy, a declaration says what it is.
# mypy: disallow-any-expr
# pyright: reportUnknownMemberType=false

from typing import NamedTuple, assert_type

import jax
import jax.numpy as jnp

import optax


class Model(NamedTuple):
    """Parameters in a named tuple."""

    kernel: jax.Array
    bias: jax.Array


model = Model(jnp.ones((2, 3)), jnp.zeros(3))
key = jax.random.key(0)

# Trees like the first argument.
assert_type(optax.tree.zeros_like(model), Model)
assert_type(optax.tree.ones_like(model, dtype="bfloat16"), Model)
assert_type(optax.tree.full_like(model, 0.5), Model)
assert_type(optax.tree.add(model, model), Model)
assert_type(optax.tree.sub(model, model), Model)
assert_type(optax.tree.mul(model, model), Model)
assert_type(optax.tree.div(model, model), Model)
assert_type(optax.tree.scale(0.5, model), Model)
assert_type(optax.tree.add_scale(model, 0.5, model), Model)
assert_type(optax.tree.clip(model, -1.0, 1.0), Model)
assert_type(optax.tree.cast(model, "float16"), Model)
assert_type(optax.tree.conj(model), Model)
assert_type(optax.tree.real(model), Model)
assert_type(optax.tree.where(jnp.array(True), model, model), Model)
assert_type(optax.tree.random_like(key, model), Model)
assert_type(optax.tree.update_moment(model, model, 0.9, 1), Model)
assert_type(optax.tree.bias_correction(model, 0.9, 3), Model)
assert_type(optax.tree_utils.tree_zeros_like(model), Model)

# Numbers.
assert_type(optax.tree.norm(model), jax.Array)
assert_type(optax.tree.norm(model, ord=1, squared=False), jax.Array)
assert_type(optax.tree.sum(model), jax.Array)
assert_type(optax.tree.vdot(model, model), jax.Array)
assert_type(optax.tree.max(model), jax.Array)
assert_type(optax.tree.size(model), int)
assert_type(optax.global_norm(model), jax.Array)


# Look-ups and maps in states.
def zeros(x: jax.Array) -> jax.Array:
    return jnp.zeros_like(x)


tx = optax.chain(optax.trace(0.9), optax.adam(1e-3))
state = tx.init(model)
assert_type(optax.tree.map_params(tx, zeros, state), optax.OptState)
assert_type(optax.tree.get(state, "count"), object)
assert_type(optax.tree.set(state, count=jnp.zeros((), "int32")), optax.OptState)

# Losses.
logits, labels = jnp.ones((4, 3)), jnp.zeros(4, "int32")
targets = jax.nn.one_hot(labels, 3)
assert_type(optax.l2_loss(logits), jax.Array)
assert_type(optax.squared_error(logits, targets), jax.Array)
assert_type(optax.huber_loss(logits, targets, delta=0.5), jax.Array)
assert_type(optax.softmax_cross_entropy(logits, targets), jax.Array)
assert_type(optax.softmax_cross_entropy_with_integer_labels(logits, labels), jax.Array)
assert_type(optax.sigmoid_binary_cross_entropy(logits, targets), jax.Array)
assert_type(optax.losses.l2_loss(logits, targets), jax.Array)

# Updating and the like.
assert_type(optax.incremental_update(model, model, 0.1), Model)
assert_type(optax.periodic_update(model, model, steps=3, update_period=2), Model)
assert_type(optax.projections.projection_simplex(model), Model)
assert_type(optax.projections.projection_l2_ball(model, 1.0), Model)
