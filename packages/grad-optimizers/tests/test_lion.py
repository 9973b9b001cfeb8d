"""Lion against its equations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import apply_updates
from grad_optimizers import ScaleByLionState, lion, scale_by_lion

GRADS = np.random.RandomState(0).randn(8, 5)


@pytest.mark.parametrize(
    ("b1", "b2"), [(0.9, 0.99), (0.5, 0.5), (0.0, 0.0), (1.0, 0.9), (0.9, 1.0)]
)
@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_against_the_equations(b1, b2, rate):
    tx = lion(rate, b1, b2, weight_decay=0.1, mask={"kernel": True, "bias": False})
    params = {"kernel": jnp.ones(5), "bias": jnp.ones(5)}
    state, mu = tx.init(params), np.zeros(5)
    for count, g in enumerate(GRADS):
        g = np.float64(np.float32(g))
        direction = np.sign(b1 * mu + (1 - b1) * g)
        mu = b2 * mu + (1 - b2) * g
        grads = {name: jnp.asarray(g, jnp.float32) for name in params}
        updates, state = tx.update(grads, state, params)
        size = rate(count) if callable(rate) else rate
        np.testing.assert_allclose(updates["bias"], -size * direction, rtol=1e-6)
        expected = -size * (direction + 0.1 * np.float64(params["kernel"]))
        np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)
        np.testing.assert_allclose(state[0].mu["bias"], mu, rtol=1e-5, atol=1e-7)
        params = apply_updates(params, updates)


def test_modes():
    g = jnp.array([-30.0, -0.5, 0.0, 2.0])
    for mode, expected in {
        "hard": np.sign(g),
        "smooth": np.tanh(2.0 * g),
        "refined": np.clip(g, -1, 1),
    }.items():
        tx = scale_by_lion(b1=0.0, mode=mode, smooth_beta=2.0)
        np.testing.assert_allclose(tx.update(g, tx.init(g))[0], expected, rtol=1e-6)
    text = "scale_by_lion: mode must be one of hard, smooth, refined; got 'soft' (str)."
    with pytest.raises(ValueError, match=re.escape(text)):
        scale_by_lion(mode="soft")


def test_the_state_is_upstreams():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = scale_by_lion().init(params)
    assert type(state) is ScaleByLionState
    assert state._fields == ("count", "mu")
    assert state.mu["w"].dtype == jnp.bfloat16
    assert scale_by_lion(mu_dtype=jnp.float32).init(params).mu["w"].dtype == jnp.float32
    assert len(lion(0.1).init(params)) == 3
    assert len(jax.tree.leaves(lion(0.1).init(params))) == 2


def test_zero_gradients_give_zero():
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        zero = jnp.zeros(2, dtype)
        assert (scale_by_lion().update(zero, scale_by_lion().init(zero))[0] == 0).all()


def test_bad_input_names_lion():
    with pytest.raises(ValueError, match=re.escape("lion: b2 must be in [0, 1]; got -1.")):
        lion(0.1, b2=-1)
    with pytest.raises(ValueError, match=r"^lion \(in its add_decayed_weights\): update\(\) needs"):
        lion(0.1).update(jnp.ones(2), lion(0.1).init(jnp.ones(2)))


def test_values():
    assert repr(lion(0.1)) == "lion(learning_rate=0.1)"
    assert lion(0.1, weight_decay=0.5) == lion(0.1, weight_decay=0.5)
    assert lion(0.1) != lion(0.1, weight_decay=0.5)
