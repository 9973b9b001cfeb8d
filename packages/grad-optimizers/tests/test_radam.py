"""RAdam against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.radam import radam, scale_by_radam

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, threshold=5.0, nesterov=False):
    m, v, limit = np.zeros(5), np.zeros(5), 2 / (1 - b2) - 1
    for t, g in enumerate(GRADS, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        m_hat = m / (1 - b1**t)
        if nesterov:
            m_hat = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        if rho >= threshold:
            r2 = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
            yield np.sqrt(r2) * m_hat / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        else:
            yield m_hat


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 5e-6)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [
    {},
    {"b1": 0.5, "b2": 0.9, "eps": 0.1, "eps_root": 0.2, "threshold": 4.5},
    {"threshold": 7.5},
    {"nesterov": True},
    {"b2": 0.0},
    {"b2": 0.5},
]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_radam(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(radam(rate), expected, x64=False)


def test_below_four_the_second_moment_is_never_used():
    # Released: NaN, the root of a negative number, as soon as rho is between 2 and 4.
    tx = scale_by_radam(b1=0.0, threshold=2.0)
    g = jnp.array([3.0, -2.0])
    state = tx.init(g)
    for _ in range(4):
        updates, state = tx.update(g, state)
        np.testing.assert_allclose(updates, g, rtol=1e-6)


@pytest.mark.parametrize("b2", [0.9, 0.999, 0.9999999])
def test_float32_gives_the_worth_of_the_second_moment_exactly(b2):
    # Of a constant gradient, the update is r. Released, at b2 = 0.9999999: all digits wrong.
    tx = scale_by_radam(0.0, b2)
    g = jnp.ones(())
    weights = np.float64(b2) ** np.arange(12)
    state = tx.init(g)
    for t in range(1, 13):
        updates, state = tx.update(g, state)
        rho = 1 + 2 * np.sum(np.arange(t) * weights[:t]) / np.sum(weights[:t])
        limit = (1 + b2) / (1 - b2)
        if rho >= 5.01:
            r2 = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
            np.testing.assert_allclose(updates, np.sqrt(r2), rtol=2e-6)
