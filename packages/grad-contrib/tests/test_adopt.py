"""ADOPT against its equations."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.adopt import adopt, scale_by_adopt
from grad_optimizers import ScaleByAdamState

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(12, 4)))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("clip", [None, lambda step: step**0.25, lambda step: 0.3 + 0.1 * step])
def test_against_the_equations(nesterov, clip):
    b1, b2, eps, rate = 0.8, 0.9, 0.3, 0.1
    options = {} if clip is None else {"clip_value_fn": clip}
    tx = adopt(rate, b1, b2, eps, nesterov=nesterov, use_clipping=clip is not None, **options)
    state = tx.init(jnp.zeros(4))
    m, v = np.zeros(4), GRADS[0] ** 2
    for t, g in enumerate(GRADS):
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        u = np.zeros(4)
        if t:
            c = g / np.maximum(np.sqrt(v), eps)
            if clip is not None:
                c = np.clip(c, -clip(t), clip(t))
            m = b1 * m + (1 - b1) * c
            u = b1 * m + (1 - b1) * c if nesterov else m
            v = b2 * v + (1 - b2) * g**2
        np.testing.assert_allclose(updates, -rate * u, rtol=1e-5, atol=1e-7)
    assert type(state[0]) is ScaleByAdamState
    np.testing.assert_allclose(state[0].nu, v, rtol=1e-5)


def test_the_default_bound_is_the_fourth_root():
    tx = scale_by_adopt(b1=0.0, b2=1.0)
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.ones(1), state)
    for t in range(1, 20):
        updates, state = tx.update(jnp.array([-1e6]), state)
        np.testing.assert_allclose(updates, -(t**0.25), rtol=1e-5)


def test_complex_numbers_are_clipped_by_their_modulus():
    tx = scale_by_adopt(b1=0.0)
    state = tx.init(jnp.zeros(2, jnp.complex64))
    _, state = tx.update(jnp.ones(2, jnp.complex64), state)
    updates, _ = tx.update(jnp.array([30 + 40j, 0.3 + 0.4j]), state)
    np.testing.assert_allclose(updates, [0.6 + 0.8j, 0.3 + 0.4j], rtol=1e-5)


def test_dtypes():
    state = scale_by_adopt().init(jnp.zeros(2, jnp.bfloat16))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.bfloat16, jnp.float32)
    state = scale_by_adopt(mu_dtype="float16", nu_dtype="bfloat16").init(jnp.zeros(2))
    assert (state.mu.dtype, state.nu.dtype) == (jnp.float16, jnp.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"b2": 1.5}, ValueError, "scale_by_adopt: b2 must be in [0, 1]; got 1.5."),
        ({"nesterov": "no"}, TypeError, "scale_by_adopt: nesterov must be True or False"),
        ({"clip_value_fn": "root"}, TypeError, "scale_by_adopt: clip_value_fn must be"),
    ],
)
def test_bad_input(arguments, error, text):
    with pytest.raises(error, match=re.escape(text)):
        scale_by_adopt(**arguments)
