"""Grouping small leaves changes nothing but the state's layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import grad_core as gc
from grad_core import TreeMismatchError
from grad_wrappers import MultiSteps, flatten, grouped, master_weights

RNG = np.random.default_rng(0)


def leaf(*shape, dtype="float32"):
    return jnp.asarray(RNG.normal(size=shape), dtype)


PARAMS = {
    "layers": [{"w": leaf(2, 3), "b": leaf(3), "s": leaf()} for _ in range(9)],
    "head": {"w": leaf(2, 3), "b": leaf(5)},
    "large": leaf(40, 50),
    "none": None,
}
HALVES = jax.tree.map(lambda p: p.astype("bfloat16"), PARAMS)


def steps(tx, params, grads, count=3):
    """The parameters after some steps, compiled, and the last state."""
    init, update = jax.jit(tx.init), jax.jit(tx.update)
    state = init(params)
    for k in range(count):
        updates, state = update(jax.tree.map(lambda g, k=k: (1 + k) * g, grads), state, params)
        params = gc.apply_updates(params, updates)
    return params, state


def assert_close(got, want, rtol=1e-6):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=rtol, atol=1e-7)


TRANSFORMATIONS = {
    "statistics": gc.chain(gc.trace(0.9), gc.scale(-0.1)),
    "global norm": gc.chain(gc.clip_by_global_norm(0.5), gc.trace(0.9), gc.scale(-0.1)),
    "norms of leaves": gc.chain(gc.clip_by_block_rms(0.1), gc.scale_by_param_block_rms()),
    "parameters": gc.chain(gc.trace(0.9), gc.add_decayed_weights(0.1), gc.scale(-0.1)),
    "masked": gc.chain(gc.trace(0.9), gc.masked(gc.scale_by_trust_ratio(), r".*w"), gc.scale(-0.1)),
    "masked by a function": gc.chain(
        gc.masked(gc.trace(0.5), lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree)),
        gc.scale(-0.1),
    ),
    "parts": gc.partition({r".*w": gc.trace(0.9), r".*b|.*s|large": gc.scale(-0.1)}),
    "scheduled": gc.chain(gc.trace(0.9), gc.scale_by_schedule(lambda t: -0.1 / (1 + t))),
    "wrapped": MultiSteps(gc.chain(gc.trace(0.9), gc.scale(-0.1)), 2),
    "the tree as a whole": flatten(gc.trace(0.9)),
    "the user's": gc.GradientTransformation(
        lambda params: (),
        lambda updates, state, params=None: (jax.tree.map(lambda u: -u, updates), state),
    ),
}


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_numbers_are_the_same(name):
    tx = TRANSFORMATIONS[name]
    grads = jax.tree.map(jnp.sin, PARAMS)
    want, _ = steps(tx, PARAMS, grads)
    got, _ = steps(grouped(tx), PARAMS, grads)
    assert_close(got, want)


def test_numbers_are_the_same_outside_jit():
    tx = TRANSFORMATIONS["global norm"]
    state = grouped(tx).init(PARAMS)
    updates, _ = grouped(tx).update(PARAMS, state, PARAMS)
    assert_close(updates, tx.update(PARAMS, tx.init(PARAMS), PARAMS)[0])


def test_the_state_holds_stacks():
    state = grouped(gc.trace(0.9)).init(PARAMS)
    shapes = {name: stack.shape for name, stack in state.trace.items()}
    assert shapes == {
        "10 x float32[2,3]": (10, 2, 3),
        "9 x float32[3]": (9, 3),
        "9 x float32[]": (9,),
        "head/b": (5,),
        "large": (40, 50),
    }
    state = grouped(gc.trace(0.9), max_size=5).init(PARAMS)
    assert "head/w" in state.trace
    assert "9 x float32[3]" in state.trace


def test_the_state_inside_wrappers_and_masks_too():
    tx = grouped(MultiSteps(gc.masked(gc.trace(0.9), r".*w"), 2))
    state = tx.init(PARAMS)
    assert [*state.inner_opt_state.inner_state.trace] == ["10 x float32[2,3]"]
    assert state.acc_grads["head"]["b"].shape == (5,)


def test_only_equal_dtypes_go_together():
    params = {"a": leaf(3), "b": leaf(3), "c": leaf(3, dtype="bfloat16"), "d": leaf(3)}
    state = grouped(gc.trace(0.9)).init(params)
    assert {k: v.dtype.name for k, v in state.trace.items()} == {
        "3 x float32[3]": "float32",
        "c": "bfloat16",
    }


@pytest.mark.parametrize("absent", [None, "float0"])
def test_leaves_without_updates_keep_their_statistics(absent):
    hole = np.zeros((2, 3), jax.dtypes.float0) if absent else None
    grads = jax.tree.map(jnp.sin, PARAMS)
    tx = gc.chain(gc.trace(0.9), gc.add_decayed_weights(0.1), gc.scale(-0.1))
    holes = {**grads, "layers": [*grads["layers"][:4], {**grads["layers"][4], "w": hole}]}
    holes["layers"] += grads["layers"][5:]

    def run(tx):
        state = tx.init(PARAMS)
        for g in (grads, holes, grads):
            updates, state = tx.update(g, state, PARAMS)
            if g is holes:
                assert gc.structure.means_no_update(updates["layers"][4]["w"])
        return updates

    assert_close(run(grouped(tx)), run(tx))


def test_updates_of_another_dtype_than_the_parameters():
    grads = jax.tree.map(jnp.sin, PARAMS)
    tx = gc.chain(gc.trace(0.9, accumulator_dtype="float32"), gc.scale(-0.1))
    want, _ = steps(tx, HALVES, grads)
    got, _ = steps(grouped(tx), HALVES, grads)
    assert_close(got, want)
    mixed = {"a": leaf(3), "b": leaf(3, dtype="bfloat16")}
    updates, _ = grouped(gc.scale(2.0)).update(mixed, grouped(gc.scale(2.0)).init(mixed))
    assert [u.dtype.name for u in updates.values()] == ["float32", "bfloat16"]
    outer = master_weights(grouped(gc.chain(gc.trace(0.9), gc.scale(-0.1))))
    inner = master_weights(gc.chain(gc.trace(0.9), gc.scale(-0.1)))
    assert_close(steps(outer, HALVES, HALVES)[0], steps(inner, HALVES, HALVES)[0])


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 65, 130])
def test_stacks_of_every_length(count):
    params = [leaf(2) for _ in range(count)]
    tx = gc.chain(gc.trace(0.9), gc.scale(-1.0))
    assert_close(steps(grouped(tx), params, params, 2)[0], steps(tx, params, params, 2)[0])


def test_hyperparameters_may_be_mapped():
    params = [leaf(2) for _ in range(12)]

    def first_step(rate, tx=lambda rate: grouped(gc.scale(rate))):
        return tx(rate).update(params, tx(rate).init(params))[0]

    rates = jnp.array([0.1, 0.2])
    got = jax.vmap(first_step)(rates)
    assert_close(got, [rates[:, None] * p for p in params])


def test_its_cost_does_not_grow_with_the_leaves():
    """Equations, and functions that XLA compiles, of two hundred leaves."""
    params = [leaf(4, 4) for _ in range(200)]
    tx = gc.chain(gc.clip_by_global_norm(1.0), gc.trace(0.9), gc.scale(-0.1))
    state = grouped(tx).init(params)
    assert sorted(x.shape for x in jax.tree.leaves(state)) == [(200, 4, 4)]
    compiled = jax.jit(grouped(tx).update).lower(params, state).compile()
    text = compiled.as_text()
    slices = {
        line.split("slice={")[1].split("}")[0] for line in text.splitlines() if "slice={" in line
    }
    assert len(slices) <= 8 + 3  # those of one block, shared by all, and not one for each leaf


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_stacks_are_sharded_like_their_leaves(kind):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(kind,))
    rows = NamedSharding(mesh, PartitionSpec("x", None))
    with jax.set_mesh(mesh):
        params = [jax.device_put(leaf(8, 4), rows) for _ in range(10)]
        tx = gc.chain(gc.clip_by_global_norm(1.0), gc.trace(0.9))
        got, state = steps(grouped(tx), params, params)
        (stack,) = jax.tree.leaves(state)
        assert stack.sharding.is_equivalent_to(
            NamedSharding(mesh, PartitionSpec(None, "x", None)), 3
        )
        due = jax.tree.leaves(gc.state_sharding(grouped(tx), params))
        assert due[0].is_equivalent_to(stack.sharding, 3)
        want, _ = steps(tx, params, params)
        assert_close(jax.device_get(got), jax.device_get(want))


def test_it_is_a_value_and_nests():
    tx = grouped(gc.trace(0.5), max_size=100)
    assert repr(tx) == "grouped(inner=trace(decay=0.5), max_size=100)"
    assert tx == grouped(gc.trace(0.5), max_size=100)
    twice = grouped(gc.chain(gc.scale(2.0), tx))
    assert_close(
        steps(twice, PARAMS, PARAMS)[0],
        steps(gc.chain(gc.scale(2.0), gc.trace(0.5)), PARAMS, PARAMS)[0],
    )


def test_bad_input():
    with pytest.raises(ValueError, match=r"grouped: max_size must be at least 1; got 0"):
        grouped(gc.trace(0.9), max_size=0)
    with pytest.raises(TypeError, match=r"grouped.*max_size.*1.5"):
        grouped(gc.trace(0.9), max_size=1.5)
    with pytest.raises(gc.NotATransformationError, match=r"grouped.*got 3"):
        grouped(3)
    tx = grouped(gc.trace(0.9))
    with pytest.raises(TreeMismatchError, match=r"state.trace must hold the groups .*'head/b'"):
        tx.update(PARAMS, gc.trace(0.9).init(PARAMS))
    with pytest.raises(TreeMismatchError, match=r"Was init called with other parameters"):
        tx.update({"a": leaf(3)}, tx.init(PARAMS))
    with pytest.raises(TreeMismatchError, match=r"updates\['a'\] has shape \(3,\)"):
        grouped(gc.add_decayed_weights(0.1)).update({"a": leaf(3)}, gc.EmptyState(), {"a": leaf(2)})
