"""Fromage against its equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import apply_updates
from grad_optimizers.fromage import fromage

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


@pytest.mark.parametrize("rate", [0.3, lambda count: 0.3 / (1 + count)])
def test_against_the_equations(rate):
    tx = fromage(rate)
    params = jnp.arange(1.0, 6.0)
    state = tx.init(params)
    for count, g in enumerate(GRADS):
        a = rate(count) if callable(rate) else rate
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, params)
        p = np.float64(params)
        new = (p - a * np.linalg.norm(p) / np.linalg.norm(g) * g) / np.sqrt(1 + a**2)
        np.testing.assert_allclose(updates, new - p, rtol=1e-4, atol=1e-6)
        params = apply_updates(params, updates)


def test_the_least_norm_lets_zeros_move():
    tx, zeros = fromage(0.75, min_norm=0.1), jnp.zeros(2)
    updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(zeros), zeros)
    np.testing.assert_allclose(updates, [-0.036, -0.048], rtol=1e-5)


def test_shrinking_does_not_cancel():
    params = jnp.array([1.0, 0.0])
    for rate in (1e-4, jnp.float32(1e-4)):
        tx = fromage(rate)
        updates, _ = tx.update(jnp.array([0.0, 1.0]), tx.init(params), params)
        np.testing.assert_allclose(updates[0], -0.5e-8, rtol=1e-5)
