"""SM3 against its equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import TreeMismatchError
from grad_optimizers.sm3 import ScaleBySM3State, scale_by_sm3, sm3

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(6, 2, 3, 4)))


@pytest.mark.parametrize("b2", [1.0, 0.9])
@pytest.mark.parametrize("shape", [(2, 3, 4), (6, 4), (24,)])
def test_against_the_equations(b2, shape):
    b1, eps = 0.7, 1e-3
    tx = scale_by_sm3(b1, b2, eps)
    state = tx.init({"w": jnp.zeros(shape)})
    mu, m = [np.zeros(n) for n in shape], np.zeros(shape)
    for g in GRADS.reshape(-1, *shape):
        updates, state = tx.update({"w": jnp.asarray(g, jnp.float32)}, state)
        nu = np.zeros(shape)
        for index in np.ndindex(*shape):
            least = min(mu[axis][i] for axis, i in enumerate(index))
            nu[index] = b2 * least + (1.0 if b2 == 1 else 1 - b2) * g[index] ** 2
        mu = [np.moveaxis(nu, k, 0).reshape(n, -1).max(1) for k, n in enumerate(shape)]
        m = b1 * m + (1 - b1) * g / np.sqrt(nu + eps)
        np.testing.assert_allclose(updates["w"], m, rtol=1e-5, atol=1e-6)
        for found, expected in zip(state.mu["w"], mu, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        np.testing.assert_allclose(state.nu["w"], m, rtol=1e-5, atol=1e-6)


def test_a_scalar_keeps_its_own_sum():
    tx = sm3(0.1, momentum=0.0)
    state = tx.init(jnp.asarray(0.0))
    for t in (1, 2, 3):
        updates, state = tx.update(jnp.asarray(3.0), state)
        np.testing.assert_allclose(updates, -0.1 / np.sqrt(t), rtol=1e-6)


def test_the_state():
    state = scale_by_sm3().init(jnp.zeros((2, 3), jnp.bfloat16))
    assert type(state) is ScaleBySM3State
    assert [x.dtype for x in state.mu] == [jnp.float32] * 2
    assert state.nu.dtype == jnp.bfloat16
    state = sm3(0.1, mu_dtype=jnp.float32, nu_dtype=jnp.bfloat16).init(jnp.zeros(2, jnp.bfloat16))
    assert (state[0].mu[0].dtype, state[0].nu.dtype) == (jnp.bfloat16, jnp.float32)


def test_other_shapes_are_named():
    tx = scale_by_sm3()
    with pytest.raises(TreeMismatchError, match=r"updates\['w'\] .*state.mu\['w'\]"):
        tx.update({"w": jnp.zeros(3)}, tx.init({"w": jnp.zeros(2)}))
