"""Sign descent against its equations."""

import jax.numpy as jnp
import numpy as np

from grad_optimizers.sign import sign_sgd, signum

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


def test_sign_sgd():
    tx = sign_sgd(lambda count: 0.1 / (1 + count))
    state = tx.init(jnp.zeros(5))
    for count, g in enumerate(GRADS):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(updates, -0.1 / (1 + count) * np.sign(g), rtol=1e-6)


def test_signum():
    tx = signum(0.1, beta=0.7, accumulator_dtype=jnp.float32)
    state, mean = tx.init(jnp.zeros(5, jnp.bfloat16)), np.zeros(5)
    assert state[0].ema.dtype == jnp.float32
    for g in GRADS:
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        mean = 0.7 * mean + 0.3 * g
        np.testing.assert_allclose(updates, -0.1 * np.sign(mean), rtol=1e-6)
        np.testing.assert_allclose(state[0].ema, mean, rtol=1e-5, atol=1e-7)
