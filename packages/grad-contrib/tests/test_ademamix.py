"""AdEMAMix and its simplified form against their equations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.ademamix import ScaleByAdemamixState, ademamix, scale_by_ademamix
from grad_contrib.simplified_ademamix import (
    ScaleBySimplifiedAdEMAMixState,
    scale_by_simplified_ademamix,
    simplified_ademamix,
)

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(12, 3)))
PARAMS = jnp.array([1.0, -2.0, 0.5])


def slow_decay(count):
    return 1 - 1 / (10 + count)


def weight(count):
    return 0.5 * count


@pytest.mark.parametrize("b3", [0.95, 0.9999, slow_decay])
@pytest.mark.parametrize("alpha", [3.0, weight])
def test_ademamix(b3, alpha):
    b1, b2, eps, eps_root, rate, w = 0.8, 0.9, 0.05, 0.01, 0.1, 0.2
    tx = ademamix(rate, b1, b2, b3, alpha, eps, eps_root, weight_decay=w)
    state = tx.init(PARAMS)
    m = mu = v = np.zeros(3)
    for t, g in enumerate(GRADS, start=1):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, PARAMS)
        slow = b3(t - 1) if callable(b3) else b3
        m = b1 * m + (1 - b1) * g
        mu = slow * mu + (1 - slow) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        a = alpha(t - 1) if callable(alpha) else alpha
        u = (m_hat + a * mu) / (np.sqrt(v_hat + eps_root) + eps)
        np.testing.assert_allclose(updates, -rate * (u + w * PARAMS), rtol=1e-5, atol=1e-6)
    assert type(state[0]) is ScaleByAdemamixState
    assert state[0].count == state[0].count_m2 == len(GRADS)
    np.testing.assert_allclose(state[0].m2, mu, rtol=1e-5)


def test_simplified():
    b1, b2, alpha, eps, eps_root, rate, w = 0.95, 0.9, 2.0, 0.05, 0.01, 0.1, 0.2
    tx = simplified_ademamix(rate, b1, b2, alpha, eps, eps_root, w)
    state = tx.init(PARAMS)
    m = n = np.zeros(3)
    for t, g in enumerate(GRADS, start=1):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, PARAMS)
        m = b1 * m + g
        n = b2 * n + (1 - b2) * g**2
        u = (alpha * g + m) / (np.sqrt(n / (1 - b2**t) + eps_root) + eps)
        np.testing.assert_allclose(updates, -rate * (u + w * PARAMS), rtol=1e-5, atol=1e-6)
    assert type(state[0]) is ScaleBySimplifiedAdEMAMixState
    assert state[0].t == len(GRADS)


def test_the_slow_momentum_of_low_precision_parameters_does_not_stop():
    def slow(dtype):
        tx = scale_by_ademamix()
        g = jnp.ones(1, dtype)

        def step(state, _):
            return tx.update(g, state)[1], None

        return jax.lax.scan(step, tx.init(g), length=3000)[0].m2

    expected = 1 - 0.9999**3000  # bfloat16 would stop at 0.03
    np.testing.assert_allclose(slow(jnp.bfloat16), expected, rtol=1e-3)


def test_dtypes():
    state = scale_by_ademamix().init(jnp.zeros(2, jnp.bfloat16))
    assert [x.dtype for x in (state.m1, state.m2, state.nu)] == ["bfloat16", "float32", "float32"]
    state = scale_by_ademamix(mu_dtype="float16", nu_dtype="bfloat16").init(jnp.zeros(2))
    assert [x.dtype for x in (state.m1, state.m2, state.nu)] == ["float16", "float16", "bfloat16"]
    tx = scale_by_simplified_ademamix(mu_dtype="float16", nu_dtype="bfloat16")
    state = tx.init(jnp.zeros(2))
    assert (state.m.dtype, state.n.dtype) == (jnp.float16, jnp.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"b3": 1.5}, "scale_by_ademamix: b3 must be in [0, 1]; got 1.5."),
        ({"alpha": float("nan")}, "scale_by_ademamix: alpha must be a number; got nan."),
    ],
)
def test_bad_input(arguments, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        scale_by_ademamix(**arguments)
