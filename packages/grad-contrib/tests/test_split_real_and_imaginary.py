"""Complex parameters, split, are what their parts are alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import SplitRealAndImaginaryState, split_real_and_imaginary
from grad_core import MaskedNode, apply_updates, chain, conjugate
from grad_optimizers import adamw, lion, sgd

RNG = np.random.default_rng(0)


def complex_numbers(*shape):
    return jnp.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape), jnp.complex64)


@pytest.mark.parametrize("inner", [adamw(0.1, weight_decay=0.3), lion(0.1), sgd(0.1, 0.9)])
def test_parts_are_optimized_alone(inner):
    tx = split_real_and_imaginary(inner)
    params = {"c": complex_numbers(2, 3), "r": jnp.ones(2)}
    parts = {"re": params["c"].real, "im": params["c"].imag, "r": params["r"]}
    state, alone = tx.init(params), inner.init(parts)
    for _ in range(4):
        grads = {"c": complex_numbers(2, 3), "r": jnp.ones(2)}
        split = {"re": grads["c"].real, "im": grads["c"].imag, "r": grads["r"]}
        updates, state = tx.update(grads, state, params)
        expected, alone = inner.update(split, alone, parts)
        assert updates["c"].dtype == jnp.complex64
        np.testing.assert_allclose(updates["c"].real, expected["re"], rtol=1e-6)
        np.testing.assert_allclose(updates["c"].imag, expected["im"], rtol=1e-6)
        np.testing.assert_allclose(updates["r"], expected["r"], rtol=1e-6)
        params, parts = apply_updates(params, updates), apply_updates(parts, expected)


def test_it_descends_after_conjugate():
    target = complex_numbers(4)

    def loss(z):
        return jnp.sum(jnp.abs(z - target) ** 2)

    tx = chain(conjugate(), split_real_and_imaginary(adamw(0.1, weight_decay=0.0)))
    params = jnp.zeros(4, jnp.complex64)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return (apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=200)
    assert loss(params) < 1e-3


def test_absent_updates_and_the_state():
    tx = split_real_and_imaginary(sgd(0.1, momentum=0.9))
    params = {
        "c": complex_numbers(2),
        "none": None,
        "masked": MaskedNode(),
        "gone": 1j * jnp.ones(2),
    }
    state = tx.init(params)
    assert type(state) is SplitRealAndImaginaryState
    pair = state.inner_state[0].trace["c"]
    assert pair._fields == ("real", "imaginary")
    assert type(pair).__name__ == "SplitRealAndImaginaryArrays"
    assert pair.imaginary.dtype == jnp.float32
    shapes = jax.eval_shape(lambda p: p, params)
    jax.tree.map(np.testing.assert_array_equal, tx.init(shapes), state)
    updates, _ = tx.update({**params, "gone": None}, state, params)
    assert updates["none"] is updates["gone"] is None
    assert updates["masked"] == MaskedNode()
