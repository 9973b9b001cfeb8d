"""Adam and AdamW against their equations in double precision, and closed forms."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import apply_updates, chain, clip_by_global_norm, scale
from grad_optimizers import ScaleByAdamState, adam, adamw, scale_by_adam

SHAPES = {"kernel": (4, 3), "bias": (3,), "gain": ()}


def numbers(seed, scale=1.0):
    rng = np.random.RandomState(seed)
    return {name: scale * np.asarray(rng.randn(*shape)) for name, shape in SHAPES.items()}


def as_arrays(tree, dtype=jnp.float32):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def reference(params, grads, rate, *, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, decay=0.0,
              mask=(), nesterov=False, max_norm=np.inf):  # fmt: skip
    """Parameters and updates of clipped AdamW, step by step, in float64."""
    mu = {k: np.zeros_like(p) for k, p in params.items()}
    nu = {k: np.zeros_like(p) for k, p in params.items()}
    for t, g in enumerate(grads, start=1):
        norm = np.sqrt(sum(np.sum(x**2) for x in g.values()))
        g = {k: x * min(1.0, max_norm / norm) for k, x in g.items()}
        mu = {k: b1 * mu[k] + (1 - b1) * g[k] for k in g}
        nu = {k: b2 * nu[k] + (1 - b2) * g[k] ** 2 for k in g}
        updates = {}
        for k in g:
            m = mu[k] / (1 - b1**t)
            if nesterov:
                m = b1 * mu[k] / (1 - b1 ** (t + 1)) + (1 - b1) * g[k] / (1 - b1**t)
            u = m / (np.sqrt(nu[k] / (1 - b2**t) + eps_root) + eps)
            updates[k] = -rate(t - 1) * (u + (decay * params[k] if k in mask else 0.0))
        params = {k: params[k] + updates[k] for k in params}
        yield params, updates


def constant(rate):
    return lambda count: rate


CASES = {
    "adam": (lambda: adam(0.1), {"rate": constant(0.1)}),
    "adam_hyper": (
        lambda: adam(0.1, b1=0.5, b2=0.9, eps=1e-3, eps_root=1e-2),
        {"rate": constant(0.1), "b1": 0.5, "b2": 0.9, "eps": 1e-3, "eps_root": 1e-2},
    ),
    "b_zero": (lambda: adam(0.1, b1=0.0, b2=0.0), {"rate": constant(0.1), "b1": 0.0, "b2": 0.0}),
    "ascent": (lambda: adam(-0.1), {"rate": constant(-0.1)}),
    "nadam": (lambda: adam(0.1, nesterov=True), {"rate": constant(0.1), "nesterov": True}),
    "scheduled": (lambda: adam(lambda c: 0.1 / (1 + c)), {"rate": lambda c: 0.1 / (1 + c)}),
    "adamw": (
        lambda: adamw(0.1, weight_decay=0.2),
        {"rate": constant(0.1), "decay": 0.2, "mask": tuple(SHAPES)},
    ),
    "pattern": (
        lambda: adamw(0.1, weight_decay=0.2, mask="kernel"),
        {"rate": constant(0.1), "decay": 0.2, "mask": ("kernel",)},
    ),
    "mask": (
        lambda: adamw(
            0.1, weight_decay=0.2, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p),
            nesterov=True,
        ),
        {"rate": constant(0.1), "decay": 0.2, "mask": ("kernel",), "nesterov": True},
    ),
    "clipped": (
        lambda: chain(
            clip_by_global_norm(1.0),
            adamw(
                lambda c: 0.1 * 0.9**c,
                weight_decay=0.2,
                mask={"kernel": True, "bias": False, "gain": False},
            ),
        ),
        {"rate": lambda c: 0.1 * 0.9**c, "decay": 0.2, "mask": ("kernel",), "max_norm": 1.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_against_the_equations(name, compiled):
    make, settings = CASES[name]
    tx = make()
    grads = [numbers(seed, scale=10.0 ** (seed % 3 - 1)) for seed in range(1, 9)]
    params = as_arrays(numbers(0))
    state = tx.init(params)
    update = jax.jit(tx.update) if compiled else tx.update
    exact = jax.tree.map(np.float64, params)
    for g, (_, expected) in zip(grads, reference(exact, grads, **settings), strict=True):
        g32 = as_arrays(g)
        updates, state = update(g32, state, params)
        params = apply_updates(params, updates)
        for k, u in updates.items():
            size = np.abs(expected[k]).max()
            np.testing.assert_allclose(u, expected[k], rtol=3e-6, atol=2e-6 * size)


@pytest.mark.parametrize("nesterov", [False, True])
def test_in_double_precision(nesterov):
    with jax.enable_x64(True):
        tx = adamw(0.1, weight_decay=0.2, nesterov=nesterov)
        grads = [numbers(seed) for seed in range(1, 30)]
        params = as_arrays(numbers(0), jnp.float64)
        state = tx.init(params)
        expected = reference(
            numbers(0), grads, rate=constant(0.1), decay=0.2, mask=tuple(SHAPES), nesterov=nesterov
        )
        for g, (_, exact) in zip(grads, expected, strict=True):
            updates, state = tx.update(as_arrays(g, jnp.float64), state, params)
            params = apply_updates(params, updates)
            for k, u in updates.items():
                assert u.dtype == jnp.float64
                np.testing.assert_allclose(u, exact[k], rtol=1e-11)


def test_a_constant_gradient_has_a_closed_form():
    g, b1, b2 = 0.25, 0.9, 0.999
    tx = scale_by_adam(b1, b2)
    state = tx.init(jnp.zeros(2))
    for t in range(1, 40):
        updates, state = tx.update(jnp.full(2, g), state)
        np.testing.assert_allclose(state.mu, g * (1 - b1**t), rtol=1e-5)
        np.testing.assert_allclose(state.nu, g**2 * (1 - b2**t), rtol=1e-5)
        np.testing.assert_allclose(updates, 1.0, rtol=4e-6)
        assert int(state.count) == t


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_first_step_is_the_sign(size):
    # m_hat = g and v_hat = g^2 exactly; upstream's float32 bias corrections are off by 6e-6 here.
    g = size * jnp.array([1.0, -2.0, 3.0])
    updates, _ = scale_by_adam(eps=0.0).update(g, scale_by_adam().init(g))
    np.testing.assert_allclose(updates, np.sign(g), rtol=5e-7)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_zero_gradients_give_zero(dtype, eps):
    params = jnp.ones(3, dtype)
    for nesterov in (False, True):
        tx = adam(0.1, eps=eps, nesterov=nesterov)
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(jnp.zeros(3, dtype), state, params)
            assert updates.dtype == dtype
            assert (updates == 0).all()


@pytest.mark.parametrize("b", [0.0, 1.0])
@pytest.mark.parametrize("x64", [False, True])
def test_the_end_points_are_legal(b, x64):
    with jax.enable_x64(x64):
        params = jnp.ones(3, jnp.float32)
        for tx in (adam(0.1, b1=b, b2=b), adam(0.1, b1=b, b2=b, nesterov=True)):
            state = tx.init(params)
            for _ in range(3):
                updates, state = tx.update(params, state, params)
                assert jnp.isfinite(updates).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_second_moments_of_low_precision_parameters(dtype):
    params = {"w": jnp.ones(4, dtype)}
    tx = scale_by_adam()
    state = tx.init(params)
    assert state.mu["w"].dtype == dtype
    assert state.nu["w"].dtype == jnp.float32
    assert scale_by_adam(nu_dtype=dtype).init(params).nu["w"].dtype == dtype
    assert scale_by_adam(mu_dtype=jnp.float32).init(params).mu["w"].dtype == jnp.float32


def test_second_moments_in_bfloat16_stop_at_half_their_value():
    # Why they are kept in float32 by default.
    g = jnp.ones(2, jnp.bfloat16)
    found = {}
    for nu_dtype in (None, jnp.bfloat16):
        tx = scale_by_adam(b2=0.996, nu_dtype=nu_dtype)
        update = jax.jit(lambda s, tx=tx: tx.update(g, s)[1])
        state = tx.init(g)
        for _ in range(2000):
            state = update(state)
        found[nu_dtype] = float(state.nu[0])
    assert found[None] == pytest.approx(1.0, rel=1e-2)
    assert found[jnp.bfloat16] < 0.75


def test_second_moments_of_complex_parameters_are_real():
    g = jnp.array([3 + 4j, -2j])
    tx = scale_by_adam(0.9, 0.99)
    state = tx.init(g)
    assert state.nu.dtype == jnp.float32
    assert state.mu.dtype == jnp.complex64
    updates, state = tx.update(g, state)
    np.testing.assert_allclose(state.nu, [0.25, 0.04], rtol=1e-5)
    np.testing.assert_allclose(updates, [0.6 + 0.8j, -1j], rtol=1e-5)


def test_the_state_is_upstreams():
    params = {"w": jnp.ones(2)}
    moments, rate = adam(0.1).init(params)
    assert type(moments) is ScaleByAdamState
    assert moments._fields == ("count", "mu", "nu")
    assert moments.count.dtype == jnp.int32
    assert jax.tree.leaves(rate) == []
    assert len(adamw(0.1).init(params)) == 3
    assert adam(lambda c: 0.1).init(params)[1]._fields == ("count",)


def test_bad_input_names_adamw():
    params = {"w": jnp.ones(2)}
    tx = adamw(0.1)
    state = tx.init(params)
    with pytest.raises(
        ValueError, match=r"^adamw \(in its add_decayed_weights\): update\(\) needs the"
    ):
        tx.update(params, state)
    with pytest.raises(
        ValueError, match=r"^adamw.*: updates and params must have .*updates\['z'\] has"
    ):
        tx.update({**params, "z": jnp.ones(2)}, state, params)
    with pytest.raises(TypeError, match=r"^adamw \(in its scale_by_adam\): params\['w'\] is int32"):
        tx.init({"w": jnp.arange(3)})
    with pytest.raises(ValueError, match=re.escape("adamw: b1 must be in [0, 1]; got 1.5.")):
        adamw(0.1, b1=1.5)
    with pytest.raises(ValueError, match=re.escape("adam: eps must be >= 0; got -1.")):
        adam(0.1, eps=-1)
    with pytest.raises(TypeError, match=r"adam: learning_rate must be a number.* or a schedule"):
        adam("0.1")


def test_values():
    assert repr(adamw(1e-3)) == "adamw(learning_rate=0.001)"
    assert repr(adam(1e-3, nesterov=True)) == "adam(learning_rate=0.001, nesterov=True)"
    assert adamw(1e-3) == adamw(learning_rate=1e-3, b1=0.9)
    assert adam(1e-3) != adam(1e-2)


@pytest.mark.parametrize(
    "rate", [1, np.float32(1), np.float64(1), np.array(1.0), jnp.array(1), jnp.bfloat16(1)]
)
def test_learning_rates_of_any_kind(rate):
    for dtype in (jnp.float32, jnp.bfloat16):
        g = jnp.array([2.0], dtype)
        updates, _ = adam(rate).update(g, adam(rate).init(g))
        assert updates.dtype == dtype
        assert float(updates[0]) == pytest.approx(-1.0, rel=1e-5)


def test_adam_is_a_chain():
    params = as_arrays(numbers(0))
    one, two = adam(0.5), chain(scale_by_adam(), scale(-0.5))
    for k, u in one.update(params, one.init(params))[0].items():
        np.testing.assert_array_equal(u, two.update(params, two.init(params))[0][k])
