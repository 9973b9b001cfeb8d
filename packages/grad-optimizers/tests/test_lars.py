"""LARS against its equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.lars import lars

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


@pytest.mark.parametrize("nesterov", [False, True])
def test_against_the_equations(nesterov):
    rate, decay, eta, eps, momentum = 2.0, 0.1, 0.01, 0.5, 0.8
    decayed = {"kernel": True, "bias": False}
    scaled = {"kernel": True, "bias": False}
    tx = lars(rate, decay, decayed, eta, eps, scaled, momentum, nesterov)
    params = {"kernel": jnp.arange(1.0, 6.0), "bias": jnp.ones(5)}
    state, trace = tx.init(params), dict.fromkeys(params, 0.0)
    for g in GRADS:
        grads = {name: jnp.asarray(g, jnp.float32) for name in params}
        updates, state = tx.update(grads, state, params)
        for name, p in params.items():
            p = np.float64(p)
            step = r = g + decay * decayed[name] * p
            if scaled[name]:
                step = eta * np.linalg.norm(p) / (np.linalg.norm(r) + eps) * r
            trace[name] = momentum * trace[name] - rate * step
            expected = momentum * trace[name] - rate * step if nesterov else trace[name]
            np.testing.assert_allclose(updates[name], expected, rtol=1e-4, atol=1e-6)


def test_zero_gradients_and_parameters():
    tx = lars(1.0)
    zeros = jnp.zeros(2, jnp.float16)
    assert (tx.update(zeros, tx.init(zeros), zeros)[0] == 0).all()
    assert lars(1.0, accumulator_dtype=jnp.float32).init(zeros)[3].trace.dtype == jnp.float32
