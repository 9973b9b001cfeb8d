"""Yogi against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.yogi import scale_by_yogi, yogi

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.9, b2=0.999, eps=1e-3, eps_root=0.0, initial_accumulator_value=1e-6):
    m, v = np.full(5, initial_accumulator_value), np.full(5, initial_accumulator_value)
    for t, g in enumerate(GRADS, start=1):
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        yield m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 1e-5)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [
    {},
    {"b1": 0.5, "b2": 0.9, "eps": 0.1, "eps_root": 0.2, "initial_accumulator_value": 0.5},
    {"initial_accumulator_value": 0.0},
]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_yogi(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(yogi(rate), expected, x64=False)


def test_squares_beyond_float32_stay_finite():
    g = jnp.full(2, 1e30)
    tx = scale_by_yogi()
    state = tx.init(g)
    for _ in range(3):
        updates, state = tx.update(g, state)
        assert jnp.isfinite(updates).all()
