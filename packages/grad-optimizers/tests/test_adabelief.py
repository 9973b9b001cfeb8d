"""AdaBelief against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adabelief import adabelief, scale_by_belief

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.9, b2=0.999, eps=1e-16, eps_root=1e-16, nesterov=False):
    m, s = np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADS, start=1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        yield m_hat / (np.sqrt(s / (1 - b2**t)) + eps)


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 2e-5)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [
    {},
    {"b1": 0.5, "b2": 0.9, "eps": 0.1, "eps_root": 0.01},
    {"nesterov": True},
    {"b2": 0.0},
]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_belief(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(adabelief(rate), expected, x64=False)


@pytest.mark.parametrize("mask", [True, False])
def test_weight_decay_is_decoupled(mask):
    expected = [-0.5 * (u + 0.2 * mask * PARAMS) for u in reference()]
    tx = adabelief(0.5, weight_decay=0.2, weight_decay_mask=mask)
    check(tx, expected, x64=False)
