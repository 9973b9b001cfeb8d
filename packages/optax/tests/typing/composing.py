"""Chains, masks and partitions, as users write them."""

# No expression may be Any, so nothing of ours may be. Only JAX's functions are partially unknown to
# pyright; where they return Any to mypy, a declaration says what it is.
# mypy: disallow-any-expr
# pyright: reportUnknownMemberType=false

from typing import assert_type

import jax
import jax.numpy as jnp

import optax

Params = dict[str, dict[str, jax.Array]]
params: Params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}

# A list of steps, of both kinds of transformation.
steps: list[optax.GradientTransformation] = [optax.clip_by_global_norm(1.0)]
steps.append(optax.scale_by_adam())
steps += [optax.add_decayed_weights(1e-4), optax.scale_by_learning_rate(1e-3)]
assert_type(optax.chain(*steps), optax.GradientTransformationExtraArgs)
assert_type(optax.chain(), optax.GradientTransformationExtraArgs)
assert_type(optax.chain(optax.chain(*steps), optax.identity()).init, optax.TransformInitFn)
assert_type(
    optax.named_chain(("clip", optax.clip_by_global_norm(1.0)), ("adam", optax.adam(1e-3))),
    optax.GradientTransformationExtraArgs,
)


# Masks: functions of parameters, typed or not; trees; patterns.
def mask_of(params: Params) -> dict[str, dict[str, bool]]:
    return {layer: {name: name == "kernel" for name in arrays} for layer, arrays in params.items()}


decay = optax.add_decayed_weights(1e-2)
assert_type(optax.masked(decay, mask_of), optax.GradientTransformationExtraArgs)
assert_type(optax.masked(decay, mask_of(params)), optax.GradientTransformationExtraArgs)
assert_type(optax.masked(decay, r".*/kernel"), optax.GradientTransformationExtraArgs)
assert_type(
    optax.masked(decay, lambda tree: [True] * optax.tree.size(tree)),
    optax.GradientTransformationExtraArgs,
)
optax.adamw(1e-3, mask=mask_of)
optax.adamw(1e-3, mask=mask_of(params))
optax.adamw(1e-3, mask=r".*/kernel")
optax.add_decayed_weights(1e-2, mask={"dense": True})


# Partitions: labels from a function, a tree, or patterns.
def labels_of(params: Params) -> dict[str, dict[str, str]]:
    return {layer: dict.fromkeys(arrays, "fast") for layer, arrays in params.items()}


transforms = {"fast": optax.adam(1e-3), "slow": optax.sgd(1e-4, momentum=0.9)}
assert_type(
    optax.partition(transforms, labels_of),
    optax.GradientTransformationExtraArgs,
)
optax.partition(transforms, {"dense": "fast"})
optax.partition({"fast": optax.adam(1e-3), "frozen": optax.set_to_zero()}, labels_of(params))
optax.partition({r".*/kernel": optax.adamw(1e-3), r".*/bias": optax.sgd(1e-3)})
optax.multi_transform({0: optax.adam(1e-3), 1: optax.set_to_zero()}, {"dense": 0})

# Transformations from functions.
optax.stateless_with_tree_map(lambda g, p: g if p is None else g + 1e-2 * p)


def halve(updates: Params, params: Params | None) -> Params:
    del params
    return optax.tree.scale(0.5, updates)


optax.stateless(halve)

# Adapters.
assert_type(optax.with_extra_args_support(optax.identity()), optax.GradientTransformationExtraArgs)
