"""Rules that wrap transformations: compiled with what they wrap, if that is ours."""

import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    LearningRate,
    NotATransformationError,
    Real,
    TreeRule,
    rule,
)

PARAMS = {"a": jnp.ones(3), "b": jnp.array(2.0)}


class TwiceState(NamedTuple):
    count: jax.Array
    inner_state: object


@rule
def scaled_by(inner: GradientTransformation, factor: LearningRate = 2.0) -> TreeRule:
    """A factor times what another transformation makes of the updates."""

    def init(params):
        return TwiceState(jnp.zeros([], jnp.int32), inner.init(params))

    def update(updates, state, params, **extra_args):
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        scale = factor(state.count) if callable(factor) else factor
        return jax.tree.map(lambda u: scale * u, updates), TwiceState(state.count + 1, inner_state)

    return TreeRule(update, init)


@rule
def times_value() -> gc.LeafRule:
    return gc.LeafRule(lambda g, value: value * g, once=lambda value: {"value": value})


def descend(tx, steps=3, **extra_args):
    state = tx.init(PARAMS)
    for _ in range(steps):
        updates, state = tx.update(PARAMS, state, PARAMS, **extra_args)
    return updates, state


def by_hand(inner, factor, steps=3):
    updates, state = descend(inner, steps)
    return jax.tree.map(lambda u: factor(steps - 1) * u, updates), state


def halving(count):
    return 0.5**count


INNER = {
    "ours": lambda: gc.trace(0.9),
    "a chain": lambda: gc.chain(gc.clip_by_global_norm(1.0), gc.trace(0.9), gc.scale(-1.0)),
    "with a user's schedule": lambda: gc.chain(gc.trace(0.9), gc.scale_by_schedule(halving)),
    "with parameters": lambda: gc.add_decayed_weights(0.1),
    "masked": lambda: gc.masked(gc.trace(0.9), {"a": True, "b": False}),
    "the user's": lambda: GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (updates, state)
    ),
    "wrapped": lambda: scaled_by(gc.trace(0.9), 3.0),
}


@pytest.mark.parametrize("factor", [lambda count: 2.0, halving], ids=["number", "schedule"])
@pytest.mark.parametrize("kind", INNER)
@pytest.mark.parametrize("jit", [False, True])
def test_a_wrapper_does_what_it_says(kind, factor, jit):
    make = INNER[kind]
    given = 2.0 if factor is not halving else halving
    tx = scaled_by(make(), given)
    if jit:
        tx = tx._replace(init=jax.jit(tx.init), update=jax.jit(tx.update))
    updates, state = descend(tx)
    expected, inner_state = by_hand(make(), factor)
    jax.tree.map(np.testing.assert_allclose, updates, expected)
    jax.tree.map(np.testing.assert_allclose, state.inner_state, inner_state)


def test_it_compiles_once_for_all_numbers():
    """Of the wrapper and of what it wraps, outside jit."""
    descend(scaled_by(gc.chain(gc.trace(0.9), gc.scale(0.5)), 2.0))
    traces = []

    @rule
    def spy(inner: GradientTransformation, factor: Real) -> TreeRule:
        def update(updates, state, params):
            traces.append(1)
            updates, state = inner.update(updates, state, params)
            return jax.tree.map(lambda u: factor * u, updates), state

        return TreeRule(update, inner.init, inner_state=lambda state: state)

    for i in range(3):
        tx = spy(gc.chain(gc.trace(0.1 * i), gc.scale(0.5 + i)), 1.0 + i)
        updates, _ = descend(tx)
    assert len(traces) == 1
    np.testing.assert_allclose(updates["b"], 2 * (1 + 0.2 + 0.04) * 2.5 * 3, rtol=1e-6)


def test_extra_arguments_reach_what_is_wrapped():
    tx = scaled_by(gc.chain(gc.trace(0.0), times_value()))
    assert isinstance(tx, GradientTransformationExtraArgs)
    updates, _ = descend(tx, value=5.0, other=1)
    np.testing.assert_allclose(updates["b"], 2 * 2 * 5)
    updates, _ = descend(scaled_by(gc.with_extra_args_support(gc.trace(0.0))), value=5.0)
    np.testing.assert_allclose(updates["b"], 2 * 2)


@pytest.mark.parametrize(
    "build",
    [
        gc.with_extra_args_support,
        lambda inner: gc.chain(gc.scale(1.0), inner),
        lambda inner: gc.masked(inner, ".*"),
        lambda inner: gc.partition({".*": inner}),
        scaled_by,
    ],
    ids=["with_extra_args_support", "chain", "masked", "partition", "wrapper"],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_extra_arguments_pass_what_a_body_builds_on(build, compiled):
    """In compiled code a transformation knows which extra arguments those in it take."""

    @rule
    def built(inner: GradientTransformation) -> TreeRule:
        inner = build(inner)

        def update(updates, state, params, **extra_args):
            return inner.update(updates, state, params, **extra_args)

        return TreeRule(update, inner.init, compiled=compiled)

    tx = built(gc.chain(gc.trace(0.0), times_value()))
    factor = 2 if build is scaled_by else 1
    assert float(descend(tx, value=5.0, other=1)[0]["b"]) == factor * 2 * 5
    assert float(descend(built(gc.trace(0.0)), value=5.0)[0]["b"]) == factor * 2


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_wrapped_takes_extra_arguments_whether_it_asks_for_them_or_not(compiled):
    plain = GradientTransformation(
        lambda params: (), lambda updates, state, params=None: (updates, state)
    )

    @rule
    def wrapper(inner: GradientTransformation) -> TreeRule:
        def update(updates, state, params, **extra_args):
            assert isinstance(inner, GradientTransformationExtraArgs)
            return inner.update(updates, state, params, **extra_args)

        return TreeRule(update, inner.init, compiled=compiled)

    for inner in (gc.trace(0.0), plain):
        assert float(descend(wrapper(inner), value=5.0)[0]["b"]) == 2


def test_parameters_reach_those_that_look_at_them_without_need():
    """Where none are given, they do without; where none look, none are handed over."""

    @rule
    def looks() -> TreeRule:
        def update(updates, state, params):
            return jax.tree.map(lambda g: g * (5.0 if params is None else 3.0), updates), state

        return TreeRule(update, takes_params=True)

    for tx in (looks(), scaled_by(looks(), 1.0), gc.chain(gc.scale(1.0), looks())):
        state = tx.init(PARAMS)
        assert float(tx.update(PARAMS, state, PARAMS)[0]["b"]) == 2 * 3
        assert float(tx.update(PARAMS, state)[0]["b"]) == 2 * 5
    tx = scaled_by(gc.trace(0.0))
    tx.update(PARAMS, tx.init(PARAMS), {"a": "no array", "b": "at all"})


def test_it_is_a_value_and_nests():
    tx = scaled_by(gc.trace(0.5), 3.0)
    assert repr(tx) == "scaled_by(inner=trace(decay=0.5), factor=3.0)"
    assert tx == scaled_by(gc.trace(0.5), 3.0)
    assert tx != scaled_by(gc.trace(0.25), 3.0)
    chained = gc.chain(gc.scale(2.0), tx, scaled_by(tx))
    np.testing.assert_allclose(descend(chained, 1)[0]["b"], 2 * 2 * 3 * 3 * 2)
    mapped = gc.tree.map_params(tx, lambda x: x + 1, tx.init(PARAMS))
    np.testing.assert_allclose(mapped.inner_state.trace["a"], np.ones(3))


def test_values_of_wrappers_pickle():
    tx = gc.masked(gc.trace(0.5), ".*")
    assert pickle.loads(pickle.dumps(tx)) == tx


def test_the_learning_rate_inside_is_found():
    tx = scaled_by(gc.chain(gc.trace(0.5), gc.scale_by_learning_rate(halving)))
    _, state = descend(tx, 2)
    np.testing.assert_allclose(gc.current_learning_rate(tx, state), 0.25)


def test_errors_name_both():
    with pytest.raises(NotATransformationError, match="scaled_by: inner must be a gradient trans"):
        scaled_by(0.5)
    tx = scaled_by(gc.add_decayed_weights(0.1))
    with pytest.raises(ValueError, match=r"scaled_by.*add_decayed_weights.*params"):
        tx.update(PARAMS, tx.init(PARAMS))
    bad = scaled_by(gc.trace(0.5))
    with pytest.raises(ValueError, match=r"scaled_by \(in its trace\): .*\['b'\]"):
        bad.update({"a": jnp.ones(3)}, bad.init(PARAMS))
