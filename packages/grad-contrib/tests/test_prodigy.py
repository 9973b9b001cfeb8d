"""Prodigy against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.prodigy import ProdigyState, prodigy
from grad_core import apply_updates, current_learning_rate

START = {"a": np.array([1.0, -2.0]), "b": np.array(0.5)}
TARGET = {"a": np.array([4.0, 1.0]), "b": np.array(-3.0)}


def gradients(params, t):
    """Of a quadratic around the target, its curvature rising and falling."""
    return jax.tree.map(lambda p, x: (1 + 0.5 * np.sin(t)) * (p - x), params, TARGET)


def reference(steps, rate, b1, b2, b3, eps, d0, coef, w, decays, safeguard):
    """Algorithm 4 in float64, on one vector."""

    def flat(tree):
        return np.concatenate([np.ravel(tree["a"]), np.ravel(tree["b"])])

    x0 = flat(START)
    x, d, r = x0.copy(), d0, 0.0
    m, v, s = (np.zeros(3) for _ in range(3))
    for t in range(1, steps + 1):
        g = flat(gradients({"a": x[:2], "b": x[2]}, t))
        size = d * rate(t - 1) * np.sqrt(1 - b2**t) / (1 - b1**t)
        m = b1 * m + (1 - b1) * d * g
        v = b2 * v + (1 - b2) * (d * g) ** 2
        r = b3 * r + d / d0 * size * (g @ (x0 - x))
        s = b3 * s + d / d0 * (d if safeguard else size) * g
        d = max(d, coef * r / np.abs(s).sum())
        x = x - size * (m / (np.sqrt(v) + d * eps) + w * decays * x)
    return x, d


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({}, (0.9, 0.999, 0.999**0.5, 1e-8, 1e-6, 1.0, 0.0)),
        (
            {"betas": (0.5, 0.9), "beta3": 0.8, "eps": 0.1, "estim_lr0": 0.01},
            (0.5, 0.9, 0.8, 0.1, 0.01, 1.0, 0.0),
        ),
        (
            {"estim_lr0": 0.01, "estim_lr_coef": 2.0, "weight_decay": 0.1},
            (0.9, 0.999, 0.999**0.5, 1e-8, 0.01, 2.0, 0.1),
        ),
    ],
)
@pytest.mark.parametrize("special", [False, True])
def test_against_the_algorithm(options, numbers, special):
    decays = np.array([1.0, 1.0, 0.0]) if special else np.ones(3)
    mask = {"a": True, "b": False} if special else None

    def rate(count):
        return 5 / (1 + 0.02 * count) if special else 5.0

    rates = rate if special else 5.0  # such that 30 steps suffice
    tx = prodigy(rates, **options, safeguard_warmup=special, weight_decay_mask=mask)
    with jax.enable_x64(True):  # in float32, differences of the first steps are all rounding
        params = jax.tree.map(jnp.float64, START)
        state = tx.init(params)
        assert type(state) is ProdigyState
        for t in range(1, 31):
            updates, state = tx.update(gradients(params, t), state, params)
            params = apply_updates(params, updates)
    x, d = reference(30, rate, *numbers, decays, special)
    assert d > 2 * numbers[4]
    np.testing.assert_allclose(state.estim_lr, d, rtol=1e-9)
    np.testing.assert_allclose([*params["a"], params["b"]], x, rtol=1e-9)


def test_steps_before_the_first_gradient_are_none():
    tx = prodigy(weight_decay=0.1)
    params = jax.tree.map(jnp.float32, START)
    first = state = tx.init(params)
    for _ in range(2):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
        assert all((u == 0).all() for u in jax.tree.leaves(updates))
    jax.tree.map(np.testing.assert_array_equal, state, first)


def test_a_zero_gradient_later_leaves_the_estimate_finite():
    tx = prodigy()
    params = jax.tree.map(jnp.float32, START)
    state = tx.init(params)
    for zero in (False, True, False):
        g = jax.tree.map(lambda p, zero=zero: p * (not zero), params)
        updates, state = tx.update(g, state, params)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves((updates, state)))
    assert state.count == 3


def test_low_precision_keeps_tiny_moments():
    params = jnp.ones(2, jnp.float16)
    tx = prodigy()
    updates, state = tx.update(params, tx.init(params), params)
    assert state.exp_avg.dtype == state.grad_sum.dtype == jnp.float32
    assert state.params0.dtype == updates.dtype == jnp.float16
    np.testing.assert_allclose(updates, -1e-6, rtol=0.05)  # float16's subnormals are that coarse


def test_leaves_without_updates_do_not_count():
    params = jax.tree.map(jnp.float32, START)
    tx = prodigy(estim_lr0=0.1)
    alone, both = tx.init(params["a"]), tx.init(params)
    for t in range(3):
        g = jnp.array([1.0, -0.5]) * (t + 1)
        u, alone = tx.update(g, alone, params["a"])
        updates, both = tx.update({"a": g, "b": None}, both, params)
        np.testing.assert_array_equal(updates["a"], u)
    assert updates["b"] is None
    assert both.estim_lr == alone.estim_lr


def test_learning_rate_can_be_looked_up():
    tx = prodigy(lambda count: 0.5**count)
    assert current_learning_rate(tx, tx.init(jnp.ones(2))) == 1.0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"betas": 0.9}, TypeError, "prodigy: betas must be a pair of numbers; got 0.9."),
        ({"betas": (0.9, 1.1)}, ValueError, "prodigy: betas must be in [0, 1]; got (0.9, 1.1)."),
        ({"beta3": 2.0}, ValueError, "prodigy: beta3 must be in [0, 1]; got 2.0."),
        ({"safeguard_warmup": 1}, TypeError, "prodigy: safeguard_warmup must be True or False"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        prodigy(**arguments)
