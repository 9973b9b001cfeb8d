"""Updates that are transformed only if they are finite, or only at some steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_wrappers import (
    ConditionallyMaskState,
    ConditionallyTransformState,
    MaybeUpdateState,
    apply_if_finite,
    conditionally_mask,
    conditionally_transform,
    maybe_update,
)

PARAMS = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}
NAN, INF = float("nan"), float("inf")


def gradient(value):
    """Finite, but for one number of one leaf."""
    return {"w": jnp.array([1.0, value, 1.0]), "b": jnp.array(1.0)}


def run(tx, values, **extra_args):
    """The middle of ``w`` in each update, all states, all updates."""
    states, seen = [tx.init(PARAMS)], []
    for value in values:
        updates, state = tx.update(gradient(value), states[-1], PARAMS, **extra_args)
        seen.append(updates)
        states.append(state)
    return [float(updates["w"][1]) for updates in seen], states, seen


def jitted(tx):
    return tx._replace(init=jax.jit(tx.init), update=jax.jit(tx.update))


def foreign():
    def update(updates, state, params=None):
        state = jax.tree.map(lambda s, g: 0.5 * s + g, state, updates)
        return state, state

    return gc.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), update)


WRAPS = pytest.mark.parametrize("wrap", [lambda tx: tx, jitted], ids=["eager", "jit"])
INNER = pytest.mark.parametrize("inner", [lambda: gc.trace(0.5), foreign], ids=["ours", "foreign"])
VALUES = [1.0, NAN, 2.0, NAN, INF, -INF, NAN, 3.0, INF]


WRAPPERS = [
    lambda inner: apply_if_finite(inner, 2),
    lambda inner: conditionally_transform(inner, lambda step: step < 1),
    lambda inner: conditionally_mask(inner, lambda step: step < 1),
    lambda inner: maybe_update(inner, lambda step: step < 1),
]


def test_states_may_hold_random_keys():
    for wrapper in WRAPPERS:
        tx = wrapper(gc.add_noise(0.1, 0.5, jax.random.key(0)))
        before, after = run(tx, [1.0])[1]
        assert gc.tree.get(before, "rng_key") != gc.tree.get(after, "rng_key")


@INNER
def test_states_may_be_donated(inner):
    """Each array of a first state is in a buffer of its own, also outside of compiled code."""
    for wrapper in WRAPPERS:
        tx = wrapper(inner())
        update = jax.jit(tx.update, donate_argnums=1)
        update(gradient(1.0), tx.init(PARAMS), PARAMS)


@WRAPS
@INNER
def test_counts_of_what_is_not_finite(inner, wrap):
    _, states, _ = run(wrap(apply_if_finite(inner(), 2)), VALUES)
    assert [int(s.notfinite_count) for s in states] == [0, 0, 1, 0, 1, 2, 3, 4, 0, 1]
    assert [int(s.total_notfinite) for s in states] == [0, 0, 1, 1, 2, 3, 4, 5, 5, 6]
    finite = [True, True, False, True, False, False, False, False, True, False]
    assert [bool(s.last_finite) for s in states] == finite


@WRAPS
@INNER
@pytest.mark.parametrize(
    ("on_give_up", "due"),
    [
        ("apply", [1, 0, 2.5, 0, 0, -INF, NAN, NAN, 0]),
        ("skip", [1, 0, 2.5, 0, 0, 0, 0, 4.25, 0]),
        ("zero", [1, 0, 2.5, 0, 0, 1.25, 0.625, 3.3125, 0]),
    ],
)
def test_giving_up(on_give_up, due, inner, wrap):
    """The first two in a row are skipped, and leave momentum alone; by default no more are."""
    seen, _, updates = run(wrap(apply_if_finite(inner(), 2, on_give_up=on_give_up)), VALUES)
    np.testing.assert_array_equal(seen, due)
    others = [float(u["b"]) for u in updates]
    # Momentum of ones, wherever the update was applied.
    applied = {"apply": "101001110", "skip": "101000010", "zero": "101001110"}[on_give_up]
    momentum, expected = 0.0, []
    for flag in applied:
        momentum = 0.5 * momentum + 1 if flag == "1" else momentum
        expected.append(momentum if flag == "1" else 0.0)
    np.testing.assert_allclose(others, expected)


def test_applying_is_the_default():
    assert repr(apply_if_finite(gc.trace(0.5), 2)) == repr(
        apply_if_finite(gc.trace(0.5), 2, on_give_up="apply")
    )
    np.testing.assert_array_equal(run(apply_if_finite(gc.scale(1.0), 0), [NAN, 1.0])[0], [NAN, 1])


@INNER
def test_a_batch_of_problems_that_differ_in_what_is_finite(inner):
    tx = apply_if_finite(inner(), 1)
    values = jnp.array([[1.0, NAN, 2.0], [NAN, 3.0, 1.0], [1.0, 1.0, NAN]])

    def solve(values):
        state = tx.init(PARAMS)
        for value in values:
            updates, state = tx.update(gradient(0.0) | {"b": value}, state, PARAMS)
        return updates, state

    found = jax.vmap(solve)(values)
    for i, row in enumerate(values):
        mine = jax.tree.map(lambda x, i=i: x[i], found)
        jax.tree.map(np.testing.assert_array_equal, mine, solve(row))


def test_leaves_without_updates_count_as_finite():
    float0 = np.zeros(3, jax.dtypes.float0)
    tx = apply_if_finite(gc.trace(0.5), 1)
    state = tx.init(PARAMS)
    updates, state = tx.update({"w": float0, "b": jnp.array(NAN)}, state)
    assert updates["w"].dtype == jax.dtypes.float0
    assert float(updates["b"]) == 0
    updates, state = tx.update({"w": None, "b": jnp.array(2.0)}, state)
    assert updates["w"] is None
    assert float(updates["b"]) == 2
    assert apply_if_finite(gc.trace(0.5), 1).update({}, tx.init({}))[1].last_finite


def test_bad_calls_of_apply_if_finite():
    with pytest.raises(ValueError, match="apply_if_finite: max_consecutive_errors must be >= 0"):
        apply_if_finite(gc.scale(1.0), -1)
    with pytest.raises(ValueError, match="apply_if_finite: on_give_up must be one of apply, skip"):
        apply_if_finite(gc.scale(1.0), 1, on_give_up="raise")
    with pytest.raises(gc.NotATransformationError, match="apply_if_finite: inner must be a grad"):
        apply_if_finite(0.5, 1)
    with pytest.raises(TypeError, match="positional"):
        apply_if_finite(gc.scale(1.0), 1, "skip")


def even(step):
    return step % 2 == 0


@WRAPS
@INNER
def test_conditions(inner, wrap):
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    state = inner().init(PARAMS)
    for value in values[::2]:
        _, state = inner().update(gradient(value), state, PARAMS)
    for make, between in [
        (conditionally_transform, [2.0, 4.0]),
        (maybe_update, [2.0, 4.0]),
        (conditionally_mask, [0.0, 0.0]),
    ]:
        seen, states, _ = run(wrap(make(inner(), even)), values)
        assert seen == [1, between[0], 3.5, between[1], 6.75]
        assert int(states[-1].step) == 5
        jax.tree.map(np.testing.assert_array_equal, states[-1].inner_state, state)
        jax.tree.map(np.testing.assert_array_equal, states[2].inner_state, states[1].inner_state)


def test_states():
    assert type(conditionally_mask(gc.trace(0.5), even).init(PARAMS)) is ConditionallyMaskState
    state = conditionally_transform(gc.trace(0.5), even).init(PARAMS)
    assert type(state) is ConditionallyTransformState
    assert type(maybe_update(gc.trace(0.5), even).init(PARAMS)) is MaybeUpdateState
    assert MaybeUpdateState._fields == ("inner_state", "step")


@pytest.mark.parametrize("make", [conditionally_transform, conditionally_mask])
def test_conditions_are_asked_outside_of_compiled_code(make):
    asked = []

    def condition(step, **extra_args):
        asked.append((step, extra_args))
        return step >= 1

    tx = gc.chain(gc.scale(2.0), make(gc.trace(0.5), condition), gc.scale(1.0))
    run(tx, [1.0, 1.0], value=3.0)
    assert not any(isinstance(step, jax.core.Tracer) for step, _ in asked)
    assert [(int(step), given) for step, given in asked] == [(0, {}), (1, {})]
    asked.clear()
    run(make(gc.trace(0.5), condition, forward_extra_args=True), [1.0], value=3.0)
    assert asked[0][1] == {"value": 3.0}


@WRAPS
def test_a_condition_on_the_loss(wrap):
    def low(step, value, **_):
        return value < 1

    tx = wrap(conditionally_mask(gc.trace(0.0), low, forward_extra_args=True))
    assert run(tx, [2.0], value=jnp.array(0.5))[0] == [2]
    assert run(tx, [2.0], value=jnp.array(1.5))[0] == [0]


@pytest.mark.parametrize("make", [conditionally_transform, conditionally_mask])
def test_extra_arguments_reach_what_is_inside(make):
    by_value = gc.rule(
        lambda: gc.LeafRule(lambda g, value: value * g, once=lambda value: {"value": value})
    )
    assert run(make(by_value(), even), [2.0], value=5.0)[0] == [10]


@pytest.mark.parametrize("known", [True, False, np.True_])
def test_a_condition_that_is_no_array_decides_before_tracing(known):
    tx = conditionally_mask(gc.trace(0.5), lambda step: known)
    jaxpr = str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS)))
    assert "cond[" not in jaxpr
    assert run(jitted(tx), [2.0])[0] == [2.0 * bool(known)]


@pytest.mark.parametrize(
    "tx",
    [
        apply_if_finite(gc.trace(0.5), 2),
        conditionally_transform(gc.trace(0.5), even),
        conditionally_mask(gc.trace(0.5), even),
    ],
    ids=["apply_if_finite", "conditionally_transform", "conditionally_mask"],
)
def test_compiled_code_runs_one_branch(tx):
    jaxpr = str(jax.make_jaxpr(tx.update)(PARAMS, tx.init(PARAMS)))
    assert jaxpr.count("cond[") == 1


def test_what_is_inside_is_called_only_when_it_is_needed():
    calls = []
    spy = gc.GradientTransformation(
        lambda params: (), lambda g, s, params=None: (calls.append(1) or g, s)
    )
    for make in (conditionally_transform, conditionally_mask, maybe_update):
        calls.clear()
        run(make(spy, even), [1.0] * 5)
        assert len(calls) == 3
    calls.clear()
    run(apply_if_finite(spy, 9), [1.0, NAN, INF, 1.0])
    assert len(calls) == 2


def test_schedules_inside_count_what_they_see():
    inner = gc.scale_by_learning_rate(lambda count: 0.5**count)
    tx = conditionally_mask(inner, even)
    assert run(tx, [8.0] * 4)[0] == [-8, 0, -4, 0]
    np.testing.assert_allclose(gc.current_learning_rate(tx, run(tx, [8.0] * 3)[1][-1]), 0.25)


@pytest.mark.parametrize("make", [conditionally_transform, conditionally_mask, maybe_update])
def test_bad_conditions(make):
    with pytest.raises(TypeError, match=rf"{make.__name__}: should_\w+_fn must be a function.*3"):
        make(gc.trace(0.5), 3)
    with pytest.raises(gc.NotATransformationError, match=f"{make.__name__}: inner must be"):
        make(even, even)
