"""VIMCO against the bound itself, by sums over all groups of samples in float64."""

import itertools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge
from grad_estimators.vimco import bounds_of_others

KEY = jax.random.key(3)
LOGITS = np.array([0.3, -0.8, 0.9])
LOG_P = np.array([-1.0, 0.5, -2.2])
PARTICLES = 3


def choices(logits):
    return distrax.Categorical(logits=logits)


def bound(logits, log_p):
    """E[log mean(p / q)], summed over all groups."""
    log_q = logits - np.log(np.sum(np.exp(logits)))
    groups = np.array(list(itertools.product(range(3), repeat=PARTICLES)))
    weights = np.exp(log_p - log_q)[groups]
    return np.exp(log_q[groups].sum(1)) @ np.log(weights.mean(1))


def slopes(f, x):
    """The gradient of f at x, by central differences."""
    return np.array([(f(x + e) - f(x - e)) / 2e-5 for e in 1e-5 * np.eye(len(x))])


def test_both_forms_have_the_gradient_of_the_bound():
    @jax.jit
    def compute(logits, log_p):
        def surrogate(logits, log_p):
            arguments = lambda x: log_p[x], [logits], choices, KEY, 100_000, PARTICLES
            return ge.vimco_surrogate(*arguments)

        jacobians = ge.vimco_jacobians(
            lambda x: log_p[x], [logits], choices, KEY, 100_000, PARTICLES
        )
        return jacobians[0], jax.value_and_grad(surrogate, (0, 1))(logits, log_p)

    jacobian, (value, (gradient, d_log_p)) = compute(jnp.array(LOGITS), jnp.array(LOG_P))
    jacobian = np.asarray(jacobian, np.float64)
    error = jacobian.std(0) / 100_000**0.5
    exact = slopes(lambda logits: bound(logits, LOG_P), LOGITS)
    assert np.all(np.abs(jacobian.mean(0) - exact) <= 4 * error)
    np.testing.assert_allclose(gradient, jacobian.mean(0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(value, bound(LOGITS, LOG_P), atol=4 * 0.004)  # the error is 0.004
    exact = slopes(lambda log_p: bound(LOGITS, log_p), LOG_P)
    np.testing.assert_allclose(d_log_p, exact, atol=0.01)
    np.testing.assert_allclose(jacobian.var(0), variance(has_baseline=True), rtol=0.05)
    assert np.sum(jacobian.var(0)) < 0.5 * np.sum(variance(has_baseline=False))


def variance(has_baseline):
    """Of sum_k (L - L_k) grad log q(x_k) + grad L, exactly; without a baseline, L_k is E[L]."""
    log_q = LOGITS - np.log(np.sum(np.exp(LOGITS)))
    groups = np.array(list(itertools.product(range(3), repeat=PARTICLES)))
    p_group = np.exp(log_q[groups].sum(1))
    weights = np.exp(LOG_P - log_q)[groups]
    values = np.log(weights.mean(1))
    baselines = np.full_like(weights, p_group @ values)
    if has_baseline:
        for k in range(PARTICLES):
            others = np.delete(weights, k, axis=1)
            geometric = np.prod(others, axis=1) ** (1 / (PARTICLES - 1))
            baselines[:, k] = np.log((others.sum(1) + geometric) / PARTICLES)
    scores = np.eye(3)[groups] - np.exp(log_q)
    shares = weights / weights.sum(1, keepdims=True)
    g = np.sum((values[:, None] - baselines - shares)[..., None] * scores, axis=1)
    return p_group @ g**2 - (p_group @ g) ** 2


def test_the_bound_of_the_others():
    log_weights = np.array([0.5, -1.0, 2.0, -3.0])
    expected = []
    for k in range(4):
        others = np.delete(log_weights, k)
        expected.append(np.log((np.exp(others).sum() + np.exp(others.mean())) / 4))
    found = jax.jit(bounds_of_others)(jnp.array(log_weights))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Nor do huge weights overflow, nor does one that is 0 harm.
    np.testing.assert_allclose(
        jax.jit(bounds_of_others)(jnp.array(log_weights + 1e3)), np.add(expected, 1e3), rtol=1e-6
    )
    assert np.all(np.isfinite(jax.jit(bounds_of_others)(jnp.array([0.0, 1.0, -jnp.inf, 0.5]))))


def test_samples_may_be_continuous():
    """And with p normalized and q equal to it, the bound is log 1 for every group."""
    params = [jnp.array([0.5, -1.0]), jnp.array([0.2, 0.1])]
    p = ge.multi_normal(*params)
    f = lambda key: ge.vimco_surrogate(p.log_prob, params, ge.multi_normal, key, 5)  # noqa: E731
    np.testing.assert_allclose(jax.jit(f)(KEY), 0, atol=1e-6)


def test_errors():
    def call(f, num_samples, num_particles):
        """Errors come while tracing: no value is needed for them."""
        arguments = f, [jnp.zeros(3)], choices, KEY, num_samples, num_particles
        jax.eval_shape(lambda: ge.vimco_jacobians(*arguments))

    with pytest.raises(ValueError, match="vimco_jacobians: num_particles must be >= 2; got 1"):
        call(jnp.sum, 5, 1)
    with pytest.raises(ValueError, match="vimco_jacobians: num_samples must be >= 1; got 0"):
        call(jnp.sum, 0, 2)
    with pytest.raises(ValueError, match="vimco_jacobians: function must return a scalar"):
        call(lambda x: jnp.ones(2) * x, 5, 2)
