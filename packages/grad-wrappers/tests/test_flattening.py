"""One vector for a whole tree: the numbers are those of leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grad_core import (
    MaskedNode,
    TreeMismatchError,
    add_decayed_weights,
    apply_updates,
    chain,
    clip_by_global_norm,
    trace,
)
from grad_wrappers import flatten

INNER = chain(clip_by_global_norm(0.5), add_decayed_weights(0.1), trace(0.9))


def tree(seed, dtype="float32", leaves=70):
    """More leaves than are cut from one group."""
    rng = np.random.default_rng(seed)
    shapes = [(), (3,), (2, 3), (0, 2), (4, 1, 2)]
    return {f"{i}": jnp.asarray(rng.normal(size=shapes[i % 5]), dtype) for i in range(leaves)}


def steps(tx, params, gradients, jit):
    update = jax.jit(tx.update) if jit else tx.update
    state = tx.init(params)
    for g in gradients:
        updates, state = update(g, state, params)
    return updates, state


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
@pytest.mark.parametrize("jit", [False, True])
def test_same_numbers(dtype, jit):
    params, gradients = tree(0, dtype), [tree(1, dtype), tree(2, dtype)]
    updates, state = steps(flatten(INNER), params, gradients, jit)
    expected, inner = steps(INNER, params, gradients, jit)
    tolerance = 0.02 if dtype == "bfloat16" else 1e-5
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
        assert a.dtype == b.dtype
    keys = sorted(params)
    vector = jnp.concatenate([inner[2].trace[k].ravel() for k in keys])
    np.testing.assert_allclose(state[2].trace, vector, rtol=tolerance, atol=tolerance)


def test_mixed_dtypes_meet_in_the_widest():
    params = {"a": jnp.ones(2, "bfloat16"), "b": jnp.ones((), "float32"), "c": 1.0}
    tx = flatten(trace(0.9))
    state = tx.init(params)
    assert state.trace.dtype == jnp.float32
    updates, _ = tx.update(params, state)
    assert updates["a"].dtype == jnp.bfloat16
    assert updates["b"].dtype == jnp.float32
    mixed = {"a": jnp.ones(2), "b": jnp.array(1j)}
    updates, _ = tx.update(mixed, tx.init(mixed))
    assert updates["a"].dtype == jnp.float32
    np.testing.assert_array_equal(updates["b"], 1j)


def test_leaves_without_updates_are_zeros_inside():
    params = {"a": jnp.array([3.0]), "b": jnp.array([2.0]), "c": None}
    tx = flatten(chain(clip_by_global_norm(1.0), add_decayed_weights(0.1)))
    for nothing in (None, MaskedNode(), np.zeros(1, jax.dtypes.float0)):
        gradients = {"a": jnp.array([5.0]), "b": nothing, "c": None}
        updates, _ = tx.update(gradients, tx.init(params), params)
        np.testing.assert_allclose(updates["a"], [1.3], rtol=1e-6)
        assert apply_updates(params, updates)["b"] == 2


def test_trees_must_agree():
    params = {"a": jnp.ones(2), "b": jnp.ones((2, 1))}
    tx = flatten(add_decayed_weights(0.1))
    with pytest.raises(TreeMismatchError, match=r"flatten: updates\['b'\] has shape \(1, 2\)"):
        tx.update({**params, "b": jnp.ones((1, 2))}, tx.init(params), params)
    with pytest.raises(TreeMismatchError, match=r"\['b'\]"):
        tx.update({"a": jnp.ones(2)}, tx.init(params), params)
    assert flatten(trace(0.9)).init({}).trace.shape == (0,)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("jit", [False, True])
def test_meshes_of_both_kinds(kind, jit):
    """Leaves come back as they were sharded; the vector is gathered where axes are explicit."""
    size = 2 if jax.device_count() >= 2 else 1
    mesh = jax.make_mesh((size,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        specs = {"rows": ("x", None), "columns": (None, "x"), "none": ()}
        place = {k: NamedSharding(mesh, PartitionSpec(*spec)) for k, spec in specs.items()}
        values = {k: jnp.arange(16.0).reshape(4, 4) for k in specs}
        params = jax.device_put(values, place)
        updates, _ = steps(flatten(INNER), params, [params] * 2, jit)
        for k, u in updates.items():
            assert kind is AxisType.Auto or u.sharding.is_equivalent_to(place[k], 2)
        expected, _ = steps(INNER, values, [values] * 2, jit)
    for k, u in updates.items():
        np.testing.assert_allclose(u, expected[k], rtol=1e-5)
