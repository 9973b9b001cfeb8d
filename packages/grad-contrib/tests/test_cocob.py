"""COCOB against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.cocob import COCOBState, cocob, scale_by_cocob
from grad_core import apply_updates

START = np.array([1.0, -2.0, 0.5, 0.0])
TARGET = np.array([1.3, -1.0, -3.0, 0.02])


@pytest.mark.parametrize("rate", [1.0, lambda count: 1 / (1 + 1.0 * count)])
@pytest.mark.parametrize("decays", [None, np.array([1.0, 1.0, 0.0, 0.0])])
def test_against_the_algorithm(rate, decays):
    alpha, eps = 5.0, 0.01
    w = 0.1 if decays is None else 0.1 * decays
    mask = None if decays is None else {"a": True, "b": False}
    tx = cocob(rate, alpha, eps, 0.1, mask)
    x = START
    total = absolute = reward = np.zeros(4)
    largest = np.full(4, eps)
    with jax.enable_x64(True):
        params = {"a": jnp.asarray(START[:2]), "b": jnp.asarray(START[2:])}
        state = tx.init(params)
        for t in range(30):
            here = np.concatenate([params["a"], params["b"]])
            grads = {"a": (here - TARGET)[:2], "b": (here - TARGET)[2:]}
            updates, state = tx.update(grads, state, params)
            params = apply_updates(params, updates)
            g = -(rate(t) if callable(rate) else rate) * (x - TARGET + w * x)
            largest = np.maximum(largest, np.abs(g))
            absolute = absolute + np.abs(g)
            reward = np.maximum(reward + (x - START) * g, 0)
            total = total + g
            divisor = largest * np.maximum(absolute + largest, alpha * largest)
            x = START + total / divisor * (largest + reward)
            np.testing.assert_allclose([*params["a"], *params["b"]], x, rtol=1e-9, atol=1e-12)
    assert type(state[2]) is COCOBState
    assert (reward > 0).any()
    np.testing.assert_allclose([*state[2].reward["a"], *state[2].reward["b"]], reward, rtol=1e-9)


def test_the_scale_of_the_loss_does_not_matter():
    params = jnp.array([1.0, -2.0])
    moved = []
    for factor in (1e-3, 1e3):
        tx = cocob()
        state, p = tx.init(params), params
        for _ in range(5):
            updates, state = tx.update(factor * (p - 3.0), state, p)
            p = apply_updates(p, updates)
        moved.append(p)
    np.testing.assert_allclose(*moved, rtol=1e-5)


def test_zero_gradients_without_eps_make_no_step():
    tx = scale_by_cocob(eps=0.0)
    params = jnp.ones(2)
    updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    np.testing.assert_array_equal(updates, 0)


def test_statistics_of_low_precision_parameters_are_float32():
    state = scale_by_cocob().init(jnp.ones(2, jnp.float16))
    assert state.init_particles.dtype == jnp.float16
    assert {x.dtype for x in state[1:]} == {jnp.dtype("float32")}
    np.testing.assert_allclose(state.scale, 1e-8, rtol=1e-6)  # in float16 it would be 0


def test_bad_input():
    with pytest.raises(ValueError, match=re.escape("cocob: alpha must be >= 0; got -1.0.")):
        cocob(alpha=-1.0)
