"""Rprop against its equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.rprop import ScaleByRpropState, rprop, scale_by_rprop

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(30, 5)))


@pytest.mark.parametrize("rate", [0.1, np.float32(0.1), lambda count: 0.1 / (1 + count)])
def test_against_the_equations(rate):
    minus, plus, least, most = 0.4, 1.5, 0.03, 0.2
    tx = rprop(rate, minus, plus, least, most)
    state = tx.init(jnp.zeros(5))
    assert type(state[0]) is ScaleByRpropState
    sizes, last = np.full(5, 0.1), np.zeros(5)
    for g in GRADS:
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        for i in range(5):
            agreement = g[i] * last[i]
            if agreement != 0:
                sizes[i] = np.clip(sizes[i] * (plus if agreement > 0 else minus), least, most)
            last[i] = 0 if agreement < 0 else sizes[i] * np.sign(g[i])
        np.testing.assert_allclose(updates, -last, rtol=1e-5)
        np.testing.assert_allclose(state[0].step_sizes, sizes, rtol=1e-5)
        np.testing.assert_allclose(state[0].prev_updates, last, rtol=1e-5)


def test_the_first_gradient_already_moves():
    tx = rprop(0.1)  # upstream's steps are one gradient late: its first is 0
    updates, _ = tx.update(jnp.array([3.0, -3.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-0.1, 0.1])


def test_tiny_gradients_keep_their_sign():
    tx = scale_by_rprop(0.1)
    g = jnp.array([2e-38])
    state = tx.init(g)
    for expected in (0.1, 0.12):
        updates, state = tx.update(g, state)
        np.testing.assert_allclose(updates, [expected], rtol=1e-6)


def test_dtypes():
    state = scale_by_rprop(0.1).init(jnp.zeros(2, jnp.bfloat16))
    assert (state.step_sizes.dtype, state.prev_updates.dtype) == (jnp.float32, jnp.bfloat16)
    tx = scale_by_rprop(0.1, mu_dtype=jnp.float32, nu_dtype=jnp.bfloat16)
    state = tx.init(jnp.zeros(2, jnp.bfloat16))
    assert (state.step_sizes.dtype, state.prev_updates.dtype) == (jnp.bfloat16, jnp.float32)
