"""Transformations without state, and adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

FLOAT0 = np.zeros(2, jax.dtypes.float0)
UPDATES = {"f": jnp.array([2.0]), "i": jnp.array([3]), "none": None, "masked": gc.MaskedNode()}


def test_identity_passes_everything():
    tx = gc.identity()
    u, state = tx.update(UPDATES, tx.init(UPDATES))
    assert state == gc.EmptyState()
    assert jax.tree.structure(u) == jax.tree.structure(UPDATES)
    assert u["f"].tolist() == [2.0]
    assert (u["i"].dtype, u["i"].tolist()) == (UPDATES["i"].dtype, [3])


def test_set_to_zero_keeps_shapes_and_dtypes():
    tx = gc.set_to_zero()
    u, _ = tx.update({**UPDATES, "float0": FLOAT0}, tx.init(UPDATES))
    assert u["float0"].dtype == jax.dtypes.float0
    assert (u["f"].dtype, u["f"].tolist()) == (jnp.float32, [0.0])
    assert (u["i"].dtype, u["i"].tolist()) == (UPDATES["i"].dtype, [0])
    assert u["none"] is None
    assert u["masked"] == gc.MaskedNode()


def test_set_to_zero_stops_nan():
    tx = gc.set_to_zero()
    assert tx.update(jnp.array([jnp.nan, jnp.inf]), tx.init(None))[0].tolist() == [0.0, 0.0]


def test_stateless_hands_on_updates_and_parameters():
    tx = gc.stateless(lambda g, p: jax.tree.map(lambda g, p: g + 0.5 * p, g, p))
    p = {"w": jnp.array([4.0])}
    u, state = tx.update({"w": jnp.array([1.0])}, tx.init(p), p)
    assert u["w"].tolist() == [3.0]
    assert state == gc.EmptyState()


def test_stateless_without_parameters():
    tx = gc.stateless(lambda g, p: (g, p))
    assert tx.update(1.0, tx.init(None))[0] == (1.0, None)


def test_stateless_functions_see_concrete_values():
    seen = []
    tx = gc.stateless(lambda g, p: seen.append(float(g)) or g)
    chained = gc.chain(gc.scale(2.0), tx, gc.scale(2.0))
    chained.update(jnp.array(3.0), chained.init(jnp.array(0.0)))
    assert seen == [6.0]


def test_stateless_with_tree_map():
    tx = gc.stateless_with_tree_map(lambda g, p: g if p is None else g * p)
    g = {"a": jnp.array([2.0]), "b": [jnp.array([3.0])]}
    u, _ = tx.update(g, tx.init(g), g)
    assert (u["a"].tolist(), u["b"][0].tolist()) == ([4.0], [9.0])
    u, _ = tx.update(g, tx.init(g))
    assert (u["a"].tolist(), u["b"][0].tolist()) == ([2.0], [3.0])


def test_extra_arguments_are_ignored_where_they_are_not_taken():
    plain = gc.GradientTransformation(lambda p: 5, lambda g, s, params=None: (g, s + 1))
    tx = gc.with_extra_args_support(plain)
    assert isinstance(tx, gc.GradientTransformationExtraArgs)
    assert tx.update(1.0, tx.init(None), None, value=3.0) == (1.0, 6)


def test_extra_arguments_are_passed_where_they_are_taken():
    tx = gc.GradientTransformationExtraArgs(
        lambda p: (), lambda g, s, params=None, *, value: (g * value, s)
    )
    assert gc.with_extra_args_support(tx).update(2.0, (), None, value=3.0) == (6.0, ())


@pytest.mark.parametrize("factory", [gc.identity, gc.set_to_zero])
def test_values(factory):
    assert factory() == factory()
    assert hash(factory()) == hash(factory())
    assert repr(factory()) == f"{factory.__name__}()"


def test_init_empty_state():
    assert gc.init_empty_state({"a": 1}) == gc.EmptyState()
