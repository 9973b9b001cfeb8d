"""The generic transformations and combinators of grad-core."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from parity.cases import Case, Family, call, case
from parity.coverage import public
from parity.parts import LINEAR, NARROW, SCHEDULED, by_rank, falling, matrices, vectors, warmed
from parity.problem import WITHOUT_SCALARS, descend

ADAM = call("scale_by_adam", b2=0.9, eps=1e-3)
TRACE = call("trace", 0.8)
DOUBLE = call("scale", 2.0)


def names() -> Iterable[str]:
    """The factories of transformations in grad-core."""
    import grad_core

    return public(grad_core, lambda name, x: grad_core.is_factory(x))


def hollow(updates: Any, params: Any) -> Any:
    """Puts NaN where the update is the least of its leaf."""
    del params
    return jax.tree.map(lambda u: jnp.where((u <= u.min()) & (u.size > 1), jnp.nan, u), updates)


def regularize(updates: Any, params: Any) -> Any:
    """Adds the cube of the parameters, all leaves weighted by the norm of the whole."""
    weight = sum(jnp.sum(u**2) for u in jax.tree.leaves(updates)) ** 0.5
    return jax.tree.map(lambda u, p: u + 0.01 * p**3 / weight, updates, params)


def swell(updates: Any, params: Any) -> Any:
    """Doubles all updates; there may be no parameters."""
    del params
    return jax.tree.map(lambda u: 2 * u, updates)


def squash(u: Any, p: Any) -> Any:
    """Bends an update, the more the larger its parameter."""
    return jnp.tanh(u) * (1 + p**2)


def bend(u: Any, p: Any) -> Any:
    """The same without the parameter."""
    del p
    return jnp.arctan(u)


STATELESS: list[Case] = [
    case("identity"),
    case("set_to_zero"),
    case("centralize"),
    case("keep_params_nonnegative").using(factor=1.0),
    case("chain", call("scale", -0.5), call("keep_params_nonnegative")).using(factor=1.0),
    case("chain", call("stateless", hollow), call("zero_nans")),
    case("scale_by_sign"),
    case("scale", 0.5),
    case("scale", -0.5),
    case("scale", 3.0),
    case("clip", 1.0),
    case("clip", 0.3),
    case("clip", 2.5),
    case("clip_by_block_rms", 1.0),
    case("clip_by_block_rms", 0.3),
    case("clip_by_block_rms", 2.5),
    case("clip_by_global_norm", 1.0),
    case("clip_by_global_norm", 0.01),
    case("clip_by_global_norm", 6.0),
    case("adaptive_grad_clip", 0.1),
    case("adaptive_grad_clip", 0.02, eps=3.0),
    case("adaptive_grad_clip", 0.1, axis=1).using(trees=("matrix",)),
    case("normalize_by_update_norm"),
    case("normalize_by_update_norm", scale_factor=3.0),
    case("normalize_by_update_norm", scale_factor=-0.5, eps=0.1),
    case("scale_by_param_block_norm"),
    case("scale_by_param_block_norm", 1.5),
    case("scale_by_param_block_norm", min_scale=2.5),
    case("scale_by_param_block_rms"),
    case("scale_by_param_block_rms", 1.0),
    case("scale_by_param_block_rms", min_scale=1.3),
    case("scale_by_trust_ratio"),
    case("scale_by_trust_ratio", min_norm=1.5, trust_coefficient=0.1),
    case("scale_by_trust_ratio", trust_coefficient=2.0, eps=0.1),
    case("add_decayed_weights"),
    case("add_decayed_weights", 0.1),
    case("add_decayed_weights", weight_decay=0.5, mask=matrices),
    case("stateless", regularize),
    case("stateless", hollow),
    case("stateless", swell),
    case("stateless_with_tree_map", squash),
    case("stateless_with_tree_map", bend),
    case("stateless_with_tree_map", jnp.add),
]

STATEFUL: list[Case] = [
    case("trace", 0.9),
    case("trace", 0.5, nesterov=True),
    case("trace", decay=0.8, accumulator_dtype=jnp.float32).differs(NARROW, float64=1e-5),
    case("ema", 0.9),
    case("ema", 0.5, debias=False),
    case("ema", decay=0.8, accumulator_dtype=jnp.float32).differs(NARROW, float64=1e-5),
    case("add_noise", 0.1, 0.5, seed=3),
    case("add_noise", 0.5, 0.9, key=call(jax.random.key, 7)),
    case("add_noise", eta=0.01, gamma=0.1, key=5),
    case("scale_by_schedule", falling),
    case("scale_by_schedule", warmed),
    case("scale_by_schedule", LINEAR).differs(SCHEDULED, float64=1e-6),
    case("scale_by_learning_rate", 0.1),
    case("scale_by_learning_rate", falling),
    case("scale_by_learning_rate", warmed, flip_sign=False),
    case("scale_by_distance_over_gradients").using(trees=WITHOUT_SCALARS),
    case("scale_by_distance_over_gradients", reps_rel=1e-3, global_scale=0.5).using(
        trees=WITHOUT_SCALARS
    ),
    case("scale_by_distance_over_gradients", eps=1e-2, param_dtype=jnp.float64).using(
        trees=WITHOUT_SCALARS
    ),
]

COMBINED: list[Case] = [
    case("chain", call("clip_by_global_norm", 1.0), ADAM, call("add_decayed_weights", 0.1)),
    case("chain", TRACE, call("chain", call("clip", 0.5), call("scale_by_schedule", falling))),
    case("named_chain", ("momentum", TRACE), ("rate", call("scale", 0.3))),
    case("named_chain", ("adam", ADAM)),
    case("named_chain", ("clip", call("clip", 0.4)), ("noise", call("add_noise", 0.1, 0.5, 1))),
    case("masked", ADAM, matrices),
    case("masked", call("chain", TRACE, DOUBLE), mask=vectors, mask_compatible_extra_args=True),
    case("masked", TRACE, True),
    case("partition", {"wide": ADAM, "flat": TRACE}, by_rank),
    case("partition", {"wide": call("set_to_zero"), "flat": DOUBLE}, param_labels=by_rank),
    case(
        "partition",
        {"wide": call("clip_by_global_norm", 0.5), "flat": ADAM},
        by_rank,
        mask_compatible_extra_args=True,
    ),
    case("multi_transform", {"wide": ADAM, "flat": TRACE}, by_rank),
    case("multi_transform", {"wide": DOUBLE, "flat": call("identity")}, param_labels=by_rank),
    case(
        "multi_transform",
        {"wide": TRACE, "flat": call("clip", 0.5)},
        by_rank,
        mask_compatible_extra_args=True,
    ),
    case("with_extra_args_support", ADAM),
    case("with_extra_args_support", call("chain", TRACE, DOUBLE)),
    case("with_extra_args_support", call("clip", 0.5)),
]

FAMILY = Family(names, [*STATELESS, *STATEFUL, *COMBINED], partial(descend, factor=-0.05))
