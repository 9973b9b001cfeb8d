"""Perturbed functions against the smoothed functions that they estimate, in every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_estimators import perturbations
from grad_estimators.perturbations import Gumbel, Normal, make_perturbed_fun

scipy_stats = pytest.importorskip("scipy.stats")

KEY = jax.random.key(0)
COUNT = 100_000


def test_noise():
    z = np.linspace(-1, 3, 7)
    np.testing.assert_allclose(Gumbel().log_prob(z), scipy_stats.gumbel_r.logpdf(z), rtol=1e-5)
    constant = np.log(2 * np.pi) / 2
    np.testing.assert_allclose(
        Normal().log_prob(z), scipy_stats.norm.logpdf(z) + constant, atol=1e-6
    )
    np.testing.assert_array_equal(Gumbel().sample(KEY, (3,)), jax.random.gumbel(KEY, (3,)))
    np.testing.assert_array_equal(Normal().sample(KEY, (3,)), jax.random.normal(KEY, (3,)))
    assert Normal().sample(KEY, (3,), jnp.bfloat16).dtype == jnp.bfloat16


def test_an_argmax_becomes_a_softmax():
    """With Gumbel noise: values, and the Jacobian (diag(p) - p p') / sigma."""
    x, sigma = jnp.array([1.0, 0.0, -0.5]), 0.8
    soft = make_perturbed_fun(lambda x: jax.nn.one_hot(jnp.argmax(x), 3), COUNT, sigma)
    value, jacobian = jax.jit(lambda x: (soft(KEY, x), jax.jacobian(soft, 1)(KEY, x)))(x)
    p = np.exp(np.asarray(x, float) / sigma)
    p /= p.sum()
    np.testing.assert_allclose(value, p, atol=4 * 0.5 / COUNT**0.5)
    np.testing.assert_allclose(jacobian, (np.diag(p) - np.outer(p, p)) / sigma, atol=0.02)


@pytest.mark.parametrize("use_baseline", [True, False])
def test_derivatives_of_two_orders(use_baseline):
    """E[(x + s z)^2] = x^2 + s^2: derivatives 2 x and 2, from values only."""
    x, sigma = jnp.array([0.5, 1.0]), 1.0

    def f(x):
        return jnp.sum(jax.lax.stop_gradient(x) ** 2)

    smooth = make_perturbed_fun(f, COUNT, sigma, Normal(), use_baseline)

    @jax.jit
    def run(x):
        return smooth(KEY, x), jax.grad(smooth, 1)(KEY, x), jax.hessian(smooth, 1)(KEY, x)

    value, gradient, hessian = run(x)
    np.testing.assert_allclose(value, 1.25 + 2 * sigma**2, rtol=0.02)
    np.testing.assert_allclose(gradient, [1, 2], atol=0.05)
    np.testing.assert_allclose(hessian, 2 * np.eye(2), atol=0.15)


def test_a_baseline_changes_the_variance_only():
    x = jnp.array([0.5, 1.0])

    @jax.jit
    @jax.vmap
    def run(key):
        def gradient(use_baseline):
            smooth = make_perturbed_fun(
                lambda x: 100 + jnp.sum(x > 0), 20, 0.5, Normal(), use_baseline
            )
            return smooth(key, x), jax.grad(smooth, 1)(key, x)

        return gradient(True), gradient(False)

    (value, low), (same, high) = run(jax.random.split(KEY, 2000))
    np.testing.assert_allclose(value, same, rtol=1e-6)
    assert (np.var(low, 0) < np.var(high, 0) / 100).all()
    exact = scipy_stats.norm.pdf(np.asarray(x) / 0.5) / 0.5
    assert (np.abs(np.mean(low, 0) - exact) < 4 * np.std(low, 0) / 2000**0.5).all()


def test_trees_keys_and_what_is_closed_over():
    x = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(0.5), "none": None}

    @jax.jit
    def loss(w, x, key):
        def f(x):
            return {"s": w * jnp.sum(x["a"]) * x["b"], "above": x["a"] > 1, "none": None}

        return make_perturbed_fun(f, 7)(key, x)

    for key in (KEY, jax.random.PRNGKey(0)):
        value = loss(3.0, x, key)
        assert value["above"].dtype == jnp.float32
        assert value["none"] is None
        by_w = jax.jit(jax.grad(lambda *args: loss(*args)["s"]))(3.0, x, key)
        np.testing.assert_allclose(3 * by_w, value["s"], rtol=1e-5)
    number = make_perturbed_fun(lambda x: x, 4)
    np.testing.assert_array_equal(number(KEY, 3.0), number(KEY, jnp.array(3.0)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_low_precision_stays_finite_and_low(dtype):
    smooth = make_perturbed_fun(lambda x: jnp.sum(x**2), 10, 0.01, Normal())
    x = jnp.array([1.0, 2.0], dtype)
    value, gradient = jax.jit(jax.value_and_grad(smooth, 1))(KEY, x)
    assert value.dtype == gradient.dtype == dtype
    assert np.isfinite(np.float32(gradient)).all()


def test_bad_input():
    with pytest.raises(ValueError, match="make_perturbed_fun: num_samples must be >= 1; got 0"):
        make_perturbed_fun(jnp.sum, 0)
    with pytest.raises(ValueError, match="make_perturbed_fun: sigma must not be 0"):
        make_perturbed_fun(jnp.sum, 3, 0.0)
    with pytest.raises(TypeError, match="make_perturbed_fun: fun must be callable"):
        make_perturbed_fun(3)
    with pytest.raises(ValueError, match="inputs must be of floating point dtypes; got int32"):
        make_perturbed_fun(jnp.sum)(KEY, jnp.arange(3))
    with pytest.raises(TypeError, match="make_perturbed_fun: rng must be a random key; got 0"):
        make_perturbed_fun(jnp.sum)(0, jnp.ones(3))


def test_names():
    assert sorted(perturbations.__all__) == ["Gumbel", "Normal", "make_perturbed_fun"]
