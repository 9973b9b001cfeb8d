"""Frozen leaves stay, hold no state and are in no norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MaskedNode, chain, clip_by_global_norm, scale, trace
from grad_wrappers import freeze, selective_transform

PARAMS = {"head": jnp.array([3.0, 4.0]), "body": {"w": jnp.full(2000, 5.0), "b": jnp.ones(3)}}
MASKS = {
    "a tree": {"head": False, "body": {"w": True, "b": True}},
    "a prefix": {"head": False, "body": True},
    "a function": lambda params: {"head": False, "body": True},
    "a pattern": "body/.*",
}
EACH = pytest.mark.parametrize("kind", MASKS)


@EACH
@pytest.mark.parametrize("jit", [False, True])
def test_freeze_sets_to_zero(kind, jit):
    tx = freeze(MASKS[kind])
    update = jax.jit(tx.update) if jit else tx.update
    updates, _ = update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"], PARAMS["head"])
    assert not any(x.any() for x in jax.tree.leaves(updates["body"]))


@EACH
@pytest.mark.parametrize("jit", [False, True])
def test_selective_transform_costs_nothing_for_frozen_leaves(kind, jit):
    """No state, and a norm of the others alone: clipped to 1, (3, 4) becomes (0.6, 0.8)."""
    tx = selective_transform(chain(clip_by_global_norm(1.0), trace(0.9)), freeze_mask=MASKS[kind])
    state = tx.init(PARAMS)
    assert sum(x.size for x in jax.tree.leaves(state)) == 2
    update = jax.jit(tx.update) if jit else tx.update
    updates, state = update(PARAMS, state, PARAMS)
    np.testing.assert_allclose(updates["head"], [0.6, 0.8], rtol=1e-6)
    assert not any(x.any() for x in jax.tree.leaves(updates["body"]))
    assert list(state.inner_states) == ["freeze", "train"] or jit is False
    trained = state.inner_states["train"].inner_state[1].trace
    assert trained["body"] in (MaskedNode(), {"w": MaskedNode(), "b": MaskedNode()})


@pytest.mark.parametrize("all_or_none", [True, False])
def test_a_bool_stands_for_the_whole_tree(all_or_none):
    tx = selective_transform(scale(2.0), freeze_mask=all_or_none)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    np.testing.assert_array_equal(updates["head"], 0 if all_or_none else 2 * PARAMS["head"])


@pytest.mark.parametrize("make", [freeze, lambda m: selective_transform(scale(1.0), freeze_mask=m)])
def test_masks_that_do_not_fit_are_named(make):
    with pytest.raises(ValueError, match=r"params\['head'\] has no entry"):
        make({"body": True}).init(PARAMS)
