"""Adan against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.adan import adan, scale_by_adan

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.98, b2=0.92, b3=0.99, eps=1e-8, eps_root=1e-8):
    m, v, n, last = np.zeros(5), np.zeros(5), np.zeros(5), GRADS[0]
    for t, g in enumerate(GRADS, start=1):
        d, last = g - last, g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * (g + (1 - b2) * d) ** 2
        ahead = m / (1 - b1**t) + (1 - b2) * v / (1 - b2**t)
        yield ahead / (np.sqrt(n / (1 - b3**t) + eps_root) + eps)


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 1e-5)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [{}, {"b1": 0.5, "b2": 0.9, "b3": 0.7, "eps": 0.1, "eps_root": 0.2}, {"b2": 0.0}]
END_POINTS = [
    {},
    {"eps": 0.0, "eps_root": 0.0},
    {"b1": 0.0, "b2": 0.0, "b3": 0.0},
    {"b1": 1.0, "b2": 1.0, "b3": 1.0},
]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_adan(**settings), reference(**{"eps_root": 0.0, **settings}), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(), strict=True)]
    check(adan(rate), expected, x64=False)


@pytest.mark.parametrize("mask", [True, False])
def test_weight_decay_is_decoupled(mask):
    expected = [-0.5 * (u + 0.2 * mask * PARAMS) for u in reference()]
    tx = adan(0.5, weight_decay=0.2, mask=mask)
    check(tx, expected, x64=False)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("settings", END_POINTS)
def test_zero_gradients_give_zero(settings, dtype):
    zeros = jnp.zeros(3, dtype)
    tx = scale_by_adan(**settings)
    state = tx.init(zeros)
    for _ in range(2):
        updates, state = tx.update(zeros, state, zeros)
        assert updates.dtype == dtype
        assert (updates == 0).all()
        assert jnp.isfinite(tx.update(zeros + 1, state, zeros)[0]).all()


def test_the_state_is_upstreams():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    state = scale_by_adan().init(params)
    assert type(state).__name__ == "ScaleByAdanState"
    assert state._fields == ("m", "v", "n", "g", "t")
    for field in ("n",):
        moment = getattr(state, field)
        assert {x.dtype for x in jax.tree.leaves(moment)} == {np.dtype("float32")}
        narrow = getattr(scale_by_adan(nu_dtype=jnp.bfloat16).init(params), field)
        assert narrow["w"].dtype == jnp.bfloat16
    assert len(adan(0.1).init(params)) == 3


def test_complex_gradients_turn_like_real_ones():
    g, turn = jnp.asarray(GRADS[:3], jnp.float32), np.complex64(0.6 + 0.8j)
    tx = scale_by_adan()
    params = jnp.zeros(5)
    real, turned = tx.init(params), tx.init(params.astype(jnp.complex64))
    for row in g:
        u, real = tx.update(row, real, params)
        v, turned = tx.update(row * turn, turned, params.astype(jnp.complex64))
        np.testing.assert_allclose(v, u * turn, rtol=2e-5, atol=1e-6)


def test_gradients_with_respect_to_numbers_are_finite_at_zero():
    def total(b1, b2, eps):
        tx = scale_by_adan(b1=b1, b2=b2, eps=eps)
        zeros = jnp.zeros(2)
        state = tx.init(zeros)
        for _ in range(2):
            updates, state = tx.update(zeros, state, zeros)
        return jnp.sum(updates)

    for value in jax.grad(total, argnums=(0, 1, 2))(0.9, 0.99, 1e-3):
        assert jnp.isfinite(value)


def test_leaves_without_a_gradient_stay():
    params = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = scale_by_adan()
    updates, state = tx.update({"a": jnp.ones(2), "b": None}, tx.init(params))
    assert updates["b"] is None
    assert int(state.t) == 1
    np.testing.assert_array_equal(state.g["b"], jnp.zeros(2))
