"""Adafactor against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adafactor import FactoredState, adafactor, scale_by_factored_rms

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(6, 24)))


def directions(shape, least, offset=0, eps=1e-30, exponent=0.8):
    """The scaled gradients, with rows and columns written out."""
    row = col = v = 0.0
    for t, g in enumerate(GRADS.reshape(-1, *shape), 1):
        w = max(t - offset, 1) ** -exponent
        square = g**2 + eps
        *_, second, longest = np.argsort(shape, kind="stable") if len(shape) > 1 else (0, 0)
        if len(shape) < 2 or shape[second] < least:
            v = (1 - w) * v + w * square
            yield g / np.sqrt(v), None, None
        else:
            row = (1 - w) * row + w * square.mean(longest, keepdims=True)
            col = (1 - w) * col + w * square.mean(second, keepdims=True)
            yield g / np.sqrt(row * col / row.mean(second, keepdims=True)), row, col


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (2, 3, 4), (4, 2, 3), (24,), (2, 12)])
def test_factored_rms(shape):
    tx = scale_by_factored_rms(min_dim_size_to_factor=3)
    state = tx.init(jnp.zeros(shape))
    assert type(state) is FactoredState
    due = directions(shape, 3)
    for g, (expected, row, col) in zip(GRADS.reshape(-1, *shape), due, strict=True):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(updates, expected, rtol=2e-5)
        if row is None:
            assert state.v_row.shape == state.v_col.shape == (1,)
        else:
            np.testing.assert_allclose(state.v_row.ravel(), row.ravel(), rtol=1e-5)
            np.testing.assert_allclose(state.v_col.ravel(), col.ravel(), rtol=1e-5)
            assert state.v.shape == (1,)


def test_adafactor():
    rate, threshold, momentum, decay = 0.1, 0.5, 0.7, 0.01
    tx = adafactor(rate, 3, 0.6, 0, True, threshold, momentum, jnp.float32, decay, 1e-8)
    params = jnp.ones((4, 6)) * 2
    state, mean = tx.init(params), 0.0
    due = directions((4, 6), 3, eps=1e-8, exponent=0.6)
    for g, (u, _, _) in zip(GRADS.reshape(-1, 4, 6), due, strict=True):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, params)
        u = u / max(1, np.sqrt((u**2).mean()) / threshold)
        mean = momentum * mean + (1 - momentum) * rate * 2 * u
        np.testing.assert_allclose(updates, -(mean + decay * 2), rtol=2e-5)


@pytest.mark.parametrize("offset", [2, 1000, -3])
def test_an_offset_is_finite(offset):
    """Upstream's updates are NaN for an offset above the count."""
    tx = scale_by_factored_rms(step_offset=offset)
    state = tx.init(jnp.zeros(24))
    for g, (expected, _, _) in zip(GRADS, directions((24,), 128, offset), strict=True):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(updates, expected, rtol=2e-5)


@pytest.mark.parametrize("least", [2, 128])
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e30])
def test_extremes_are_finite(least, size):
    tx = scale_by_factored_rms(min_dim_size_to_factor=least)
    g = jnp.full((2, 3), size).at[0].set(0.0)
    state = tx.init(g)
    for _ in range(3):
        updates, state = tx.update(g, state)
        assert jnp.isfinite(updates).all()

    def total(epsilon, g):
        tx = scale_by_factored_rms(min_dim_size_to_factor=least, epsilon=epsilon)
        return tx.update(g, tx.init(g))[0].sum()

    for d in jax.grad(total, (0, 1))(1e-30, jnp.zeros((2, 3))):
        assert jnp.isfinite(d).all()


def test_a_decay_of_ones_own():
    tx = scale_by_factored_rms(decay_rate=0.25, decay_rate_fn=lambda count, rate: rate)
    g = jnp.array([3.0])
    _, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(state.v, [0.75 * 9], rtol=1e-6)


def test_dtypes():
    p = jnp.zeros((2, 3), jnp.bfloat16)
    state = scale_by_factored_rms(min_dim_size_to_factor=2).init(p)
    assert state.v_row.dtype == state.v_col.dtype == jnp.float32
    tx = adafactor(0.1, momentum=0.5, dtype_momentum=jnp.bfloat16, nu_dtype=jnp.bfloat16)
    state = tx.init(p)
    assert state[0].v.dtype == jnp.bfloat16
    assert state[4].ema.dtype == jnp.bfloat16
