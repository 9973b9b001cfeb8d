"""Adan against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adan import adan, scale_by_adan

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8):
    m, v, n, last = np.zeros(5), np.zeros(5), np.zeros(5), GRADS[0]
    for t, g in enumerate(GRADS, start=1):
        d, last = g - last, g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + (1 - b2) * d) ** 2
        ahead = m / (1 - b1**t) + (1 - b2) * v / (1 - b2**t)
        yield ahead / (np.sqrt(n / (1 - b3**t) + eps_root) + eps)


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


SETTINGS = [{}, {"b1": 0.5, "b2": 0.9, "b3": 0.7, "eps": 0.1, "eps_root": 0.2}, {"b2": 0.0}]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_adan(**settings), reference(**{"eps_root": 0.0, **settings}), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(adan(rate), expected, x64=False)


@pytest.mark.parametrize("mask", [True, False])
def test_weight_decay_is_decoupled(mask):
    expected = [-0.5 * (u + 0.2 * mask * PARAMS) for u in reference()]
    tx = adan(0.5, weight_decay=0.2, mask=mask)
    check(tx, expected, x64=False)


def test_leaves_without_a_gradient_stay():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = scale_by_adan()
    updates, state = tx.update({"a": jnp.ones(2), "b": None}, tx.init(params))
    assert updates["b"] is None
    assert int(state.t) == 1
    np.testing.assert_array_equal(state.g["b"], jnp.zeros(2))
