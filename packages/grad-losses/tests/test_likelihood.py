"""Negative log likelihoods against scipy's densities, closed-form derivatives, and extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from grad_losses import gaussian_nll_loss, laplace_nll_loss, poisson_nll_loss

INF = jnp.inf
RNG = np.random.default_rng(0)
MEANS, TARGETS = (2 * RNG.normal(size=(2, 3, 4))).astype(np.float32)
SCALES = RNG.uniform(0.2, 3, size=(3, 4)).astype(np.float32)
COUNTS = RNG.integers(0, 9, size=(3, 4))


def exact(name, scales):
    m, y, s = (x.astype(np.float64) for x in (MEANS, TARGETS, scales))
    if name == "gaussian":
        return -stats.norm.logpdf(y, m, np.sqrt(s))
    return -stats.laplace.logpdf(y, m, s)


LOSSES = {"gaussian": gaussian_nll_loss, "laplace": laplace_nll_loss}
CONSTANTS = {"gaussian": np.log(2 * np.pi) / 2, "laplace": np.log(2)}


@pytest.mark.parametrize("name", LOSSES)
def test_densities(name):
    loss = jax.jit(LOSSES[name], static_argnames=("log_input", "full"))
    want = exact(name, SCALES)
    got = loss(MEANS, TARGETS, SCALES, full=True)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=1e-6)
    got = loss(MEANS, TARGETS, SCALES)
    np.testing.assert_allclose(got, want - CONSTANTS[name], rtol=2e-6, atol=1e-6)
    got = loss(MEANS, TARGETS, np.log(SCALES), log_input=True)
    np.testing.assert_allclose(got, want - CONSTANTS[name], rtol=2e-6, atol=1e-6)
    got = loss(MEANS, TARGETS, SCALES[:, :1], full=True)
    np.testing.assert_allclose(got, exact(name, SCALES[:, :1]), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "power"), [("gaussian", 2), ("laplace", 1)])
@pytest.mark.parametrize("log_input", [False, True])
def test_derivatives(name, power, log_input):
    # By s = log(scale), of k s + |e|^p exp(-p s) / p with p the power, and k = 1.
    error, scale = jnp.array([0.0, 0.5, -2.0, 30.0]), jnp.array([0.5, 1.0, 3.0, 0.01])
    half = 0.5 if name == "gaussian" else 1.0

    def loss(e, s):
        return LOSSES[name](e, 0.0, s if log_input else jnp.exp(s), log_input=log_input)

    e, v = np.asarray(error, float), np.asarray(scale, float)
    first, second = jax.grad(loss, (0, 1)), jax.hessian(loss, (0, 1))
    slopes, ((ee, es), (se, ss)) = jax.jit(jax.vmap(lambda e, s: (first(e, s), second(e, s))))(
        error, jnp.log(scale)
    )
    size = np.abs(e) ** power / v
    direction = e / v if power == 2 else np.sign(e) / v
    close = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(slopes[0], direction, **close)
    np.testing.assert_allclose(slopes[1], half * (1 - size), **close)
    np.testing.assert_allclose(ee, 1 / v if power == 2 else 0 * v, **close)
    np.testing.assert_allclose(es, -direction, **close)
    np.testing.assert_allclose(se, -direction, **close)
    np.testing.assert_allclose(ss, half * size, **close)


@pytest.mark.parametrize("name", LOSSES)
def test_small_scales_count_as_the_least_but_can_grow_again(name):
    loss, power = LOSSES[name], 2 if name == "gaussian" else 1
    gradient = jax.jit(jax.value_and_grad(lambda s: loss(3.0, 1.0, s, eps=0.25)))
    value, slope = gradient(0.25)
    assert slope < 0
    for small in (0.1, 0.0, -7.0):
        np.testing.assert_array_equal(gradient(small), (value, slope))
    logs = jax.jit(jax.value_and_grad(lambda s: loss(3.0, 1.0, s, eps=0.25, log_input=True)))
    np.testing.assert_allclose(logs(-1e4), (value, slope / 4), rtol=1e-6)
    np.testing.assert_allclose(logs(1e4), (1e4 / power, 1 / power))  # and large ones are no limit
    # By default a certain and right prediction is finite, whatever the dtype.
    half = loss(jnp.ones(1, jnp.float16), jnp.ones(1, jnp.float16), jnp.zeros(1, jnp.float16))
    np.testing.assert_allclose(half, np.log(1e-6) / power, rtol=1e-3)


def test_poisson():
    rates = np.exp(MEANS.astype(np.float64))
    factorials = np.vectorize(lambda n: np.log(np.arange(1, n + 1)).sum())(COUNTS)
    want = -stats.poisson.logpmf(COUNTS, rates)
    got = poisson_nll_loss(MEANS, COUNTS)
    np.testing.assert_allclose(got, want - factorials, rtol=2e-6, atol=1e-6)
    got = poisson_nll_loss(rates.astype(np.float32), COUNTS, log_input=False)
    np.testing.assert_allclose(got, want - factorials, rtol=2e-6, atol=1e-6)
    # Stirling's log(n!) is low by less than 1 / (12 n), and exact where it is not used.
    short = want - poisson_nll_loss(MEANS, COUNTS, full=True)
    assert np.all(short < 1 / (12 * np.maximum(COUNTS, 1)) + 1e-5)
    assert np.all(short > -1e-5)
    assert np.all(np.abs(short[COUNTS <= 1]) < 1e-5)
    derivatives = jax.jit(
        jax.vmap(
            lambda x, y: [jax.grad(poisson_nll_loss)(x, y), jax.hessian(poisson_nll_loss)(x, y)]
        )
    )
    first, second = derivatives(MEANS.ravel(), COUNTS.ravel().astype(np.float32))
    np.testing.assert_allclose(first, rates.ravel() - COUNTS.ravel(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second, rates.ravel(), rtol=1e-5)


def test_rates_of_zero():
    value = jax.jit(jax.vmap(jax.value_and_grad(poisson_nll_loss)))
    loss, slope = value(jnp.array([-INF, -INF, -1e4]), jnp.array([0.0, 2.0, 2.0]))
    np.testing.assert_array_equal(loss, [0, INF, 2e4])
    np.testing.assert_array_equal(slope, [0, -2, -2])
    rates = jax.value_and_grad(lambda r: poisson_nll_loss(r, 0, log_input=False, eps=0.0))
    np.testing.assert_array_equal(rates(0.0), (0, 1))


def test_gradients_by_counts_are_finite():
    gradient = jax.grad(lambda y: poisson_nll_loss(0.5, y, full=True))
    for count in (0.0, 1.0, 1e30):
        assert jnp.isfinite(gradient(count))


@pytest.mark.parametrize("loss", LOSSES.values())
def test_shapes_must_fit(loss):
    name = loss.__name__
    with pytest.raises(ValueError, match=rf"{name}: .*\(3, 4\) and .*\(3,\) .*have the same shape"):
        loss(MEANS, TARGETS[:, 0], SCALES)
    scale = "variances" if loss is gaussian_nll_loss else "scales"
    with pytest.raises(ValueError, match=rf"{name}: {scale} of shape \(2, 3, 4\) must"):
        loss(MEANS, TARGETS, np.stack([SCALES, SCALES]))
    with pytest.raises(ValueError, match=rf"{name}: .* {scale} of shape \(3,\) cannot"):
        loss(MEANS, TARGETS, SCALES[:, 0])
    with pytest.raises(ValueError, match=f"{name}: eps must be >= 0; got -1"):
        loss(MEANS, TARGETS, SCALES, eps=-1)
    with pytest.raises(TypeError, match=f"{name}: {scale} must be of a real floating"):
        loss(MEANS, TARGETS, COUNTS)
