"""`partition`: each leaf goes to the transformation of its label."""

import enum
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import (
    EmaState,
    EmptyState,
    GradientTransformation,
    LeafTypeError,
    MaskedNode,
    MaskedState,
    NotATransformationError,
    PartitionState,
    TraceState,
    TreeMismatchError,
    add_decayed_weights,
    chain,
    clip_by_global_norm,
    ema,
    identity,
    partition,
    scale,
    scale_by_schedule,
    set_to_zero,
    trace,
)

PARAMS = {
    "enc": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "head": [jnp.ones(3), jnp.ones(())],
}


def step(tx, params=PARAMS, updates=None, **extra_args):
    updates = params if updates is None else updates
    return tx.update(updates, tx.init(params), params, **extra_args)


def firsts(tree):
    return jax.tree.map(lambda x: float(jnp.ravel(x)[0]), tree)


def by_rank(tree):
    return jax.tree.map(lambda x: "matrix" if x.ndim == 2 else "rest", tree)


@pytest.mark.parametrize(
    ("transforms", "labels", "expected"),
    [
        (
            {"x": scale(2.0), "y": scale(3.0)},
            {"enc": "x", "head": "y"},
            {"enc": {"kernel": 2.0, "bias": 2.0}, "head": [3.0, 3.0]},
        ),
        (
            {"x": scale(2.0), "y": scale(3.0), "unused": scale(9.0)},
            {"enc": {"kernel": "y", "bias": "x"}, "head": ["x", "y"]},
            {"enc": {"kernel": 3.0, "bias": 2.0}, "head": [2.0, 3.0]},
        ),
        ({"x": scale(2.0)}, "x", {"enc": {"kernel": 2.0, "bias": 2.0}, "head": [2.0, 2.0]}),
        (
            {0: scale(2.0), 1: set_to_zero()},
            {"enc": 0, "head": 1},
            {"enc": {"kernel": 2.0, "bias": 2.0}, "head": [0.0, 0.0]},
        ),
        (
            {"matrix": scale(2.0), "rest": scale(3.0)},
            by_rank,
            {"enc": {"kernel": 2.0, "bias": 3.0}, "head": [3.0, 3.0]},
        ),
        (
            {r".*kernel": scale(2.0), r"head/\d|.*bias": scale(3.0)},
            None,
            {"enc": {"kernel": 2.0, "bias": 3.0}, "head": [3.0, 3.0]},
        ),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_each_leaf_goes_to_its_transformation(transforms, labels, expected, compiled):
    tx = partition(transforms, labels)
    updates, state = jax.jit(lambda: step(tx))() if compiled else step(tx)
    assert firsts(updates) == expected
    assert type(state) is PartitionState
    assert set(state.inner_states) == set(transforms)


def test_the_state_is_that_of_masked_transformations():
    tx = partition({"x": ema(0.5), "y": trace(0.5)}, {"enc": "x", "head": ["x", "y"]})
    for state in (tx.init(PARAMS), step(tx)[1]):
        assert {type(s) for s in state.inner_states.values()} == {MaskedState}
        x, y = (state.inner_states[k].inner_state for k in "xy")
        assert type(x) is EmaState
        assert type(y) is TraceState
        assert x.ema["head"][1] == MaskedNode()
        assert y.trace["enc"] == MaskedNode()
        assert y.trace["head"][0] == MaskedNode()


def test_multi_transform_is_partition():
    assert grad_core.multi_transform is partition
    assert grad_core.MultiTransformState is PartitionState


def test_norms_leave_the_others_out():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([1000.0])}
    updates, _ = step(partition({"a": clip_by_global_norm(1.0), "b": identity()}), params)
    np.testing.assert_allclose(updates["a"], [0.6, 0.8], rtol=1e-6)
    assert float(updates["b"][0]) == 1000.0


def test_frozen_leaves_may_be_integers():
    params = {"w": jnp.ones(2), "table": jnp.arange(3), "flag": jnp.array(True)}
    tx = partition({"train": trace(0.5), "freeze": set_to_zero()},
                   {"w": "train", "table": "freeze", "flag": "freeze"})  # fmt: skip
    updates, _ = step(tx, params)
    assert updates["table"].dtype == params["table"].dtype
    np.testing.assert_array_equal(updates["table"], 0)
    assert (updates["w"] == 1).all()
    with pytest.raises(LeafTypeError, match=r"^trace: params\['(table|flag)'\] is (int32|bool)"):
        partition({"train": trace(0.5)}, "train").init(params)


@pytest.mark.parametrize("given", ["tree", "function"])
def test_an_unknown_label_is_named_with_the_known_ones(given):
    labels = {"enc": "x", "head": ["y", "z"]}
    tx = partition(
        {"x": scale(1.0), "y": scale(2.0)}, labels if given == "tree" else lambda tree: labels
    )
    text = (
        "partition: param_labels['head'][1] is 'z', but there are "
        "transformations only for 'x', 'y'."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        tx.init(PARAMS)
    with pytest.raises(TreeMismatchError, match=re.escape(text)):
        tx.update(PARAMS, PartitionState({}))


def test_an_unmatched_path_is_named():
    tx = partition({r"enc/.*": scale(1.0), r"head/0": scale(1.0)})
    text = (
        "partition: the path 'head/1' matches no pattern; each path must match exactly one of "
        "'enc/.*', 'head/0'."
    )
    with pytest.raises(TreeMismatchError, match=f"^{re.escape(text)}"):
        tx.init(PARAMS)


def test_a_doubly_matched_path_is_named():
    tx = partition({r"enc/.*": scale(1.0), r".*": scale(1.0)})
    text = "the path 'enc/bias' matches 'enc/.*' and '.*'; each path must match exactly one of"
    with pytest.raises(ValueError, match=re.escape(text)):
        tx.init(PARAMS)


def test_patterns_match_whole_paths():
    with pytest.raises(TreeMismatchError, match="the path 'enc/bias' matches no pattern"):
        partition({"enc": scale(1.0), "head/.*": scale(1.0)}).init(PARAMS)


def test_keys_that_are_no_patterns_need_labels():
    # Either refused, or matched by their text; never ignored.
    try:
        updates, _ = step(partition({0: scale(2.0)}), [jnp.ones(2)])
    except (TypeError, ValueError) as error:
        assert "0" in str(error)  # noqa: PT017
    else:
        assert firsts(updates) == [2.0]


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"enc": "x"}, "params['head'][0] has no entry in param_labels"),
        ({"enc": "x", "head": "x", "tail": "x"}, "param_labels['tail'] is not in params"),
        ({"enc": "x", "head": ("x", "x")}, "their containers differ"),
    ],
)
def test_labels_of_the_wrong_structure_are_named(labels, named):
    for given in (labels, lambda tree: labels):
        with pytest.raises(TreeMismatchError, match=re.escape(named)) as error:
            partition({"x": scale(1.0)}, given).init(PARAMS)
        assert str(error.value).startswith(
            "partition: param_labels must have the structure of params"
        )


def test_what_is_no_transformation_is_refused():
    with pytest.raises(NotATransformationError, match="partition takes gradient transformations"):
        partition({"x": 3}, "x")


def test_functions_see_params_in_init_and_updates_in_update():
    seen = []

    def labels(tree):
        seen.append(float(tree["head"][1]))
        return by_rank(tree)

    step(chain(scale(7.0), partition({"matrix": scale(1.0), "rest": identity()}, labels)))
    assert seen == [1.0, 7.0]


def test_schedules_and_weight_decay_inside():
    tx = partition(
        {
            "matrix": chain(add_decayed_weights(1.0), scale_by_schedule(lambda count: 10.0**count)),
            "rest": trace(1.0),
        },
        by_rank,
    )
    state = tx.init(PARAMS)
    for expected in (2.0, 20.0, 200.0):
        updates, state = tx.update(PARAMS, state, PARAMS)
        assert firsts(updates)["enc"]["kernel"] == expected
    assert firsts(updates)["head"] == [3.0, 3.0]
    with pytest.raises(ValueError, match=r"add_decayed_weights: .* needs the current value"):
        tx.update(PARAMS, state)


def test_extra_arguments_pass_whole_or_masked():
    seen = {}

    def noting(label):
        def update(updates, state, params=None, **extra_args):
            seen[label] = extra_args
            return updates, state

        return grad_core.GradientTransformationExtraArgs(lambda params: EmptyState(), update)

    transforms = {"matrix": noting("matrix"), "rest": noting("rest")}
    step(partition(transforms, by_rank), tree=PARAMS, value=1.0)
    assert seen["matrix"] == seen["rest"] == {"tree": PARAMS, "value": 1.0}
    tx = partition(transforms, by_rank, mask_compatible_extra_args=True)
    step(tx, tree=PARAMS, value=1.0)
    assert seen["matrix"]["tree"]["head"] == [MaskedNode(), MaskedNode()]
    assert seen["rest"]["tree"]["enc"]["kernel"] == MaskedNode()
    assert seen["rest"]["value"] == 1.0


def test_none_updates_pass():
    updates = {"enc": {"kernel": None, "bias": jnp.ones(2)}, "head": [jnp.ones(3), None]}
    for labels in ({"enc": "x", "head": "y"}, None):
        keys = ("x", "y") if labels else (r"enc/.*", r"head/.*")
        tx = partition(
            {keys[0]: chain(trace(0.5), add_decayed_weights(1.0)), keys[1]: scale(2.0)}, labels
        )
        found, _ = step(tx, PARAMS, updates)
        assert found["enc"]["kernel"] is None
        assert found["head"][1] is None
        assert (found["enc"]["bias"] == 2).all()


@pytest.mark.parametrize("labels", [None, lambda tree: jax.tree.map(lambda x: r"enc/.*", tree)])
def test_parameters_of_updates_that_are_none_stay(labels):
    """What is inside sees the parameters that it saw first, at each update."""
    seen = []

    def update(updates, state, params):
        seen.append(params)
        return updates, state

    spy = GradientTransformation(lambda params: seen.append(params), update)
    tx = partition({r"enc/.*": spy, r"head/.*": scale(2.0)}, labels)
    updates = {"enc": {"kernel": None, "bias": jnp.ones(2)}, "head": [jnp.ones(3), None]}
    found, _ = step(tx, PARAMS, updates)
    assert jax.tree.structure(found) == jax.tree.structure(updates)
    assert jax.tree.structure(seen[1]) == jax.tree.structure(seen[0])


def test_labels_need_not_be_sortable_outside_of_jit():
    class Kind(enum.Enum):
        A = 1
        B = 2

    tx = partition({Kind.A: scale(2.0), Kind.B: trace(0.5)}, {"enc": Kind.A, "head": Kind.B})
    updates, state = step(tx)
    assert firsts(updates) == {"enc": {"kernel": 2.0, "bias": 2.0}, "head": [1.0, 1.0]}
    assert set(state.inner_states) == set(Kind)
