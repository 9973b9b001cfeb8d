"""Losses of ratios against scikit-learn, with derivatives and extremes in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_percentage_error, mean_squared_log_error

from grad_losses import absolute_percentage_error_loss, squared_log_error_loss

RNG = np.random.default_rng(0)
PREDICTIONS, TARGETS = RNG.lognormal(size=(2, 3, 4)).astype(np.float32)
LOSSES = {
    absolute_percentage_error_loss: mean_absolute_percentage_error,
    squared_log_error_loss: mean_squared_log_error,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_against_scikit_learn(loss):
    pairs = zip(TARGETS.ravel(), PREDICTIONS.ravel(), strict=True)
    want = np.reshape([LOSSES[loss]([y], [p]) for y, p in pairs], TARGETS.shape)
    np.testing.assert_allclose(loss(PREDICTIONS, TARGETS), want, rtol=1e-5)
    halves = loss(PREDICTIONS.astype(np.float16), TARGETS.astype(np.float16))
    assert halves.dtype == jnp.float16


def test_percentages_of_small_targets():
    loss = absolute_percentage_error_loss
    np.testing.assert_allclose(loss(jnp.array([-3.0, 0.0]), jnp.array([-4, 0])), [0.25, 0])
    np.testing.assert_allclose(loss(0.5, 0.0, eps=0.25), 2)
    gradient = jax.jit(jax.vmap(jax.grad(loss, (0, 1))))
    by_prediction, by_target = gradient(
        jnp.array([3.0, 5.0, 1.0, 2.0]), jnp.array([4.0, -2.0, 0.0, 2.0])
    )
    np.testing.assert_allclose(by_prediction, [-1 / 4, 1 / 2, 1e7, 0])
    np.testing.assert_allclose(by_target, [3 / 16, 5 / 4, -1e7, 0])


def test_logarithms_of_small_and_large_numbers():
    loss = squared_log_error_loss
    small = loss(jnp.array([1e-20, 3e-8]), jnp.array([0.0, 1e-8]))
    np.testing.assert_allclose(small, [1e-40, 4e-16], rtol=1e-6, atol=1e-38)
    large = loss(jnp.array([3e38, 0.0, 1e9]), jnp.array([0.0, 3e38, 1e9 + 64]))
    np.testing.assert_allclose(large, [*2 * [np.log(3e38) ** 2], 64e-9**2], rtol=1e-6)
    x, y = jnp.array([0.0, 1.0, 9.0, 2.0, 0.5, 1e37]), jnp.array([0.0, 3.0, 1.0, 2.0, 1e37, 2.0])
    gap = np.log1p(np.asarray(x)) - np.log1p(np.asarray(y))
    first, second = jax.jit(jax.vmap(lambda x, y: (jax.grad(loss)(x, y), jax.hessian(loss)(x, y))))(
        x, y
    )
    np.testing.assert_allclose(first, 2 * gap / (1 + x), rtol=1e-6)
    np.testing.assert_allclose(second, 2 * (1 - gap) / (1 + x) ** 2, rtol=1e-6, atol=1e-37)


def test_errors():
    with pytest.raises(ValueError, match="absolute_percentage_error_loss: eps must be > 0; got 0"):
        absolute_percentage_error_loss(1.0, 1.0, eps=0)
    for loss in LOSSES:
        with pytest.raises(
            ValueError, match=rf"{loss.__name__}: predictions of .* \(3,\) and targets"
        ):
            loss(jnp.ones(3), jnp.ones((3, 1)))
