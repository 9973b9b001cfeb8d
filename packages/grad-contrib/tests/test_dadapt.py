"""D-Adaptation against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.dadapt import DAdaptAdamWState, dadapt_adamw
from grad_core import apply_updates

START = np.array([1.0, -2.0, 0.5])
TARGET = np.array([4.0, 1.0, -3.0])


def gradient(x, t):
    """Of a quadratic around the target, its curvature rising and falling."""
    return (1 + 0.5 * np.sin(t)) * (x - TARGET)


def reference(steps, rate, b1, b2, eps, d0, w):
    """Algorithm 5 in float64, the inner product weighted as in its implementation."""
    x, d, r, root = START.copy(), d0, 0.0, np.sqrt(b2)
    m, v, s = (np.zeros(3) for _ in range(3))
    for t in range(1, steps + 1):
        g = gradient(x, t)
        size = d * rate(t - 1) * np.sqrt(1 - b2**t) / (1 - b1**t)
        r = root * r + (1 - root) * size * (g @ (s / (np.sqrt(v) + eps)))
        m = b1 * m + (1 - b1) * size * g
        v = b2 * v + (1 - b2) * g**2
        s = root * s + (1 - root) * size * g
        d = max(d, r / ((1 - root) * np.abs(s).sum()))
        x = x - m / (np.sqrt(v) + eps) - size * w * x
    return x, d


@pytest.mark.parametrize(
    ("rate", "b1", "b2", "eps", "d0", "w"),
    [
        (lambda count: 1.0, 0.9, 0.999, 1e-8, 1e-6, 0.0),
        (lambda count: 1 / (1 + 0.1 * count), 0.5, 0.9, 0.1, 1e-3, 0.1),
    ],
)
def test_against_the_algorithm(rate, b1, b2, eps, d0, w):
    tx = dadapt_adamw(rate, (b1, b2), eps, d0, w)
    with jax.enable_x64(True):
        params = {"a": jnp.asarray(START[:2]), "b": jnp.asarray(START[2])}
        state = tx.init(params)
        assert type(state) is DAdaptAdamWState
        for t in range(1, 31):
            g = gradient(np.array([*params["a"], params["b"]]), t)
            updates, state = tx.update({"a": g[:2], "b": g[2]}, state, params)
            params = apply_updates(params, updates)
    x, d = reference(30, rate, b1, b2, eps, d0, w)
    assert d > 2 * d0
    np.testing.assert_allclose(state.estim_lr, d, rtol=1e-9)
    np.testing.assert_allclose([*params["a"], params["b"]], x, rtol=1e-9)


def test_steps_before_the_first_gradient_are_none():
    tx = dadapt_adamw(weight_decay=0.1)
    params = jnp.array([1.0, -2.0])
    first = state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jnp.zeros(2), state, params)
        assert (updates == 0).all()
    jax.tree.map(np.testing.assert_array_equal, state, first)
    updates, state = tx.update(params, state, params)
    updates, state = tx.update(jnp.zeros(2), state, params)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((updates, state)))


def test_low_precision_keeps_tiny_moments():
    params = jnp.ones(2, jnp.float16)
    tx = dadapt_adamw()
    updates, state = tx.update(params, tx.init(params), params)
    assert state.exp_avg.dtype == state.grad_sum.dtype == jnp.float32
    np.testing.assert_allclose(updates, -1e-6, rtol=0.05)  # float16's subnormals are that coarse


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"betas": (0.9,)}, TypeError, "dadapt_adamw: betas must be a pair of numbers; got (0.9,)"),
        ({"betas": (-1, 0.9)}, ValueError, "dadapt_adamw: betas must be in [0, 1]; got (-1, 0.9)."),
        ({"eps": -1.0}, ValueError, "dadapt_adamw: eps must be >= 0; got -1.0."),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        dadapt_adamw(**arguments)
