"""Losses of cosines with margins, against the equations in double precision."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import arcface_loss, circle_loss, cosface_loss

RNG = np.random.default_rng(0)
COSINES = RNG.uniform(-0.95, 0.95, size=(5, 6)).astype(np.float32)
LABELS = np.array([0, 5, 2, 2, 4])
POSITIVES = RNG.random(size=(5, 6)) < 0.5
POSITIVES[3:] = [[True] * 6, [False] * 6]


def softmax_loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    losses = [np.log(sum(np.exp(z - z[y]))) for z, y in zip(logits, labels, strict=True)]
    return np.array(losses)


def arcface(cosines: np.ndarray, labels: np.ndarray, margin: float, scale: float) -> np.ndarray:
    angles = np.arccos(cosines.astype(np.float64))
    for i, y in enumerate(labels):
        angles[i, y] += margin
    return softmax_loss(scale * np.cos(angles), labels)


def cosface(cosines: np.ndarray, labels: np.ndarray, margin: float, scale: float) -> np.ndarray:
    cosines = cosines.astype(np.float64)
    for i, y in enumerate(labels):
        cosines[i, y] -= margin
    return softmax_loss(scale * cosines, labels)


def circle(
    cosines: np.ndarray, positives: np.ndarray, margin: float, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """The loss, and its derivatives with the paces held fixed."""
    losses, slopes = [], np.zeros(cosines.shape)
    for i, (row, is_positive) in enumerate(zip(cosines.astype(float), positives, strict=True)):
        pace = np.where(is_positive, np.maximum(1 + margin - row, 0), np.maximum(row + margin, 0))
        exponents = scale * pace * np.where(is_positive, 1 - margin - row, row - margin)
        near, far = (np.logaddexp.reduce(exponents[is_it]) for is_it in (is_positive, ~is_positive))
        losses.append(np.logaddexp(0, near + far))
        if losses[-1]:
            share = np.exp(np.where(is_positive, exponents - near, exponents - far))
            sign = np.where(is_positive, -1, 1)
            slopes[i] = (1 - np.exp(-losses[-1])) * sign * share * scale * pace
    return np.array(losses), slopes


@pytest.mark.parametrize(("loss", "exact"), [(arcface_loss, arcface), (cosface_loss, cosface)])
def test_margins(loss: Callable[..., jax.Array], exact: Callable[..., np.ndarray]) -> None:
    default = 0.5 if loss is arcface_loss else 0.35
    compiled = jax.jit(loss)
    for margin, scale in ((default, 64.0), (0.2, 3.0), (0.0, 10.0), (-0.3, 1.0)):
        want = exact(COSINES, LABELS, margin, scale)
        got = compiled(COSINES, LABELS, margin=margin, scale=scale)
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)
    value = compiled(COSINES, LABELS)
    want = exact(COSINES, LABELS, default, 64.0)
    np.testing.assert_allclose(value, want, rtol=2e-5, atol=1e-6)
    np.testing.assert_array_equal(compiled(COSINES, LABELS - 6), value)
    assert jnp.isnan(compiled(COSINES, np.full(5, 6))).all()


def test_margin_of_an_angle_near_its_ends() -> None:
    def loss(cosine: jax.Array) -> jax.Array:
        return arcface_loss(jnp.stack([cosine, 0.0 * cosine]), jnp.array(0), scale=1.0)

    value_and_slope = jax.jit(jax.vmap(jax.value_and_grad(loss)))
    second = jax.jit(jax.vmap(jax.jacfwd(jax.grad(loss))))
    ends = np.array([1.0, -1.0, np.nextafter(np.float32(1), 2), np.nextafter(np.float32(-1), -2)])
    value, slope = value_and_slope(ends.astype(np.float32))
    # cos(m) and -cos(m); there, the derivative of the sine counts as 0.
    target = np.sign(ends) * math.cos(0.5)
    np.testing.assert_allclose(value, np.log1p(np.exp(-target)), rtol=1e-6)
    np.testing.assert_allclose(slope, -math.cos(0.5) / (1 + np.exp(target)), rtol=1e-6)
    assert jnp.isfinite(second(ends.astype(np.float32))).all()
    inside = np.array([1 - 1e-3, -1 + 1e-3, 0.3], np.float32)
    angle = np.arccos(inside.astype(np.float64))
    target = np.cos(angle + 0.5)
    want = -np.sin(angle + 0.5) / np.sin(angle) / (1 + np.exp(target))
    np.testing.assert_allclose(value_and_slope(inside)[1], want, rtol=1e-4)


def test_normalized_embeddings_have_finite_gradients_with_margins() -> None:
    # Here an embedding points exactly along the weights of its class.
    def loss(x: jax.Array, w: jax.Array) -> jax.Array:
        x, w = (v / jnp.linalg.norm(v, axis=-1, keepdims=True) for v in (x, w))
        return arcface_loss(x @ w.T, jnp.array([0, 1])).sum()

    x = jnp.array([[3.0, 4.0], [0.6, 0.8]])
    for slope in jax.jit(jax.grad(loss, (0, 1)))(x, jnp.array([[6.0, 8.0], [-3.0, -4.0]])):
        assert jnp.isfinite(slope).all()


def test_circle() -> None:
    compiled = jax.jit(
        jax.value_and_grad(
            lambda c, m, s: ((v := circle_loss(c, POSITIVES, margin=m, scale=s)).sum(), v),
            has_aux=True,
        )
    )
    for margin, scale in ((0.25, 256.0), (0.4, 80.0), (0.1, 2.0)):
        want, want_slope = circle(COSINES, POSITIVES, margin, scale)
        (_, value), slope = compiled(COSINES, margin, scale)
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(slope, want_slope, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(value[3:], 0)  # no negatives, no positives
        np.testing.assert_array_equal(slope[3:], 0)


def test_circle_at_its_optimum_and_on_its_boundary() -> None:
    # Cosines 1 and 0, of the positive and the negative, are the centre of the circle; m away lies
    # the boundary, where the loss is log(2).
    run, both = jax.jit(circle_loss), np.array([[True, False]] * 5)
    m, angles = 0.25, np.array([0.0, 0.3, math.pi / 4, math.pi / 2])
    places = np.stack([1 - np.sqrt(2) * m * np.cos(angles), np.sqrt(2) * m * np.sin(angles)], -1)
    cosines = np.concatenate([[[1, 0]], places]).astype(np.float32)
    np.testing.assert_allclose(run(cosines, both)[0], np.log1p(np.exp(-2 * 256 * m**2)), rtol=1e-5)
    np.testing.assert_allclose(run(cosines, both, scale=10.0)[1:], math.log(2), rtol=1e-5)


def test_circle_with_where_is_the_same_as_fewer_compared() -> None:
    mask = np.array([True, True, False, True, False, True])
    run = jax.jit(
        jax.value_and_grad(
            lambda c, where: ((v := circle_loss(c, POSITIVES, where=where)).sum(), v), has_aux=True
        )
    )
    (_, clean), clean_slope = run(COSINES, mask)
    want, want_slope = circle(COSINES[:, mask], POSITIVES[:, mask], 0.25, 256.0)
    np.testing.assert_allclose(clean, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(clean_slope[:, mask], want_slope, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(clean_slope[:, ~mask], 0)
    for hidden in (np.nan, np.inf):
        (_, value), slope = run(np.where(mask, COSINES, np.float32(hidden)), mask)
        np.testing.assert_array_equal(value, clean)
        np.testing.assert_array_equal(slope, clean_slope)
    (_, value), slope = run(COSINES, np.zeros(6, bool))
    np.testing.assert_array_equal(value, 0)
    np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: arcface_loss(LABELS, LABELS),
            TypeError,
            "arcface_loss: cosines must be",
        ),
        (lambda: arcface_loss(COSINES, COSINES), TypeError, "labels must be of an integer dtype"),
        (lambda: cosface_loss(COSINES, LABELS[:3]), ValueError, r"labels of .* cosines of shape"),
        (lambda: cosface_loss(COSINES, LABELS, scale=-1), ValueError, "scale must be >= 0; got -1"),
        (
            lambda: arcface_loss(COSINES, LABELS, margin=math.nan),
            ValueError,
            "must be a number",
        ),
        (lambda: circle_loss(COSINES, LABELS), TypeError, "positives must be boolean; got int"),
        (lambda: circle_loss(COSINES, POSITIVES[:2]), ValueError, r"positives of shape \(2, 6\)"),
        (
            lambda: circle_loss(COSINES[0], POSITIVES[0], where=POSITIVES),
            ValueError,
            r"where of shape \(5, 6\) has more elements than cosines of shape \(6,\)",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
