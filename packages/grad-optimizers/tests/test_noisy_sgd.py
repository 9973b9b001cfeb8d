"""Noisy descent: the noise of `add_noise`, times the learning rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import AddNoiseState, add_noise
from grad_optimizers.noisy_sgd import noisy_sgd


def test_is_noise_then_a_step():
    zeros = jnp.zeros(1000)
    tx, noise = noisy_sgd(0.1, 0.5, 0.7, key=jax.random.key(3)), add_noise(0.5, 0.7, key=3)
    state, other = tx.init(zeros), noise.init(zeros)
    assert type(state[0]) is AddNoiseState
    for t in (1, 2, 3):
        updates, state = tx.update(zeros, state)
        expected, other = noise.update(zeros, other)
        np.testing.assert_allclose(updates, -0.1 * expected, rtol=1e-6)
        assert np.std(updates) == pytest.approx(0.1 * np.sqrt(0.5 / t**0.7), rel=0.1)


def test_keys():
    zeros = jnp.zeros(3)
    with pytest.warns(DeprecationWarning, match="seed is deprecated"):
        old = noisy_sgd(0.1, seed=3)
    new = noisy_sgd(0.1, key=3)
    np.testing.assert_array_equal(
        old.update(zeros, old.init(zeros))[0], new.update(zeros, new.init(zeros))[0]
    )
    with pytest.raises(ValueError, match=r"^noisy_sgd \(in its add_noise\)|give key or seed"):
        noisy_sgd(0.1, key=3, seed=3)
    with pytest.warns(UserWarning, match="without a key"):
        noisy_sgd(0.1)
