"""LAMB against its equations."""

import jax.numpy as jnp
import numpy as np

from grad_optimizers import ScaleByAdamState
from grad_optimizers.lamb import lamb

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


def test_against_the_equations():
    b1, b2, eps, eps_root, decay, rate = 0.8, 0.9, 1e-3, 1e-4, 0.1, 0.05
    mask = {"kernel": True, "bias": False}
    tx = lamb(rate, b1, b2, eps, eps_root, decay, mask)
    params = {"kernel": jnp.arange(1.0, 6.0), "bias": jnp.ones(5)}
    state, mu, nu = tx.init(params), np.zeros(5), np.zeros(5)
    assert len(state) == 4
    assert type(state[0]) is ScaleByAdamState
    for t, g in enumerate(GRADS, 1):
        grads = {name: jnp.asarray(g, jnp.float32) for name in params}
        updates, state = tx.update(grads, state, params)
        mu, nu = b1 * mu + (1 - b1) * g, b2 * nu + (1 - b2) * g**2
        u = mu / (1 - b1**t) / (np.sqrt(nu / (1 - b2**t) + eps_root) + eps)
        for name, p in params.items():
            p = np.float64(p)
            r = u + decay * mask[name] * p
            expected = -rate * np.linalg.norm(p) / np.linalg.norm(r) * r
            np.testing.assert_allclose(updates[name], expected, rtol=1e-4, atol=1e-6)


def test_zeros_move_by_adams_direction():
    tx = lamb(0.1, eps=0.0)
    zeros = jnp.zeros(2)
    updates, _ = tx.update(jnp.array([3.0, -3.0]), tx.init(zeros), zeros)
    np.testing.assert_allclose(updates, [-0.1, 0.1], rtol=1e-6)


def test_dtypes_of_moments():
    state = lamb(0.1, mu_dtype=jnp.float32).init(jnp.ones(2, jnp.bfloat16))
    assert (state[0].mu.dtype, state[0].nu.dtype) == (jnp.float32, jnp.float32)
    assert lamb(0.1, nu_dtype=jnp.bfloat16).init(jnp.ones(2))[0].nu.dtype == jnp.bfloat16
