"""`masked`: some leaves are transformed, the others pass."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import (
    EmaState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafTypeError,
    MaskedNode,
    MaskedState,
    NotATransformationError,
    TraceState,
    TreeMismatchError,
    add_decayed_weights,
    chain,
    clip_by_global_norm,
    ema,
    masked,
    scale,
    trace,
)

PARAMS = {
    "enc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": [jnp.ones(3), jnp.ones(())],
}
ALL = jax.tree.map(lambda p: True, PARAMS)


def step(tx, params=PARAMS, updates=None, **extra_args):
    updates = params if updates is None else updates
    return tx.update(updates, tx.init(params), params, **extra_args)


def firsts(tree):
    return jax.tree.map(lambda x: float(jnp.ravel(x)[0]), tree)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (True, {"enc": {"kernel": 5.0, "bias": 5.0}, "head": [5.0, 5.0]}),
        (False, {"enc": {"kernel": 1.0, "bias": 1.0}, "head": [1.0, 1.0]}),
        ({"enc": True, "head": False}, {"enc": {"kernel": 5.0, "bias": 5.0}, "head": [1.0, 1.0]}),
        (
            {"enc": {"kernel": np.bool_(True), "bias": 0}, "head": [jnp.array(False), 1]},
            {"enc": {"kernel": 5.0, "bias": 1.0}, "head": [1.0, 5.0]},
        ),
        (r".*kernel", {"enc": {"kernel": 5.0, "bias": 1.0}, "head": [1.0, 1.0]}),
        (r"head/\d", {"enc": {"kernel": 1.0, "bias": 1.0}, "head": [5.0, 5.0]}),
        (r"kernel", {"enc": {"kernel": 1.0, "bias": 1.0}, "head": [1.0, 1.0]}),
        (r"enc/.*|head/1", {"enc": {"kernel": 5.0, "bias": 5.0}, "head": [1.0, 5.0]}),
        (
            lambda tree: jax.tree.map(lambda x: x.ndim > 1, tree),
            {"enc": {"kernel": 5.0, "bias": 1.0}, "head": [1.0, 1.0]},
        ),
        (
            lambda tree: {"enc": False, "head": True},
            {"enc": {"kernel": 1.0, "bias": 1.0}, "head": [5.0, 5.0]},
        ),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_masked_in_are_scaled_and_the_others_pass(mask, expected, compiled):
    tx = masked(scale(5.0), mask)
    run = jax.jit(lambda: step(tx)) if compiled else lambda: step(tx)
    updates, state = run()
    assert firsts(updates) == expected
    assert type(state) is MaskedState


def test_the_state_has_one_masked_node_for_a_subtree():
    tx = masked(ema(0.5), {"enc": False, "head": True})
    for state in (tx.init(PARAMS), step(tx)[1]):
        assert type(state.inner_state) is EmaState
        assert state.inner_state.ema["enc"] == MaskedNode()
        assert [x.shape for x in state.inner_state.ema["head"]] == [(3,), ()]


def test_norms_leave_out_what_is_masked():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1000.0])}
    updates, _ = step(masked(clip_by_global_norm(1.0), {"a": True, "b": False}), params)
    np.testing.assert_allclose(updates["a"], [0.6, 0.8], rtol=1e-6)
    assert float(updates["b"][0]) == 1000.0


def test_functions_see_params_in_init_and_updates_in_update():
    seen = []

    def mask(tree):
        seen.append(float(tree["head"][1]))
        return {"enc": False, "head": True}

    tx = chain(scale(7.0), masked(scale(1.0), mask))
    step(tx, PARAMS)
    assert seen == [1.0, 7.0]


def test_masked_in_masked():
    inner = masked(trace(0.5), {"enc": {"kernel": True, "bias": False}, "head": True})
    tx = masked(inner, {"enc": True, "head": False})
    updates, state = step(tx)
    found = state.inner_state.inner_state.trace
    assert type(state.inner_state) is MaskedState
    assert found["head"] == MaskedNode()
    assert found["enc"]["bias"] == MaskedNode()
    assert found["enc"]["kernel"].shape == (2, 2)
    assert jax.tree.structure(updates) == jax.tree.structure(PARAMS)
    by_pattern = masked(masked(trace(0.5), r".*kernel|head/.*"), r"enc/.*")
    assert jax.tree.structure(by_pattern.init(PARAMS).inner_state.inner_state.trace["enc"]) == (
        jax.tree.structure({"kernel": 1, "bias": MaskedNode()})
    )


def test_integer_leaves_pass_when_masked_out():
    params = {"w": jnp.ones(2), "n": jnp.arange(3)}
    updates, _ = step(masked(trace(0.5), {"w": True, "n": False}), params)
    np.testing.assert_array_equal(updates["n"], [0, 1, 2])
    with pytest.raises(LeafTypeError, match=r"masked|trace: params\['n'\] is int32"):
        masked(trace(0.5), True).init(params)


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        ({"enc": True}, "params['head'][0] has no entry in mask"),
        ({"enc": True, "head": True, "tail": True}, "mask['tail'] is not in params"),
        ({"enc": {"kernel": True}, "head": True}, "params['enc']['bias'] has no entry in mask"),
        ({"enc": True, "head": [True]}, "params['head'][1] has no entry in mask"),
        ({"enc": True, "head": (True, True)}, "their containers differ"),
        ([True, True], "params['enc']['bias'] has no entry in mask"),
    ],
)
def test_a_mask_of_the_wrong_structure_is_named(mask, named):
    text = "trace: mask must have the structure of params, or of its upper part, but "
    for given in (mask, lambda tree: mask):
        with pytest.raises(TreeMismatchError, match=re.escape(named)) as error:
            masked(trace(0.5), given).init(PARAMS)
        assert "mask must have the structure of params, or of its upper part, but " in str(
            error.value
        )
        assert str(error.value).startswith("masked: ") or str(error.value).startswith(text)
    with pytest.raises(ValueError, match="mask must have the structure of updates"):
        masked(scale(0.5), mask).update(PARAMS, MaskedState(None))


@pytest.mark.parametrize("bad", ["yes", 0.5, np.array([True, False]), object()])
def test_what_is_no_mask_is_refused(bad):
    with pytest.raises(
        TypeError, match=r"^masked: a mask must hold True or False, known before tracing"
    ):
        masked(scale(1.0), {"enc": bad, "head": True}).init(PARAMS)


def test_a_traced_mask_is_refused():
    def f(x):
        tx = masked(scale(1.0), {"enc": x > 0, "head": True})
        return step(tx)[0]

    with pytest.raises(LeafTypeError, match="known before tracing"):
        jax.jit(f)(1.0)
    tx = masked(scale(1.0), lambda tree: jax.tree.map(lambda x: x.sum() > 0, tree))
    step(tx)  # concrete values may decide
    with pytest.raises(LeafTypeError, match="known before tracing"):
        jax.jit(tx.update)(PARAMS, tx.init(PARAMS))


def test_what_is_no_transformation_is_refused():
    with pytest.raises(NotATransformationError, match="masked: inner must be a gradient"):
        masked(3, True)


def test_missing_params_name_what_needs_them():
    tx = masked(add_decayed_weights(0.1), ".*")
    with pytest.raises(
        ValueError, match=r"^add_decayed_weights: update\(\) needs the current value"
    ):
        tx.update(PARAMS, tx.init(PARAMS))


def taking_tree():
    def update(updates, state, params=None, *, tree, **extra_args):
        return tree, {"params": params, "extra": extra_args}

    return GradientTransformationExtraArgs(lambda params: {}, update)


def test_extra_arguments_pass_whole_or_masked():
    mask = {"enc": {"kernel": True, "bias": False}, "head": False}
    other = {"x": jnp.ones(2)}
    tx = masked(taking_tree(), mask, mask_compatible_extra_args=True)
    updates, state = step(tx, tree=jax.tree.map(lambda p: 2 * p, PARAMS), other=other)
    assert firsts(updates) == {"enc": {"kernel": 2.0, "bias": 1.0}, "head": [1.0, 1.0]}
    assert state.inner_state["params"]["head"] == MaskedNode()
    assert state.inner_state["extra"]["other"] is other
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append(extra_args["tree"])
        return updates, state

    whole = masked(GradientTransformationExtraArgs(lambda params: (), update), mask)
    step(whole, tree=PARAMS)
    assert seen[0] is PARAMS


def test_a_function_of_the_parameters_becomes_one_of_their_part():
    mask = {"enc": {"kernel": True, "bias": False}, "head": False}
    calls = []

    def value_fn(params, *, weight=1.0):
        calls.append(params)
        return weight * sum(jnp.sum(p) for p in jax.tree.leaves(params))

    def update(updates, state, params=None, *, value_fn, **extra_args):
        return jax.tree.map(
            lambda u: value_fn(jax.tree.map(jnp.zeros_like, params), weight=2.0) * u, updates
        ), state

    tx = masked(
        GradientTransformationExtraArgs(lambda params: (), update),
        mask,
        mask_compatible_extra_args=True,
    )
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value_fn=value_fn)
    assert jax.tree.structure(calls[0]) == jax.tree.structure(PARAMS)
    assert (calls[0]["enc"]["kernel"] == 0).all()
    assert calls[0]["head"] is not None
    others = value_fn(PARAMS) - jnp.sum(PARAMS["enc"]["kernel"])
    expected = 2 * others * PARAMS["enc"]["kernel"]
    assert jnp.allclose(updates["enc"]["kernel"], expected)


@pytest.mark.parametrize("mask", [".*", True, ALL, lambda t: jax.tree.map(lambda x: True, t)])
def test_updates_that_are_none_pass(mask):
    updates = {"enc": {"kernel": None, "bias": jnp.ones(2)}, "head": [jnp.ones(3), None]}
    tx = masked(chain(trace(0.5), add_decayed_weights(0.1)), mask)
    found, state = step(tx, PARAMS, updates)
    assert found["enc"]["kernel"] is None
    np.testing.assert_allclose(found["enc"]["bias"], 1.1, rtol=1e-6)
    assert type(state.inner_state[0]) is TraceState
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(PARAMS))


@pytest.mark.parametrize("mask", [".*kernel", lambda t: jax.tree.map(lambda x: jnp.ndim(x) > 1, t)])
def test_parameters_of_updates_that_are_none_stay(mask):
    """What is inside sees the parameters that it saw first, at each update."""
    seen = []

    def update(updates, state, params):
        seen.append(params)
        return updates, state

    tx = masked(GradientTransformation(lambda params: seen.append(params), update), mask)
    for kernel in (None, MaskedNode()):
        seen.clear()
        updates = {"enc": {"kernel": kernel, "bias": jnp.ones(2)}, "head": [None, jnp.ones(())]}
        found, _ = step(tx, PARAMS, updates)
        assert jax.tree.structure(found) == jax.tree.structure(updates)
        assert jax.tree.structure(seen[1]) == jax.tree.structure(seen[0])
    subtree = {"enc": None, "head": [jnp.ones(3), None]}
    assert step(tx, PARAMS, subtree)[0]["enc"] is None
