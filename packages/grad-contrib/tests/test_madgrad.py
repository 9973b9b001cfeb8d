"""MADGRAD against its equations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.madgrad import MadgradState, madgrad, scale_by_madgrad
from grad_core import apply_updates

START = np.array([1.0, -2.0, 0.5])
TARGET = np.array([4.0, 1.0, -3.0])


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("rate", [0.1, lambda count: 0.1 / (1 + count)])
@pytest.mark.parametrize("w", [0.0, 0.2])
def test_against_the_equations(momentum, rate, w):
    eps = 0.01
    tx = madgrad(rate, momentum, w, eps)
    s = nu = np.zeros(3)
    x = START
    with jax.enable_x64(True):
        params = jnp.asarray(START)
        state = tx.init(params)
        for t in range(1, 13):
            updates, state = tx.update(params - TARGET, state, params)
            params = apply_updates(params, updates)
            g = x - TARGET + w * x
            weight = ((rate(t - 1) if callable(rate) else rate) + eps) * np.sqrt(t)
            s = s + weight * g
            nu = nu + weight * g**2
            x = momentum * x + (1 - momentum) * (START - s / (np.cbrt(nu) + eps))
            np.testing.assert_allclose(params, x, rtol=1e-12)
    assert type(state[1]) is MadgradState
    np.testing.assert_allclose(state[1].grad_sum_sq, nu, rtol=1e-12)


def test_a_negative_learning_rate_ascends():
    params = jnp.array([1.0, -2.0])
    steps = []
    for rate in (0.1, -0.1):
        tx = scale_by_madgrad(rate, eps=0.0)
        steps.append(tx.update(params, tx.init(params), params)[0])
    np.testing.assert_allclose(steps[0], -steps[1], rtol=1e-6)
    assert (jnp.sign(steps[1]) == jnp.sign(params)).all()


def test_zero_gradients_without_eps_make_no_step():
    tx = scale_by_madgrad(0.1, eps=0.0)
    params = jnp.ones(2)
    updates, _ = tx.update(jnp.zeros(2), tx.init(params), params)
    np.testing.assert_array_equal(updates, 0)


def test_sums_of_low_precision_parameters_are_float32():
    params = jnp.ones(2, jnp.bfloat16)
    tx = scale_by_madgrad(0.1)
    updates, state = tx.update(params, tx.init(params), params)
    assert (state.s.dtype, state.grad_sum_sq.dtype) == (jnp.float32, jnp.float32)
    assert (state.x0.dtype, updates.dtype) == (jnp.bfloat16, jnp.bfloat16)


def test_bad_input():
    text = "madgrad: momentum must be in [0, 1]; got 1.5."
    with pytest.raises(ValueError, match=re.escape(text)):
        madgrad(0.1, momentum=1.5)
