"""Absolute, smooth, and pinball losses: exact values, minima, derivatives at kinks and extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, mean_pinball_loss

from grad_losses import charbonnier_loss, huber_loss, l1_loss, quantile_loss, smooth_l1_loss

INF = jnp.inf
RNG = np.random.default_rng(0)
PREDICTIONS, TARGETS = (2 * RNG.normal(size=(2, 3, 4))).astype(np.float32)
ERRORS = PREDICTIONS.astype(np.float64) - TARGETS


def each(metric, **arguments):
    """A scikit-learn metric of each element alone."""
    pairs = zip(TARGETS.ravel(), PREDICTIONS.ravel(), strict=True)
    return np.reshape([metric([y], [p], **arguments) for y, p in pairs], TARGETS.shape)


def derivatives(loss, errors):
    """Loss, slope and curvature at each error."""
    first = jax.grad(loss)
    found = jax.jit(jax.vmap(lambda e: (loss(e), first(e), jax.grad(first)(e))))
    return np.stack(found(jnp.asarray(errors)))


def test_against_scikit_learn():
    np.testing.assert_allclose(l1_loss(PREDICTIONS, TARGETS), each(mean_absolute_error), rtol=1e-6)
    np.testing.assert_allclose(l1_loss(PREDICTIONS), np.abs(PREDICTIONS))
    for quantile in (0.0, 0.1, 0.5, 0.9, 1.0):
        got = quantile_loss(PREDICTIONS, TARGETS, quantile)
        want = each(mean_pinball_loss, alpha=quantile)
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


def test_quantiles_minimize_the_quantile_loss():
    sample = jnp.asarray(np.sort(RNG.normal(size=40)), jnp.float32)
    levels = jnp.array([0.1, 0.3, 0.5, 0.9])

    def total(candidate):  # one candidate for each level, against the whole sample
        predictions = jnp.broadcast_to(candidate, (40, 4))
        return quantile_loss(predictions, sample[:, None].repeat(4, 1), levels).sum(0)

    best = jnp.argmin(jax.vmap(total)(sample[:, None].repeat(4, 1)), axis=0)
    # The total is flat between two points of the sample.
    assert np.all(np.abs(best - np.array([3.5, 11.5, 19.5, 35.5])) == 0.5)


def test_smooth_l1_is_huber_over_its_threshold():
    for beta in (0.3, 1.0, 5.0):
        got = smooth_l1_loss(PREDICTIONS, TARGETS, beta=beta)
        want = np.where(np.abs(ERRORS) < beta, ERRORS**2 / (2 * beta), np.abs(ERRORS) - beta / 2)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        np.testing.assert_allclose(
            got, huber_loss(PREDICTIONS, TARGETS, delta=beta) / beta, rtol=2e-6
        )
    np.testing.assert_array_equal(smooth_l1_loss(PREDICTIONS, beta=0), np.abs(PREDICTIONS))
    columns = smooth_l1_loss(PREDICTIONS, beta=jnp.array([0.0, 1.0, 1.0, 5.0]))
    np.testing.assert_array_equal(columns[:, 3], smooth_l1_loss(PREDICTIONS[:, 3], beta=5.0))


def test_smooth_l1_at_kinks_and_extremes():
    e = [-INF, -3e38, -2.0, -0.5, 0.0, 1e-30, 0.5, 1.0, INF]
    loss = [INF, 3e38, 1.5, 0.125, 0, 0, 0.125, 0.5, INF]
    slope, curvature = [-1, -1, -1, -0.5, 0, 1e-30, 0.5, 1, 1], [0, 0, 0, 1, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(derivatives(smooth_l1_loss, e), [loss, slope, curvature], rtol=1e-6)
    sharp = derivatives(lambda e: smooth_l1_loss(e, beta=0.0), [-2.0, 0.0, INF])
    np.testing.assert_array_equal(sharp, [[2, 0, INF], [-1, 0, 1], [0, 0, 0]])
    # With respect to beta: -(e / beta)^2 / 2 inside, -1/2 outside, and never NaN.
    by_beta = jax.vmap(jax.grad(lambda b, e: smooth_l1_loss(e, beta=b)), (0, None))
    np.testing.assert_allclose(by_beta(jnp.array([0.0, 0.5, 2.0]), 1.0), [-0.5, -0.5, -0.125])


def test_charbonnier():
    np.testing.assert_allclose(
        charbonnier_loss(PREDICTIONS, TARGETS, eps=0.3), np.hypot(ERRORS, 0.3), rtol=1e-6
    )
    e = np.array([-INF, -1e30, -4.0, 0.0, 1e-30, 3.0, INF])
    root = np.hypot(e, 3)
    with np.errstate(invalid="ignore", over="ignore"):
        want = [root, np.where(np.isinf(e), np.sign(e), e / root), 9 / root**3]
    got = derivatives(lambda e: charbonnier_loss(e, eps=3.0), e)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-30)
    by_eps = jax.grad(lambda eps: charbonnier_loss(4.0, eps=eps))(3.0)
    np.testing.assert_allclose(by_eps, 0.6)


def test_the_quantile_loss_at_its_kink_and_extremes():
    loss, slope, curvature = derivatives(
        lambda e: quantile_loss(e, 0.0, 0.75), [-INF, -3e38, -1.0, 1.0, INF]
    )
    np.testing.assert_allclose(loss, [INF, 2.25e38, 0.75, 0.25, INF])
    np.testing.assert_allclose(slope, [-0.75, -0.75, -0.75, 0.25, 0.25])
    np.testing.assert_array_equal(curvature, 0)
    assert -0.75 <= jax.grad(quantile_loss)(0.0, 0.0, 0.75) <= 0.25


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: l1_loss(jnp.ones(3), jnp.ones((3, 1))), r"l1_loss: predictions .* \(3, 1\)"),
        (lambda: smooth_l1_loss(1.0, beta=-1.0), "smooth_l1_loss: beta must be >= 0; got -1.0"),
        (lambda: charbonnier_loss(1.0, eps=0.0), "charbonnier_loss: eps must be > 0; got 0.0"),
        (lambda: quantile_loss(1.0, 2.0, 1.5), r"quantile must be in \[0, 1\]; got 1.5"),
        (lambda: quantile_loss(1.0, 2.0, 90), r"quantile must be in \[0, 1\]; got 90"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
