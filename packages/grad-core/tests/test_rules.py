"""Leaf rules and tree rules: precision, absent leaves, dtypes, errors by path."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import (
    Decay,
    EmptyState,
    LeafRule,
    LeafTypeError,
    MaskedNode,
    MissingArgumentError,
    Real,
    SharedNumber,
    TreeMismatchError,
    TreeRule,
    add_decayed_weights,
    apply_updates,
    chain,
    clip_by_global_norm,
    copy_of,
    ema,
    first_moment,
    global_norm,
    rule,
    scale,
    scale_by_learning_rate,
    second_moment,
    trace,
)


class MomentsState(NamedTuple):
    count: jax.Array
    mu: object
    nu: object


@rule
def moments(b: Decay = 0.5) -> LeafRule:
    """Two moments of which one is real."""

    def step(nu, g, p, mu, c):  # in any order
        mu = b * mu + (1 - b) * g
        nu = b * nu + (1 - b) * grad_core.abs_sq(g)
        return c * mu + 0 * p, mu, nu

    return LeafRule(
        step,
        MomentsState,
        once=lambda t: {"c": 1 / (1 - b**t)},
        mu=first_moment(),
        nu=second_moment(),
    )


@rule
def needs_value(factor: Real = 1.0) -> LeafRule:
    return LeafRule(lambda g, v: factor * v * g, once=lambda value: {"v": value})


@rule
def likes_value(factor: Real = 1.0) -> LeafRule:
    return LeafRule(lambda g, v: factor * v * g, once=lambda value=3.0: {"v": value})


PARAMS = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "b": jnp.ones(())}
GRADS = jax.tree.map(lambda p: 0.5 * p, PARAMS)


def step(tx, params=PARAMS, updates=GRADS, **extra_args):
    return tx.update(updates, tx.init(params), params, **extra_args)


def described(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


# Precision.


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_arithmetic_is_in_float32(dtype):
    seen = []

    @rule
    def noting(factor: Real = 1.0) -> LeafRule:
        def step(g, p):
            seen.extend([g.dtype, p.dtype])
            return (g + 1e-4) - 1.0  # lost in either half precision

        return LeafRule(step)

    ones = jnp.ones(3, dtype)
    updates, _ = step(noting(), ones, ones)
    assert set(seen) == {jnp.dtype(jnp.float32)}
    assert updates.dtype == dtype
    np.testing.assert_allclose(np.asarray(updates, float), 1e-4, rtol=1e-2)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("compiled", [False, True])
def test_chained_rules_round_as_if_run_one_by_one(dtype, compiled):
    g = jnp.asarray(np.random.RandomState(0).randn(501), dtype)
    parts = (scale(1.1), trace(0.9), scale(1 / 1.1))
    tx = chain(*parts)
    update = jax.jit(tx.update) if compiled else tx.update
    state, states = tx.init(g), [part.init(g) for part in parts]
    for _ in range(3):
        fused, state = update(g, state)
        expected = g
        for i, part in enumerate(parts):
            expected, states[i] = part.update(expected, states[i])
        np.testing.assert_array_equal(np.asarray(fused, float), np.asarray(expected, float))


@pytest.mark.parametrize(
    ("given", "nu"),
    [
        (jnp.float16, jnp.float32),
        (jnp.bfloat16, jnp.float32),
        (jnp.float32, jnp.float32),
        (jnp.float64, jnp.float64),
        (jnp.complex64, jnp.float32),
        (jnp.complex128, jnp.float64),
    ],
)
def test_dtypes_are_stable(given, nu):
    with jax.enable_x64(given in (jnp.float64, jnp.complex128)):
        params = {"w": jnp.ones(3, given)}
        tx = chain(moments(), trace(0.9), ema(0.9), scale(0.1), scale_by_learning_rate(0.1))
        state = tx.init(params)
        assert state[0].mu["w"].dtype == given
        assert state[0].nu["w"].dtype == nu
        first = described(state)
        for _ in range(3):
            updates, state = tx.update(params, state, params)
            assert described(state) == first
            assert described(updates) == described(params)


def test_float64_is_kept_to_its_last_digits():
    with jax.enable_x64(True):
        g = jnp.asarray([1 / 3, 1e-9], jnp.float64)
        updates, _ = step(chain(scale(0.1), moments(0.999)), g, g)
        np.testing.assert_allclose(updates, 0.1 * np.asarray(g), rtol=1e-14)


def test_float32_leaves_beside_float64_leaves():
    with jax.enable_x64(True):
        params = {"w": jnp.ones(2, jnp.float32), "v": jnp.ones(2, jnp.float64)}
        updates, _ = step(scale(0.1), params, params)
        assert updates["w"].dtype == jnp.float32
        assert updates["w"][0] == np.float32(0.1)
        assert updates["v"][0] == 0.1


def test_the_end_points_of_decays_are_finite():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            ones = jnp.ones(2, jnp.float32)
            for b in (0.0, 1.0):
                updates, state = step(moments(b), ones, ones)
                assert jnp.isfinite(updates).all()
                assert (state.mu == 1 - b).all()


def test_complex_leaves():
    g = jnp.array([3 + 4j, -1j])
    updates, state = step(moments(0.5), g, g)
    np.testing.assert_allclose(updates, g, rtol=1e-6)
    np.testing.assert_allclose(state.nu, [12.5, 0.5], rtol=1e-6)
    assert not jnp.iscomplexobj(state.nu)


@pytest.mark.parametrize("leaf", [2.0, np.float64(2.0), np.full((), 2.0), np.float32(2.0)])
def test_numbers_and_numpy_arrays_are_leaves(leaf):
    updates, _ = step(chain(moments(), scale(0.5)), {"w": leaf}, {"w": leaf})
    assert isinstance(updates["w"], jax.Array)
    assert (updates["w"].dtype, updates["w"].shape, updates["w"].weak_type) == (
        jnp.float32,
        (),
        False,
    )
    assert float(updates["w"]) == 1.0


def test_weak_types_do_not_spread():
    weak = jnp.asarray(1.0)
    assert weak.weak_type
    tx = chain(moments(), scale_by_learning_rate(0.1))
    state = tx.init({"w": weak})
    updates, after = tx.update({"w": weak}, state, {"w": weak})
    assert described(state) == described(after)
    assert not updates["w"].weak_type


@pytest.mark.parametrize("empty", [{}, [], (), {"a": {}, "b": [None]}])
def test_empty_trees(empty):
    tx = chain(clip_by_global_norm(1.0), moments(), scale(2.0))
    updates, state = step(tx, empty, empty)
    assert updates == empty
    assert int(state[1].count) == 1


# Absent leaves.


ABSENT = {
    "None": lambda: None,
    "MaskedNode": MaskedNode,
    "float0": lambda: np.zeros((2, 3), jax.dtypes.float0),
}


@pytest.mark.parametrize("kind", ABSENT)
@pytest.mark.parametrize("compiled", [False, True])
def test_absent_leaves_pass(kind, compiled):
    absent = ABSENT[kind]()
    tx = chain(scale(2.0), moments(), add_decayed_weights(0.1))
    state = tx.init(PARAMS)
    update = jax.jit(tx.update) if compiled else tx.update
    _, state = update(GRADS, state, PARAMS)
    grads = {"a": {"kernel": absent, "bias": GRADS["a"]["bias"]}, "b": GRADS["b"]}
    updates, after = update(grads, state, PARAMS)
    found = updates["a"]["kernel"]
    if kind == "float0":
        assert (found.dtype, found.shape) == (jax.dtypes.float0, (2, 3))
    else:
        assert found == absent
    for field in ("mu", "nu"):
        old, new = getattr(state[1], field), getattr(after[1], field)
        np.testing.assert_array_equal(old["a"]["kernel"], new["a"]["kernel"])
        assert (old["a"]["bias"] != new["a"]["bias"]).all()
    assert int(after[1].count) == 2
    assert (apply_updates(PARAMS, updates)["a"]["kernel"] == PARAMS["a"]["kernel"]).all()


@pytest.mark.parametrize("kind", ABSENT)
def test_norms_leave_absent_leaves_out(kind):
    grads = {"a": {"kernel": ABSENT[kind](), "bias": jnp.zeros(3)}, "b": jnp.full((), 2.0)}
    updates, _ = step(clip_by_global_norm(1.0), PARAMS, grads)
    assert float(updates["b"]) == pytest.approx(1.0)


def test_an_absent_subtree_passes():
    tx = chain(moments(), add_decayed_weights(0.1))
    state = tx.init(PARAMS)
    updates, after = tx.update({"a": None, "b": GRADS["b"]}, state, PARAMS)
    assert updates["a"] is None
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert (after[0].mu["a"]["kernel"] == 0).all()
    assert after[0].mu["b"] != 0


def test_params_without_a_leaf_keep_no_state_there():
    params = {"w": jnp.ones(2), "f": None, "m": MaskedNode()}
    updates, state = step(moments(), params, params)
    assert state.mu["f"] is None
    assert state.mu["m"] == MaskedNode()
    assert updates["f"] is None


# Errors by path.


def test_an_extra_leaf_is_named():
    with pytest.raises(
        TreeMismatchError, match=re.escape("updates['z'] has no counterpart in params")
    ):
        step(add_decayed_weights(0.1), PARAMS, {**GRADS, "z": jnp.ones(2)})
    with pytest.raises(
        ValueError, match=re.escape("ema: updates and state.ema must have the same structure, but ")
    ):
        step(ema(0.1), PARAMS, {**GRADS, "z": jnp.ones(2)})


def test_a_missing_leaf_is_named():
    grads = {"a": {"bias": jnp.ones(3)}, "b": jnp.ones(())}
    with pytest.raises(
        TreeMismatchError, match=re.escape("params['a']['kernel'] has no counterpart")
    ):
        step(add_decayed_weights(0.1), PARAMS, grads)


@pytest.mark.parametrize("shape", [(1,), (3, 1), (), (4,)])
def test_shapes_must_agree(shape):
    grads = {"a": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(shape)}, "b": jnp.ones(())}
    text = (
        f"add_decayed_weights: updates['a']['bias'] has shape {shape}, but "
        "params['a']['bias'] has shape (3,); they must be equal."
    )
    with pytest.raises(TreeMismatchError, match=re.escape(text)):
        step(add_decayed_weights(0.1), PARAMS, grads)


def test_a_subtree_where_a_leaf_should_be_is_named():
    with pytest.raises(
        TreeMismatchError, match=r"updates\['a'\] is an array, but its parameter is"
    ):
        step(add_decayed_weights(0.1), PARAMS, {"a": jnp.ones(2), "b": GRADS["b"]})
    with pytest.raises(
        TreeMismatchError,
        match=r"ema: updates\['a'\] has shape \(2,\), but state.ema\['a'\] has shape",
    ):
        step(ema(0.1), PARAMS, {"a": jnp.ones(2), "b": GRADS["b"]})
    with pytest.raises(
        TreeMismatchError, match=r"updates\['b'\]\['c'\] has no counterpart in params"
    ):
        step(add_decayed_weights(0.1), PARAMS, {"a": GRADS["a"], "b": {"c": jnp.ones(())}})


def test_an_update_for_an_absent_parameter_is_named():
    tx = ema(0.5)
    state = tx.init({"w": None})
    with pytest.raises(
        TreeMismatchError, match=r"state.ema\['w'\] is None \(NoneType\); was init called with"
    ):
        tx.update({"w": jnp.ones(2)}, state)


@pytest.mark.parametrize(
    ("leaf", "kind"), [(jnp.ones(2, jnp.int32), "int32"), (1, "int"), (np.ones(2, bool), "bool")]
)
def test_integer_leaves_are_refused(leaf, kind):
    text = rf"^ema: params\['a'\] is {kind}\d*, but only floating-point and complex arrays"
    with pytest.raises(LeafTypeError, match=text):
        ema(0.5).init({"a": leaf})
    text = rf"^scale: updates\['a'\] is {kind}\d*, .* leave it out with masked or partition"
    with pytest.raises(TypeError, match=text):
        scale(0.5).update({"a": leaf}, EmptyState())


def test_a_complex_update_of_a_real_parameter_is_refused():
    with pytest.raises(
        LeafTypeError, match=r"updates\['w'\] is complex, but its parameter is real"
    ):
        step(add_decayed_weights(0.1), {"w": jnp.ones(2)}, {"w": jnp.ones(2, jnp.complex64)})


def test_missing_params_name_the_transformation():
    tx = chain(scale(1.0), add_decayed_weights(0.1))
    with pytest.raises(
        MissingArgumentError,
        match=re.escape(
            "add_decayed_weights: update() needs the current value of the parameters: "
            "call update(updates, state, params)."
        ),
    ):
        tx.update(GRADS, tx.init(PARAMS))

    @grad_core.transformation
    def decaying(rate: Real) -> grad_core.GradientTransformation:
        return chain(scale(rate), add_decayed_weights(0.1))

    with pytest.raises(
        ValueError, match=r"^decaying \(in its add_decayed_weights\): update\(\) needs"
    ):
        decaying(1.0).update(GRADS, decaying(1.0).init(PARAMS))


def test_errors_are_the_same_under_jit():
    tx = add_decayed_weights(0.1)
    with pytest.raises(TreeMismatchError, match=r"updates\['z'\] has no counterpart"):
        jax.jit(tx.update)({**GRADS, "z": jnp.ones(2)}, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("learning_rate", [0.1, lambda count: 0.1])
def test_a_state_of_another_transformation_is_refused(learning_rate):
    tx = chain(ema(0.5), scale_by_learning_rate(learning_rate))
    for other in (scale(1.0), chain(), chain(scale(1.0), scale(1.0))):
        with pytest.raises(grad_core.TransformationError, match=r"(?i)state"):
            tx.update(GRADS, other.init(PARAMS))


def test_results_of_another_shape_are_refused():
    # A learning rate must be of shape (); one that widens the update would change the parameters'.
    for rate in (jnp.ones(3), lambda count: jnp.ones(1)):
        with pytest.raises((ValueError, TypeError), match="shape"):
            step(scale_by_learning_rate(rate), {"w": jnp.ones(())}, {"w": jnp.ones(())})


# What rules ask for.


def test_a_required_extra_argument():
    tx = needs_value(2.0)
    updates, _ = step(tx, value=3.0)
    assert float(updates["b"]) == 3.0
    text = re.escape(
        "needs_value: update() needs the extra argument 'value': "
        "call update(updates, state, params, value=...)."
    )
    with pytest.raises(MissingArgumentError, match=text):
        step(tx)
    with pytest.raises(TypeError, match=text):
        step(chain(scale(1.0), tx))
    assert float(step(tx, value=3.0, other=object())[0]["b"]) == 3.0


def test_an_optional_extra_argument():
    assert float(step(likes_value(2.0))[0]["b"]) == 3.0
    assert float(step(likes_value(2.0), value=5.0)[0]["b"]) == 5.0
    assert float(step(chain(likes_value(2.0), needs_value()), value=5.0)[0]["b"]) == 25.0


def test_counts_and_whole_trees():
    seen = {}

    class CountState(NamedTuple):
        count: jax.Array

    @rule
    def noting(factor: Real = 1.0) -> LeafRule:
        def once(count, t, updates, params):
            seen.update(updates=jax.tree.structure(updates), params=jax.tree.structure(params))
            return {"a": count, "b": t, "c": updates["b"]}

        return LeafRule(lambda g, a, b, c: 0 * g + a + 10 * b + 100 * c, CountState, once=once)

    tx = chain(scale(2.0), noting())
    state = tx.init(PARAMS)
    for expected in (110.0, 121.0):
        updates, state = tx.update(GRADS, state, PARAMS)
        assert float(updates["b"]) == expected
    assert seen == dict.fromkeys(("updates", "params"), jax.tree.structure(PARAMS))


def test_fields_without_a_first_value_are_refused():
    with pytest.raises(
        TypeError, match="LeafRule: MomentsState has the fields count, mu, nu, but fi"
    ):
        LeafRule(lambda g, mu: (g, mu), MomentsState, mu=first_moment())
    with pytest.raises(TypeError, match="first values are given for other"):
        LeafRule(lambda g: g, EmptyState, other=first_moment())


def test_the_rule_is_traced_once_per_shape():
    traces = []

    @rule
    def noting(factor: Real = 1.0) -> LeafRule:
        def step(g):
            traces.append(g.shape)
            return factor * g

        return LeafRule(step)

    tree = [jnp.ones((5, 7))] * 19 + [jnp.ones(11)] * 3
    step(noting(), tree, tree)
    assert sorted(traces) == [(5, 7), (11,)]
    step(noting(2.0), tree, tree)
    assert len(traces) == 2


def test_tree_rules():
    class SumState(NamedTuple):
        total: jax.Array

    @rule
    def summing(factor: Real = 1.0) -> TreeRule:
        def update(updates, state, params, value=1.0):
            total = state.total + sum(x.sum() for x in jax.tree.leaves(params))
            return jax.tree.map(lambda g: factor * value * g, updates), SumState(total)

        return TreeRule(
            update,
            lambda params: SumState(jnp.zeros([])),
            needs_params=True,
            extra_names=["value"],
        )

    updates, state = step(summing(2.0))
    assert float(updates["b"]) == 1.0
    assert float(state.total) == 10.0
    updates, state = step(chain(scale(2.0), summing(2.0), scale(2.0)), value=3.0, other=1.0)
    assert float(updates["b"]) == 12.0
    assert float(state[1].total) == 10.0
    with pytest.raises(MissingArgumentError, match=r"summing: .* needs the current value"):
        summing().update(GRADS, summing().init(PARAMS))


class SharedState(NamedTuple):
    """An array and a list of arrays for each leaf, named as an update is; a flag and a clock."""

    g: object
    sides: object
    is_first: jax.Array
    t: jax.Array


@rule
def differences() -> LeafRule:
    """The change of the gradient, after the first; sums along the axes, for their own sake."""

    def once(is_first, last_t):
        return {"weight": jnp.where(is_first, 0.0, 1.0), "is_first": False, "t": last_t + 1}

    def step(g, last_g, sides, weight):
        new = [side + jnp.sum(g, axis) for axis, side in enumerate(sides)]
        return weight * (g - last_g), g, new

    def zero_sides(p):
        return [jnp.zeros_like(jnp.sum(p, axis)) for axis in range(p.ndim)]

    return LeafRule(
        step,
        SharedState,
        once=once,
        g=first_moment(),
        sides=zero_sides,
        is_first=np.bool_(True),
        t=np.int32(0),
    )


def test_fields_may_be_shared_by_all_leaves_and_statistics_be_lists():
    params = {"a": jnp.ones((2, 3)), "b": (jnp.ones(4, jnp.bfloat16), None)}
    tx = differences()
    state = first = tx.init(params)
    assert state.is_first.dtype == bool
    assert state.t.dtype == jnp.int32
    assert [side.shape for side in state.sides["a"]] == [(3,), (2,)]
    for i in (1.0, 3.0, 4.0):
        updates, state = tx.update(jax.tree.map(lambda p, i=i: i * p, params), state, params)
    assert jax.tree.structure(state) == jax.tree.structure(first)
    np.testing.assert_array_equal(updates["a"], np.ones((2, 3)))
    np.testing.assert_array_equal(state.sides["a"][0], np.full(3, 16.0))
    assert state.sides["b"][0][0].dtype == jnp.bfloat16
    assert not state.is_first
    assert state.t == 3


class FarthestState(NamedTuple):
    start: Any
    distance: Any


@rule
def by_distance():
    """Multiplies by the largest distance from the start, which begins with the norm."""

    def once(params, start, last_distance):
        way = jax.tree.map(lambda p, p0: p - p0, params, start)
        return {"distance": jnp.maximum(last_distance, global_norm(way))}

    return LeafRule(
        lambda g, start, distance: (distance * g, start),
        FarthestState,
        once=once,
        start=copy_of,
        distance=SharedNumber(global_norm),
    )


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_once_sees_statistics_of_all_leaves(transform):
    params = {"a": jnp.array([3.0]), "b": (jnp.array([4.0]), None)}
    tx = by_distance()
    state = tx.init(params)
    assert state.distance == 5
    moved = jax.tree.map(lambda p: p + 8.0, params)
    grads = {"a": jnp.array([1.0]), "b": (jnp.array([2.0]), None)}
    update = transform(tx.update)
    updates, state = update(grads, state, params)
    assert (updates["a"], updates["b"][0]) == (5, 10)
    updates, state = update(grads, state, moved)
    assert updates["a"] == state.distance == pytest.approx(128**0.5)
    np.testing.assert_array_equal(state.start["b"][0], [4.0])


def test_numbers_of_all_leaves_have_the_widest_dtype():
    with jax.enable_x64(True):
        params = {"a": jnp.ones(2, jnp.bfloat16), "b": jnp.ones(2, jnp.complex128)}
        assert by_distance().init(params).distance.dtype == jnp.float64
    assert by_distance().init(jnp.ones(2, jnp.bfloat16)).distance.dtype == jnp.float32


def test_a_list_of_the_wrong_shapes_is_named():
    tx = differences()
    state = tx.init({"a": jnp.ones((2, 3))})
    wrong = state._replace(sides={"a": [jnp.zeros(3)]})
    with pytest.raises(TreeMismatchError, match=r"state.sides\['a'\] has shape \[\(3,\)\], not"):
        tx.update({"a": jnp.ones((2, 3))}, wrong)


def test_a_shared_field_must_be_a_number_and_be_returned():
    with pytest.raises(TypeError, match="first value of is_first must be a function of a param"):
        LeafRule(
            lambda g: g, SharedState, g=first_moment(), sides=list, is_first=True, t=np.int32()
        )

    @rule
    def forgetful():
        return LeafRule(
            lambda g, sides: (g, g, sides),
            SharedState,
            once=lambda last_t: {},
            g=first_moment(),
            sides=list,
            is_first=np.bool_(True),
            t=np.int32(0),
        )

    with pytest.raises(TypeError, match=r"must return the new value of is_first, t\."):
        forgetful().update(jnp.ones(2), forgetful().init(jnp.ones(2)))
