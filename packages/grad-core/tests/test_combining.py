"""`chain` and `named_chain`."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import pytest

from grad_core import (
    EmaState,
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    NotATransformationError,
    TraceState,
    TreeMismatchError,
    add_decayed_weights,
    chain,
    ema,
    named_chain,
    scale,
    trace,
)

PARAMS = {"w": jnp.ones(3)}


def value_times(factor):
    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda g: factor * value * g, updates), state

    return GradientTransformationExtraArgs(lambda params: EmptyState(), update)


plain = GradientTransformation(
    lambda params: {"calls": 0},
    lambda updates, state, params=None: (updates, {"calls": state["calls"] + 1}),
)


def test_the_order_is_first_to_last():
    tx = chain(scale(2.0), add_decayed_weights(1.0), scale(10.0))
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert float(updates["w"][0]) == 30.0
    assert state == (EmptyState(), EmptyState(), EmptyState())


def test_the_state_is_the_tuple_of_states():
    tx = chain(trace(0.5), chain(ema(0.5), plain), scale(1.0))
    for state in (tx.init(PARAMS), tx.update(PARAMS, tx.init(PARAMS))[1]):
        assert type(state) is tuple
        assert [type(s) for s in state] == [TraceState, tuple, EmptyState]
        assert type(state[1][0]) is EmaState
    assert state[1][1] == {"calls": 1}


def test_an_empty_chain_changes_nothing():
    tx = chain()
    assert tx.init(PARAMS) == ()
    updates, state = tx.update({"w": jnp.arange(3), "n": None}, ())
    assert updates["w"].tolist() == [0, 1, 2]
    assert (updates["n"], state) == (None, ())


def test_named_states_are_by_name():
    tx = named_chain(("momentum", trace(0.5)), ("average", ema(0.5)), ("a", plain))
    for state in (tx.init(PARAMS), tx.update(PARAMS, tx.init(PARAMS))[1]):
        assert isinstance(state, Mapping)
        assert set(state) == {"momentum", "average", "a"}
        assert type(state["momentum"]) is TraceState
        assert type(state["average"]) is EmaState
    assert state["a"] == {"calls": 1}


def test_named_chains_keep_their_order_under_jit():
    tx = named_chain(("z", scale(2.0)), ("a", add_decayed_weights(1.0)), ("m", scale(10.0)))
    state = tx.init(PARAMS)
    for update in (tx.update, jax.jit(tx.update), tx.update):
        updates, state = update(PARAMS, state, PARAMS)
        assert float(updates["w"][0]) == 30.0


def test_named_chains_take_states_in_any_order():
    tx = named_chain(("z", trace(0.5)), ("a", ema(0.5, debias=False)))
    state = tx.init(PARAMS)
    mixed = {"a": state["a"], "z": state["z"]}
    updates, _ = tx.update(PARAMS, mixed)
    assert float(updates["w"][0]) == 0.5


@pytest.mark.parametrize("bad", [3, None, "adam", {}, scale, lambda params: params, (1, 2)])
def test_what_is_no_transformation_is_refused(bad):
    for kind in (TypeError, AttributeError, NotATransformationError):
        with pytest.raises(
            kind, match=r"^chain takes gradient transformations, such as adam\(1e-3\); got "
        ):
            chain(scale(1.0), bad)


def test_the_text_says_what_was_passed():
    with pytest.raises(NotATransformationError, match=re.escape("got 3 (int).")):
        chain(3)
    with pytest.raises(NotATransformationError, match=re.escape("named_chain")):
        named_chain(("a", 3))


def test_named_chain_takes_pairs():
    with pytest.raises(TypeError, match="named_chain takes pairs"):
        named_chain(scale(1.0))
    with pytest.raises(TypeError, match=r"named_chain.* takes pairs"):
        named_chain("ab")
    with pytest.raises(TypeError, match=r"named_chain.* takes pairs"):
        named_chain((1, scale(1.0)))


def test_names_must_differ():
    with pytest.raises(
        ValueError, match=re.escape("names must differ, but ['a'] stand more than once")
    ):
        named_chain(("a", scale(1.0)), ("b", scale(1.0)), ("a", scale(2.0)))


def test_extra_arguments_reach_those_that_take_them():
    tx = chain(scale(2.0), plain, value_times(5.0), plain, scale(1.0))
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=3.0, other="ignored")
    assert float(updates["w"][0]) == 30.0
    assert state[1] == state[3] == {"calls": 1}
    with pytest.raises(TypeError, match="value"):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


@pytest.mark.parametrize("state", [(), (EmptyState(),), None, {"a": 1}])
def test_a_state_of_another_length_is_refused(state):
    text = "the state must hold one state for each of its 2 transformations; got "
    with pytest.raises(TreeMismatchError, match=r"^chain: " + text):
        chain(scale(1.0), plain).update(PARAMS, state)
    with pytest.raises(TreeMismatchError, match=r"^chain: " + text):
        chain(scale(1.0), scale(1.0)).update(PARAMS, state)


def test_users_transformations_need_no_class_of_ours():
    class Doubling:
        def init(self, params):
            return 0

        def update(self, updates, state, params=None):
            return jax.tree.map(lambda g: 2 * g, updates), state + 1

    tx = chain(scale(3.0), Doubling(), trace(0.5))
    updates, state = tx.update(PARAMS, tx.init(PARAMS))
    assert float(updates["w"][0]) == 6.0
    assert state[1] == 1
