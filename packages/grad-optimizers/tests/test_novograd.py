"""NovoGrad against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_optimizers.novograd import novograd, scale_by_novograd

GRADS = np.random.RandomState(0).randn(12, 5)
PARAMS = np.random.RandomState(1).randn(5)


def reference(b1=0.9, b2=0.25, eps=1e-8, eps_root=0.0, weight_decay=0.0):
    m, v = np.zeros(5), None
    for t, g in enumerate(GRADS):
        v = np.sum(g**2) if v is None else b2 * v + (1 - b2) * np.sum(g**2)
        decay = weight_decay(t) if callable(weight_decay) else weight_decay
        m = b1 * m + g / (np.sqrt(v + eps_root) + eps) + decay * PARAMS
        yield m


def check(tx, expected, x64):
    """Holds updates to those expected, in float32 and, exactly, in float64."""
    dtype, rtol = (jnp.float64, 1e-11) if x64 else (jnp.float32, 3e-6)
    params = jnp.asarray(PARAMS, dtype)
    state = tx.init(params)
    update = jax.jit(tx.update)
    for g, exact in zip(GRADS, expected, strict=True):
        updates, state = update(jnp.asarray(g, dtype), state, params)
        assert updates.dtype == dtype
        np.testing.assert_allclose(updates, exact, rtol=rtol, atol=rtol * np.abs(exact).max())


SETTINGS = [
    {},
    {"b1": 0.5, "b2": 0.9, "eps": 0.1, "eps_root": 0.2, "weight_decay": 0.3},
    {"b2": 1.0},
    {"weight_decay": lambda count: 0.3 / (1 + count)},
]
END_POINTS = [{}, {"eps": 0.0}, {"b1": 0.0, "b2": 0.0}, {"b1": 1.0, "b2": 1.0, "eps": 0.1}]


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_against_the_equations(settings, x64):
    with jax.enable_x64(x64):
        check(scale_by_novograd(**settings), reference(**settings), x64)


@pytest.mark.parametrize("rate", [0.5, lambda count: 0.5 / (1 + count)])
def test_the_alias_scales_by_the_learning_rate(rate):
    rates = [rate(c) if callable(rate) else rate for c in range(len(GRADS))]
    expected = [-r * u for r, u in zip(rates, reference(eps=1e-6), strict=True)]
    check(novograd(rate), expected, x64=False)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("settings", END_POINTS)
def test_zero_gradients_give_zero(settings, dtype):
    zeros = jnp.zeros(3, dtype)
    tx = scale_by_novograd(**settings)
    state = tx.init(zeros)
    for _ in range(2):
        updates, state = tx.update(zeros, state, zeros)
        assert updates.dtype == dtype
        assert (updates == 0).all()
        assert jnp.isfinite(tx.update(zeros + 1, state, zeros)[0]).all()


def test_the_state_is_upstreams():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "c": jnp.ones(2, jnp.complex64)}
    state = scale_by_novograd().init(params)
    assert type(state).__name__ == "ScaleByNovogradState"
    assert state._fields == ("count", "mu", "nu")
    for field in ("nu",):
        moment = getattr(state, field)
        assert {x.dtype for x in jax.tree.leaves(moment)} == {np.dtype("float32")}
        narrow = getattr(scale_by_novograd(nu_dtype=jnp.bfloat16).init(params), field)
        assert narrow["w"].dtype == jnp.bfloat16
    assert len(novograd(0.1).init(params)) == 2


def test_complex_gradients_turn_like_real_ones():
    g, turn = jnp.asarray(GRADS[:3], jnp.float32), np.complex64(0.6 + 0.8j)
    tx = scale_by_novograd()
    params = jnp.zeros(5)
    real, turned = tx.init(params), tx.init(params.astype(jnp.complex64))
    for row in g:
        u, real = tx.update(row, real, params)
        v, turned = tx.update(row * turn, turned, params.astype(jnp.complex64))
        np.testing.assert_allclose(v, u * turn, rtol=2e-5, atol=1e-6)


def test_gradients_with_respect_to_numbers_are_finite_at_zero():
    def total(b1, b2, eps):
        tx = scale_by_novograd(b1=b1, b2=b2, eps=eps)
        zeros = jnp.zeros(2)
        state = tx.init(zeros)
        for _ in range(2):
            updates, state = tx.update(zeros, state, zeros)
        return jnp.sum(updates)

    for value in jax.grad(total, argnums=(0, 1, 2))(0.9, 0.99, 1e-3):
        assert jnp.isfinite(value)
