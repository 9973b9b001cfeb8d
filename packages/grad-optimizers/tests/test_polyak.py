"""Polyak's step size against its equations."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MissingArgumentError
from grad_optimizers.polyak import polyak_sgd, scale_by_polyak

G = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(4.0)}


@pytest.mark.parametrize("variant", ["sps", "sps+"])
@pytest.mark.parametrize("value", [0.2, 2.0, 100.0])
@pytest.mark.parametrize("scaling", [1.0, 0.5])
def test_against_the_equation(variant, value, scaling):
    f_min, most, eps = 0.5, 0.3, 2.0
    tx = polyak_sgd(most, scaling, f_min, eps, variant)
    gap = max(value - f_min, 0) if variant == "sps+" else value - f_min
    size = min(gap / (25 * scaling**2 + eps), most)
    updates, _ = tx.update(G, tx.init(G), value=value)
    np.testing.assert_allclose(updates["a"], [-scaling * size * 3, 0], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], -scaling * size * 4, rtol=1e-6)


def test_scheduled_scaling():
    tx = polyak_sgd(max_learning_rate=9.0, scaling=lambda count: 1.0 / (1 + count))
    state = tx.init(G)
    for count in range(3):
        updates, state = tx.update(G, state, value=5.0)
        np.testing.assert_allclose(updates["b"], -0.2 * 4 * (1 + count), rtol=1e-6)


def test_zero_and_huge_gradients():
    tx = scale_by_polyak()
    for dtype in (jnp.float16, jnp.bfloat16, jnp.float32):
        zero = jnp.zeros(2, dtype)
        assert (tx.update(zero, tx.init(zero), value=1.0)[0] == 0).all()
    huge = jnp.array([3e30, 4e30])
    updates, _ = tx.update(huge, tx.init(huge), value=5e30)
    np.testing.assert_allclose(updates, [0.6, 0.8], rtol=1e-5)


def test_derivatives_at_zero_are_finite():
    def size(eps, g):
        tx = scale_by_polyak(eps=eps)
        return tx.update(g, tx.init(g), value=1.0)[0].sum()

    for d in jax.grad(size, (0, 1))(0.0, jnp.zeros(2)):
        assert jnp.isfinite(d).all()


def test_bad_input():
    text = "scale_by_polyak: variant must be one of sps, sps+; got 'x' (str)."
    with pytest.raises(ValueError, match=re.escape(text)):
        scale_by_polyak(variant="x")
    with pytest.raises(MissingArgumentError, match="value"):
        polyak_sgd().update(G, polyak_sgd().init(G))
