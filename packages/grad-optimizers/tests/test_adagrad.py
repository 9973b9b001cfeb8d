"""Adagrad against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adagrad import adagrad, scale_by_rss

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(initial_accumulator_value=0.1, eps=1e-7):
    s = np.full(5, initial_accumulator_value)
    for g in GRADS:
        s = s + g**2
        yield g / np.sqrt(s + eps)


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 2e-6)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [{}, {"initial_accumulator_value": 2.0, "eps": 0.1}, {"initial_accumulator_value": 0.0}]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_rss(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(adagrad(rate), expected, x64=False)
