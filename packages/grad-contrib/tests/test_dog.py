"""DoG and DoWG against their equations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.dog import DoGState, DoWGState, dog, dowg
from grad_core import apply_updates

START = np.array([1.0, -2.0, 0.5])
TARGET = np.array([4.0, 1.0, -3.0])


def gradient(x, t):
    """Of a quadratic around the target, its curvature rising and falling."""
    return (1 + 0.5 * np.sin(t)) * (x - TARGET)


def run(tx, steps=12):
    """The parameters of each step, and the last state, in float64."""
    with jax.enable_x64(True):
        params = {"a": jnp.asarray(START[:2]), "b": jnp.asarray(START[2])}
        state = tx.init(params)
        seen = []
        for t in range(1, steps + 1):
            g = gradient(np.array([*params["a"], params["b"]]), t)
            updates, state = tx.update({"a": g[:2], "b": g[2]}, state, params)
            params = apply_updates(params, updates)
            seen.append([*params["a"], params["b"]])
    return np.array(seen), state


@pytest.mark.parametrize("kind", ["distance", "heuristic", "learning_rate"])
@pytest.mark.parametrize("decays", [None, np.array([1.0, 1.0, 0.0])])
def test_dog(kind, decays):
    first, eps, rate = 0.05, 0.1, 1.5
    w = 0.0 if decays is None else 0.2 * decays
    mask = None if decays is None else {"a": True, "b": False}
    tx = dog(rate, (kind, first), eps, None if decays is None else 0.2, mask)
    found, state = run(tx)
    x, squares = START.copy(), 0.0
    far = {"distance": first, "heuristic": first * (1 + np.linalg.norm(x)), "learning_rate": 0.0}
    distance = far[kind]
    for t, seen in enumerate(found, start=1):
        g = gradient(x, t) + w * x
        squares += g @ g
        distance = max(distance, np.linalg.norm(x - START))
        size = first if kind == "learning_rate" and t == 1 else distance / np.sqrt(squares + eps)
        x = x - rate * size * g
        np.testing.assert_allclose(seen, x, rtol=1e-12)
    assert type(state[1]) is DoGState
    assert not state[1].is_init_step
    np.testing.assert_allclose(state[1].max_dist, distance, rtol=1e-12)


@pytest.mark.parametrize("first", [None, 0.3])
@pytest.mark.parametrize("w", [None, 0.2])
def test_dowg(first, w):
    eps, rate = 0.1, 1.5
    found, state = run(dowg(lambda count: rate / (1 + count), first, eps, w))
    x, weighted, sq_distance = START.copy(), 0.0, eps if first is None else first
    for t, seen in enumerate(found, start=1):
        g = gradient(x, t) + (w or 0.0) * x
        sq_distance = max(sq_distance, (x - START) @ (x - START))
        weighted += sq_distance * (g @ g)
        x = x - rate / t * sq_distance / (np.sqrt(weighted) + eps) * g
        np.testing.assert_allclose(seen, x, rtol=1e-12)
    assert type(state[1]) is DoWGState
    np.testing.assert_allclose(state[1].estim_sq_dist, sq_distance, rtol=1e-12)


def test_dog_that_starts_with_a_zero_gradient_still_moves():
    tx = dog(init_step=("learning_rate", 0.1))
    params = jnp.ones(2)
    state = tx.init(params)
    _, state = tx.update(jnp.zeros(2), state, params)
    assert state[1].is_init_step
    updates, _ = tx.update(jnp.ones(2), state, params)
    np.testing.assert_allclose(updates, -0.1, rtol=1e-6)


@pytest.mark.parametrize("tx", [dog(eps=0.0), dowg(eps=0.0, init_estim_sq_dist=1.0)])
def test_zero_gradients_without_eps(tx):
    params = jnp.ones(2)
    updates, state = tx.update(jnp.zeros(2), tx.init(params), params)
    np.testing.assert_array_equal(updates, 0)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(state))


@pytest.mark.parametrize(
    ("init_step", "text"),
    [
        (0.1, "dog: init_step must be a pair of one of distance, learning_rate, heuristic, and a"),
        (("far", 0.1), "and a number; got ('far', 0.1)."),
        (("distance", -0.1), "dog: the number of init_step must be >= 0; got ('distance', -0.1)."),
    ],
)
def test_bad_input(init_step, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        dog(init_step=init_step)
