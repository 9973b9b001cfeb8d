"""Barron's loss against exact arithmetic, for every shape, and against the losses it contains."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import general_robust_loss

INF = np.inf
SHAPES = [-INF, -1e30, -100, -2, -1, -1e-3, -1e-10, 0, 1e-10, 1e-6, 1e-3, 0.5, 1, 1.5, 1.999]
SHAPES += [2 - 1e-7, 2, 2 + 3e-7, 2.001, 3, 8, INF]
ERRORS = [0, 1e-10, 1e-3, -0.1, 1, -3, 10]
FAR = [-1e3, 1e18]


def loss(error, alpha, scale=1.0):
    return general_robust_loss(error, alpha=alpha, scale=scale)


def exact(error, alpha, step=Decimal(0)):
    """The loss in 120 digits, at ``alpha + step``."""
    with localcontext(prec=120, Emax=10**9, Emin=-(10**9)):
        s, alpha = Decimal(float(error)) ** 2, Decimal(float(alpha)) + step
        if alpha == Decimal("inf"):
            return (s / 2).exp() - 1
        if alpha == -Decimal("inf"):
            return 1 - (-s / 2).exp()
        if alpha == 0:
            return (s / 2 + 1).ln()
        if alpha == 2:
            return s / 2
        b = abs(alpha - 2)
        return b / alpha * ((s / b + 1) ** (alpha / 2) - 1)


def grid(errors, shapes):
    """All pairs, as rows of float32."""
    return np.array([(e, a) for e in errors for a in shapes], np.float32).T


def test_values_for_every_shape():
    errors, shapes = np.hstack([grid(ERRORS, SHAPES), grid(FAR, [a for a in SHAPES if a < 3])])
    want = np.array([float(exact(e, a)) for e, a in zip(errors, shapes, strict=True)])
    assert np.isfinite(want).all()
    np.testing.assert_allclose(jax.jit(loss)(errors, shapes), want, rtol=5e-6)
    with jax.enable_x64(True):
        got = jax.jit(loss)(errors.astype(float), shapes.astype(float))
    np.testing.assert_allclose(got, want, rtol=2e-14)


def test_gradients_by_the_error_and_its_scale():
    # In closed form: x * (x^2 / |alpha - 2| + 1)^(alpha / 2 - 1) with x = e / c.
    errors, shapes = grid([0, 1e-10, 1e-3, -0.1, 1, -3, 10, 1e3, -1e18], SHAPES[3:-3])
    e, a = errors.astype(float), shapes.astype(float)
    b = np.where(a == 2, 1, np.abs(a - 2))
    want = e / 4 * ((e / 2) ** 2 / b + 1) ** (a / 2 - 1)
    gradients = jax.jit(jax.vmap(jax.grad(loss, (0, 2)), (0, 0, None)))
    by_error, by_scale = gradients(errors, shapes, 2.0)
    np.testing.assert_allclose(by_error, want, rtol=1e-5, atol=1e-35)
    np.testing.assert_allclose(by_scale, -want * e / 2, rtol=1e-5, atol=1e-25)


def test_gradients_by_the_shape():
    smooth = [a for a in SHAPES if np.isfinite(a) and a != 2 and abs(a) < 1e3]
    errors, shapes = grid(ERRORS[2:], smooth)
    gradients = jax.jit(jax.vmap(jax.grad(loss, 1)))
    with localcontext(prec=120):
        step = Decimal("1e-20")
        slopes = [
            float((exact(e, a, step) - exact(e, a, -step)) / (2 * step))
            for e, a in zip(errors, shapes, strict=True)
        ]
    # Tiny errors, where the shape does not matter, lose digits in proportion to the loss itself.
    error = np.abs(gradients(errors, shapes) - np.array(slopes))
    scale = np.abs(slopes) + np.array(
        [float(exact(e, a)) for e, a in zip(errors, shapes, strict=True)]
    )
    assert (error / scale).max() < 1e-5
    # At the ends it has none left, and at 2, where it is infinite, it is large.
    np.testing.assert_allclose(gradients(jnp.ones(2), jnp.array([-INF, INF])), 0, atol=1e-7)
    assert 3 < gradients(jnp.ones(1), jnp.full(1, 2.0))[0] < 100


def test_second_derivatives():
    e = jnp.array([0.0, 1e-3, 1.0, -4.0])
    curvature = jax.jit(jax.vmap(jax.hessian(loss), (0, None)))
    np.testing.assert_allclose(curvature(e, 2.0), 1, rtol=1e-5)
    s = np.asarray(e, float) ** 2
    np.testing.assert_allclose(curvature(e, 1.0), (1 + s) ** -1.5, rtol=1e-5)
    np.testing.assert_allclose(curvature(e, 0.0), (2 - s) / (2 * (s / 2 + 1) ** 2), rtol=1e-5)
    np.testing.assert_allclose(curvature(e, -INF), (1 - s) * np.exp(-s / 2), atol=1e-6)


def test_infinite_errors():
    shapes = np.array([-INF, -2, -1e-3, 0, 0.5, 1], np.float32)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(-INF, shapes)
    np.testing.assert_allclose(value, [1, 2, 2001, INF, INF, INF], rtol=1e-6)
    np.testing.assert_array_equal(slope, [0, 0, 0, 0, 0, -1])
    # A shape that is learned survives an outlier at infinity.
    by_shape = jax.jit(jax.grad(loss, 1))(INF, -2.0)
    np.testing.assert_allclose(by_shape, 0.5)  # of (2 - alpha) / -alpha


def test_targets_scales_and_arrays_of_shapes():
    robust = jax.jit(general_robust_loss)
    got = robust(jnp.array([5.0, 5.0]), jnp.array([1.0, 1.0]), alpha=1.0, scale=2.0)
    np.testing.assert_allclose(got, np.sqrt(5) - 1, rtol=1e-6)
    half = robust(jnp.full(2, 300.0, jnp.float16), alpha=jnp.array([1.0, 0.0]))
    assert half.dtype == jnp.float16
    np.testing.assert_allclose(half, [np.sqrt(90001) - 1, np.log(45001)], rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 0.0}, "general_robust_loss: scale must be > 0; got 0.0"),
        ({"alpha": float("nan")}, "general_robust_loss: alpha must be .* got nan"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        general_robust_loss(1.0, **arguments)
