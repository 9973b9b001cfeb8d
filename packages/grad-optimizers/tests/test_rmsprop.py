"""RMSProp against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.rmsprop import (
    ScaleByRmsState,
    ScaleByRmsWithCountState,
    ScaleByRStdDevState,
    ScaleByRStdDevWithCountState,
    rmsprop,
    scale_by_rms,
    scale_by_stddev,
)

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("eps_in_sqrt", [False, True])
@pytest.mark.parametrize("corrected", [False, True])
def test_against_the_equations(centered, eps_in_sqrt, corrected):
    decay, eps, rate, momentum = 0.8, 1e-3, 0.1, 0.5
    tx = rmsprop(rate, decay, eps, 0.25, eps_in_sqrt, centered, momentum, True, corrected)
    state = tx.init(jnp.ones(5))
    mu, nu, trace = np.zeros(5), np.full(5, 0.25), np.zeros(5)
    for t, g in enumerate(GRADS, 1):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * g**2
        c = 1 / (1 - decay**t) if corrected else 1
        square = c * nu - ((c * mu) ** 2 if centered else 0)
        square = np.maximum(square, 0)
        root = np.sqrt(square + eps) if eps_in_sqrt else np.sqrt(square) + eps
        trace = momentum * trace - rate * g / root
        np.testing.assert_allclose(updates, momentum * trace - rate * g / root, rtol=2e-4)
        np.testing.assert_allclose(state[0].nu, nu, rtol=1e-5)


def test_the_state_is_upstreams():
    p = jnp.ones(2, jnp.bfloat16)
    assert type(scale_by_rms().init(p)) is ScaleByRmsState
    assert type(scale_by_rms(bias_correction=True).init(p)) is ScaleByRmsWithCountState
    assert type(scale_by_stddev().init(p)) is ScaleByRStdDevState
    assert type(scale_by_stddev(bias_correction=True).init(p)) is ScaleByRStdDevWithCountState
    assert ScaleByRmsWithCountState._fields == ("count", "nu")
    assert ScaleByRStdDevWithCountState._fields == ("count", "mu", "nu")
    assert len(rmsprop(0.1).init(p)) == 3


def test_moments_are_kept_in_float32_unless_asked():
    state = scale_by_stddev().init(jnp.ones(2, jnp.bfloat16))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.float32, jnp.float32)
    tx = rmsprop(0.1, centered=True, mu_dtype=jnp.bfloat16, nu_dtype=jnp.float16, momentum=0.5)
    state = tx.init(jnp.ones(2))
    assert (state[0].mu.dtype, state[0].nu.dtype) == (jnp.bfloat16, jnp.float16)


def test_constant_and_huge_gradients_have_finite_deviations():
    for size in (1.0, 1e25, 1e30):
        tx = scale_by_stddev(0.99, eps=1e-8)
        g = jnp.full(3, size)
        state = tx.init(g)
        for _ in range(50):
            updates, state = tx.update(g, state)
            assert jnp.isfinite(updates).all()


def test_derivatives_at_zero_gradients_are_finite():
    def size(eps):
        tx = rmsprop(0.1, eps=eps, centered=True)
        return tx.update(jnp.zeros(2), tx.init(jnp.zeros(2)))[0].sum()

    assert jnp.isfinite(jax.grad(size)(0.0))
