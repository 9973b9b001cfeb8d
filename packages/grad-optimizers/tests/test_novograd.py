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
