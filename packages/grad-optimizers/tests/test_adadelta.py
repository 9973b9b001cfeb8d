"""Adadelta against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adadelta import adadelta, scale_by_adadelta

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(rho=0.9, eps=1e-6, weight_decay=0.0):
    e_g, e_x = np.zeros(5), np.zeros(5)
    for g in GRADS:
        g = g + weight_decay * PARAMS
        e_g = rho * e_g + (1 - rho) * g**2
        u = g * np.sqrt(e_x + eps) / np.sqrt(e_g + eps)
        e_x = rho * e_x + (1 - rho) * u**2
        yield u


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


SETTINGS = [{}, {"rho": 0.5, "eps": 0.1}, {"rho": 0.0}, {"rho": 1.0}]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_adadelta(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(adadelta(rate), expected, x64=False)


@pytest.mark.parametrize("mask", [True, False])
def test_weight_decay_is_added_to_the_gradient(mask):
    expected = [-0.5 * u for u in reference(weight_decay=0.2 * mask)]
    check(adadelta(0.5, weight_decay=0.2, weight_decay_mask=mask), expected, x64=False)


def test_without_a_learning_rate_the_sign_stays():
    check(adadelta(), list(reference()), x64=False)
