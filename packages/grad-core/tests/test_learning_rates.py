"""The learning rate of the next update, found in any optimizer."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

PARAMS = {"a": jnp.ones(3), "b": {"kernel": jnp.ones((2, 2))}}


def slowing(count):
    return 0.8 / (1 + count)


def after(tx, updates):
    state = tx.init(PARAMS)
    for _ in range(updates):
        _, state = tx.update(PARAMS, state, PARAMS)
    return state


@pytest.mark.parametrize("rate", [0.25, -0.25, jnp.float32(0.25)])
def test_numbers(rate):
    tx = gc.chain(gc.trace(0.9), gc.scale_by_learning_rate(rate))
    np.testing.assert_array_equal(gc.current_learning_rate(tx, after(tx, 1)), np.float32(rate))


@pytest.mark.parametrize("updates", [0, 1, 3])
def test_schedules_at_the_count_of_the_state(updates):
    step = gc.scale_by_learning_rate(slowing)
    for tx in [
        step,
        gc.chain(gc.clip(1.0), gc.chain(gc.trace(0.9), step)),
        gc.named_chain(("first", gc.clip(1.0)), ("then", step)),
        gc.masked(gc.chain(step), r".*kernel"),
    ]:
        rate = gc.current_learning_rate(tx, after(tx, updates))
        np.testing.assert_allclose(rate, 0.8 / (1 + updates), rtol=1e-6)


def test_it_is_the_rate_that_the_next_update_uses():
    tx = gc.scale_by_learning_rate(slowing)
    state = after(tx, 2)
    rate = gc.current_learning_rate(tx, state)
    updates, _ = tx.update(PARAMS, state)
    np.testing.assert_allclose(updates["a"], -rate * PARAMS["a"], rtol=1e-6)


def test_partitions_have_one_for_each_label():
    tx = gc.partition(
        {
            "fast": gc.scale_by_learning_rate(slowing),
            "slow": gc.chain(gc.scale_by_learning_rate(0.1)),
            "frozen": gc.set_to_zero(),
        },
        {"a": "fast", "b": "slow"},
    )
    rates = gc.current_learning_rate(gc.chain(gc.clip(1.0), tx), ((gc.EmptyState()), after(tx, 1)))
    assert {label: round(float(rate), 6) for label, rate in rates.items()} == {
        "fast": 0.4,
        "slow": 0.1,
    }


def test_several_in_a_chain_multiply():
    tx = gc.chain(gc.scale_by_learning_rate(0.5), gc.scale_by_learning_rate(0.25, flip_sign=False))
    assert gc.current_learning_rate(tx, tx.init(PARAMS)) == 0.125


def test_a_rate_after_a_partition_multiplies_all_of_its():
    inner = gc.partition({r".*": gc.scale_by_learning_rate(0.5)})
    tx = gc.chain(gc.scale_by_learning_rate(0.25), inner)
    assert gc.current_learning_rate(tx, tx.init(PARAMS)) == {".*": 0.125}


def test_under_jit():
    tx = gc.chain(gc.scale_by_learning_rate(slowing))
    rate = jax.jit(lambda state: gc.current_learning_rate(tx, state))(after(tx, 1))
    np.testing.assert_allclose(rate, 0.4, rtol=1e-6)


@pytest.mark.parametrize("tx", [gc.scale(0.5), gc.chain(), gc.scale_by_learning_rate(None)])
def test_without_any(tx):
    with pytest.raises(ValueError, match=re.escape(f"{tx!r} has none")):
        gc.current_learning_rate(tx, tx.init(PARAMS))


def test_states_of_others_are_named():
    tx = gc.chain(gc.scale_by_learning_rate(slowing))
    with pytest.raises(ValueError, match="one state for each"):
        gc.current_learning_rate(tx, gc.EmptyState())
