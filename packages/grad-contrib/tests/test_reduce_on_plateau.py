"""Reducing the learning rate on a plateau, against a loop in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import ReduceLROnPlateauState, reduce_on_plateau
from grad_core import chain, partition, scale

RNG = np.random.default_rng(0)
NOISE = 0.01 * RNG.normal(size=40)
METRICS = {
    "positive": np.concatenate([10 / np.arange(1, 15), 0.7 + NOISE, np.full(20, 0.5)]),
    "negative": np.concatenate([-np.sqrt(np.arange(20.0)), -5 + NOISE, np.full(20, -5.2)]),
    "through zero": np.concatenate([np.arange(10, -10, -1.0), np.full(30, -9.0)]),
    "zero": np.zeros(30),
}


def scales(tx, values):
    """The scale of each update, and the last state."""

    def step(state, value):
        updates, state = tx.update(jnp.ones([]), state, value=value)
        return state, updates

    state, updates = jax.lax.scan(step, tx.init(jnp.ones([])), jnp.asarray(values, jnp.float32))
    return updates, state


def loop(values, factor=0.1, patience=10, rtol=1e-4, atol=0.0, cooldown=0, n=1, min_scale=0.0):
    """The scale after each value, in plain Python."""
    size, best, bad, cooling = 1.0, np.inf, 0, 0
    for i, mean in enumerate(np.float64(np.float32(values))):
        if (i + 1) % n == 0:
            mean = np.mean(np.float64(np.float32(values[i + 1 - n : i + 1])))
            if best == np.inf or mean < best - rtol * abs(best) - atol:
                best, bad = mean, 0
            else:
                bad += 1
            if cooling:
                cooling, bad = cooling - 1, 0
            elif bad == patience:
                size, bad, cooling = max(size * factor, min_scale), 0, cooldown
        yield size


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"patience": 3},
        {"patience": 2, "cooldown": 3, "factor": 0.5, "rtol": 0.01},
        {"patience": 3, "n": 4, "rtol": 0.0, "atol": 0.01, "min_scale": 0.02},
        {"patience": 1, "cooldown": 1, "factor": 0.9, "rtol": 0.0},
    ],
)
def test_against_a_loop(metric, arguments):
    named = {("accumulation_size" if k == "n" else k): x for k, x in arguments.items()}
    found, state = scales(reduce_on_plateau(**named), METRICS[metric])
    expected = list(loop(METRICS[metric], **arguments))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(state.scale, expected[-1], rtol=1e-6)


@pytest.mark.parametrize("level", [-10.0, -1e-3, 0.0, 1e-3, 10.0])
def test_a_flat_metric_of_any_sign_is_a_plateau(level):
    found, _ = scales(reduce_on_plateau(patience=3, factor=0.5), np.full(7, level))
    np.testing.assert_array_equal(found, [1, 1, 1, 0.5, 0.5, 0.5, 0.25])


def test_an_improving_reward_is_none():
    found, _ = scales(reduce_on_plateau(patience=1), -np.arange(1.0, 30.0))
    assert (found == 1).all()


def test_infinite_and_missing_values_do_not_improve():
    values = [np.inf, np.nan, 1.0, np.inf, -np.inf, -np.inf]
    found, state = scales(reduce_on_plateau(patience=2, factor=0.5), values)
    np.testing.assert_array_equal(found, [1, 0.5, 0.5, 0.5, 0.5, 0.5])
    assert state.best_value == -np.inf
    assert int(state.plateau_count) == 1


def test_value_reaches_it_through_others():
    each = chain(scale(-1.0), reduce_on_plateau(patience=1, factor=0.5))
    tx = partition({"a": each, "b": scale(-1.0)}, {"a": "a", "b": "b"})
    params = {"a": jnp.ones(2), "b": jnp.ones(2, jnp.bfloat16)}
    state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(params, state, params, value=-3.0)
    assert (updates["a"] == -0.5).all()
    assert (updates["b"] == -1).all()


def test_the_state_is_upstreams():
    state = reduce_on_plateau().init(jnp.ones(3, jnp.bfloat16))
    assert type(state) is ReduceLROnPlateauState
    assert state._fields == (
        *("scale", "best_value", "plateau_count", "cooldown_count", "count", "avg_value"),
    )
    assert [x.dtype.name for x in state] == ["float32"] * 2 + ["int32"] * 3 + ["float32"]


def test_bad_input():
    refused = {
        "factor": {-0.1: "must be in [0, 1]; got -0.1", 1.5: "must be in [0, 1]; got 1.5"},
        "rtol": {-1e-3: "must be in [0, 1]; got -0.001"},
        "atol": {-1e-3: "must be >= 0; got -0.001"},
        "min_scale": {-1.0: "must be >= 0; got -1.0"},
        "patience": {0: "must be at least 1; got 0", 0.5: "must be an integer; got 0.5"},
        "cooldown": {-1: "must be at least 0; got -1", "no": "must be an integer; got 'no'"},
        "accumulation_size": {0: "must be at least 1; got 0"},
    }
    for name, cases in refused.items():
        for value, text in cases.items():
            text = re.escape(f"reduce_on_plateau: {name} {text}")
            with pytest.raises((ValueError, TypeError), match=text):
                reduce_on_plateau(**{name: value})
    tx = reduce_on_plateau()
    for kind in (ValueError, TypeError):
        with pytest.raises(kind, match=r"^reduce_on_plateau: update\(\) needs .* 'value'"):
            tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
