"""NAdam and NAdamW against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers import adam
from grad_optimizers.nadam import nadam, nadamw

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    m, v = np.zeros(5), np.zeros(5)
    for t, g in enumerate(GRADS, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        yield ahead / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)


def check(tx, expected, x64):
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 5e-6)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", [{}, {"b1": 0.5, "b2": 0.9, "eps": 0.1, "eps_root": 0.2}])
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(nadam(0.5, **settings), [-0.5 * u for u in reference(**settings)], x64)


@pytest.mark.parametrize("mask", [True, False])
def test_weight_decay_is_decoupled(mask):
    expected = [-0.5 * (u + 0.2 * mask * PARAMS) for u in reference()]
    check(nadamw(0.5, weight_decay=0.2, mask=mask), expected, x64=False)


def test_without_look_ahead_it_is_adam():
    g = jnp.asarray(GRADS[0])
    ours, adams = nadam(0.1, nesterov=False), adam(0.1)
    np.testing.assert_array_equal(
        ours.update(g, ours.init(g))[0], adams.update(g, adams.init(g))[0]
    )


def test_dtypes_of_the_moments():
    params = jnp.ones(3, jnp.bfloat16)
    for make in (nadam, nadamw):
        assert make(0.1).init(params)[0].mu.dtype == jnp.bfloat16
        assert make(0.1).init(params)[0].nu.dtype == jnp.float32
        state = make(0.1, mu_dtype=jnp.float32, nu_dtype=jnp.bfloat16).init(params)[0]
        assert (state.mu.dtype, state.nu.dtype) == (jnp.float32, jnp.bfloat16)
