"""ACProp against its equations."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.acprop import acprop, scale_by_acprop
from grad_optimizers import ScaleByBeliefState

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(12, 4)))
PARAMS = jnp.array([1.0, -2.0, 0.5, 3.0])


@pytest.mark.parametrize(("b1", "b2"), [(0.8, 0.9), (0.0, 0.999)])
@pytest.mark.parametrize("mask", [None, lambda tree: False])
def test_against_the_equations(b1, b2, mask):
    eps, eps_root, rate = 0.05, 0.01, 0.1
    w = 0.2 if mask is None else 0.0
    tx = acprop(rate, b1, b2, eps, eps_root, 0.2, mask)
    state = tx.init(PARAMS)
    m = s = np.zeros(4)
    for t, g in enumerate(GRADS, start=1):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state, PARAMS)
        root = 1.0 if t == 1 else np.sqrt(s / (1 - b2 ** (t - 1)))
        u = g / (root + eps)
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps_root
        m = b1 * m + (1 - b1) * g
        np.testing.assert_allclose(updates, -rate * (u + w * PARAMS), rtol=1e-5, atol=1e-6)
    assert type(state[0]) is ScaleByBeliefState
    np.testing.assert_allclose(state[0].nu, s, rtol=1e-5)
    np.testing.assert_allclose(state[0].mu, m, rtol=1e-5)


def test_a_gradient_does_not_scale_itself():
    tx = scale_by_acprop()
    state = tx.init(jnp.zeros(1))
    for g in (1.0, -2.0, 0.5):
        _, state = tx.update(jnp.array([g]), state)
    once, twice = (tx.update(jnp.array([g]), state)[0] for g in (3.0, 6.0))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_dtypes():
    state = scale_by_acprop().init(jnp.zeros(2, jnp.bfloat16))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float32)
    state = scale_by_acprop(mu_dtype="float16", nu_dtype="bfloat16").init(jnp.zeros(2))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.float16, jnp.bfloat16)


def test_bad_input():
    with pytest.raises(ValueError, match=re.escape("acprop: eps_root must be >= 0; got -1.0.")):
        acprop(0.1, eps_root=-1.0)
