"""Mechanic against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import MechanicState, mechanize
from grad_core import MaskedNode, apply_updates, current_learning_rate, identity, scale
from grad_optimizers import adam, sgd

START = np.array([1.0, -2.0, 3.0, 0.5])
CURVATURE = np.array([0.5, 1.0, 2.0, 4.0])
NOISE = np.random.default_rng(0).normal(size=(20, 4))


def gradient(t, x):
    return CURVATURE * x + NOISE[t]


def paper(steps, rate, weight_decay, eps, s_init, n):
    """The algorithm in float64, with the sum of steps kept; yields parameters and all numbers."""
    x = START
    delta = np.zeros(4)
    beta = np.array([1 - 0.1**i for i in range(1, n + 1)])
    r, m, v, s = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, s_init)
    for t in range(steps):
        g = gradient(t, x)
        pull = weight_decay * sum(s) * np.linalg.norm(g) / (np.linalg.norm(x) + eps)
        delta = delta if t == 0 else (x - START) / (sum(s) + eps)
        h = delta @ (g + pull * x)
        clipped = np.clip(h, -m, m)
        m = np.maximum(beta * m, abs(h) + eps)
        v = beta**2 * v + h**2
        r = beta * r - s * clipped
        s = (s_init * m / n + np.maximum(r, 0)) / (np.sqrt(v) + eps)
        x = START + sum(s) * (delta - rate(t) * g)
        yield x, (r, m, v, s)


@pytest.mark.parametrize(
    "arguments",
    [(0.0, 1e-8, 0.05, 6), (0.3, 1e-3, 0.05, 3), (0.01, 1e-4, 0.1, 1)],
)
def test_the_algorithm(arguments):
    def rate(t):
        return 1 / (1 + t * np.float64(1))

    with jax.enable_x64(True):
        tx = mechanize(sgd(rate), *arguments)
        params = jnp.asarray(START)
        state, update = tx.init(params), jax.jit(tx.update)
        assert np.allclose(state.s, arguments[2])
        for t, (x, numbers) in enumerate(paper(20, rate, *arguments)):
            updates, state = update(gradient(t, params), state, params)
            params = apply_updates(params, updates)
            np.testing.assert_allclose(params, x, rtol=1e-10)
            np.testing.assert_allclose(state[2:6], numbers, rtol=1e-8)
        assert int(state.count) == 20


def test_it_starts_from_the_parameters_of_the_first_update():
    tx = mechanize(sgd(1.0), s_init=0.1)
    first, second = jnp.ones(2), jnp.array([3.0, 4.0])
    state = tx.init(first)
    _, state = tx.update(jnp.ones(2), state, second)
    np.testing.assert_array_equal(state.x0, second)
    _, state = tx.update(jnp.ones(2), state, first)
    np.testing.assert_array_equal(state.x0, second)


def test_norms_and_products_are_of_the_whole_tree():
    """Leaves, absent ones beside them, make what one vector of them makes."""
    tx = mechanize(sgd(1.0), s_init=0.1)
    vector = jnp.asarray(START, jnp.float32)
    tree = {"a": vector[:1], "b": vector[1:].reshape(3, 1), "none": None, "masked": MaskedNode()}
    states, params = [tx.init(vector), tx.init(tree)], [vector, tree]
    for t in range(4):
        for i in range(2):
            grads = jax.tree.map(lambda p, t=t: p * (1 + t) - 1, params[i])
            updates, states[i] = tx.update(grads, states[i], params[i])
            params[i] = apply_updates(params[i], updates)
        joined = jnp.concatenate([params[1]["a"], params[1]["b"].ravel()])
        np.testing.assert_allclose(joined, params[0], rtol=1e-5)


def test_parameters_without_updates_stay_and_count_for_nothing_but_their_norm():
    tx = mechanize(sgd(1.0), weight_decay=0.0, s_init=0.1)
    alone, beside = {"w": jnp.ones(3)}, {"w": jnp.ones(3), "still": jnp.full(2, 5.0)}
    states = [tx.init(alone), tx.init(beside)]
    for _ in range(3):
        updates, states[0] = tx.update(alone, states[0], alone)
        alone = apply_updates(alone, updates)
        grads = {"w": beside["w"], "still": None}
        updates, states[1] = tx.update(grads, states[1], beside)
        beside = apply_updates(beside, updates)
        np.testing.assert_allclose(beside["w"], alone["w"], rtol=1e-6)
        np.testing.assert_array_equal(beside["still"], 5.0)


@pytest.mark.parametrize("base", [sgd(1.0), adam(1.0), adam(1.0, b1=0.5)])
def test_it_finds_a_scale(base):
    """From one that is a million times too small, within 200 steps."""

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(CURVATURE * params, state, params)
        return (apply_updates(params, updates), state), None

    tx = mechanize(base)
    params = jnp.asarray(START, jnp.float32)
    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=200)
    assert jnp.sum(CURVATURE * params**2) < 0.05 * np.sum(CURVATURE * START**2)
    assert jnp.sum(state.s) > 1e-3


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_zero_gradients_keep_parameters_and_scale(eps):
    tx = mechanize(sgd(1.0), eps=eps, s_init=0.1, num_betas=2)
    params = jnp.ones(3, jnp.float16)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jnp.zeros(3, jnp.float16), state, params)
        np.testing.assert_array_equal(updates, 0)
        np.testing.assert_allclose(state.s, 0.05, rtol=1e-6)
    updates, state = tx.update(jnp.ones(3, jnp.float16), state, params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-3)


def test_the_state_is_upstreams():
    state = mechanize(adam(1.0)).init({"w": jnp.ones(2, jnp.bfloat16)})
    assert type(state) is MechanicState
    assert state._fields == ("base_optimizer_state", "count", "r", "m", "v", "s", "x0")
    assert [x.shape for x in state[2:6]] == [(6,)] * 4
    assert [x.dtype.name for x in state[1:6]] == ["int32", *["float32"] * 4]
    assert state.x0["w"].dtype == jnp.bfloat16
    assert current_learning_rate(mechanize(adam(0.5)), state) == 0.5


def test_bad_input():
    refused = {
        "base_optimizer": {0.1: "must be a gradient transformation, such as adam(1e-3); got 0.1"},
        "weight_decay": {"no": "must be a number, an array of shape (); got 'no'"},
        "eps": {-1e-8: "must be >= 0; got -1e-08"},
        "s_init": {-1.0: "must be >= 0; got -1.0"},
        "num_betas": {0: "must be at least 1; got 0", 2.0: "must be an integer; got 2.0"},
    }
    for name, cases in refused.items():
        for value, text in cases.items():
            with pytest.raises(
                (ValueError, TypeError), match=re.escape(f"mechanize: {name} {text}")
            ):
                mechanize(**{"base_optimizer": identity(), name: value})
    tx = mechanize(scale(-1.0))
    with pytest.raises(ValueError, match=r"^mechanize: update\(\) needs the current value"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))
