"""The triplet loss against scipy's distances, its gradients, and coincident or far points."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance

from grad_losses import triplet_margin_loss

RNG = np.random.default_rng(0)
A, P, N = RNG.normal(size=(3, 4, 5)).astype(np.float32)

triplet = jax.jit(triplet_margin_loss, static_argnames=("axis", "norm_degree"))


@functools.partial(jax.jit, static_argnames="norm_degree")
def slopes(a: jax.Array, p: jax.Array, n: jax.Array, **kwargs: object) -> tuple[jax.Array, ...]:
    def total(a: jax.Array, p: jax.Array, n: jax.Array) -> jax.Array:
        return triplet_margin_loss(a, p, n, **kwargs).sum()

    return jax.grad(total, (0, 1, 2))(a, p, n)


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 1.5, 2.0])
def test_against_scipy(degree: float) -> None:
    def distances(y: np.ndarray) -> np.ndarray:
        pairs = zip(A, y, strict=True)
        return np.array([scipy.spatial.distance.minkowski(x, y, degree) for x, y in pairs])

    want = np.maximum(distances(P) - distances(N) + 0.7, 0)
    got = triplet(A, P, N, norm_degree=degree, margin=0.7, eps=0.0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_eps_is_added_under_the_root() -> None:
    near, far = (np.sqrt(((A - x).astype(np.float64) ** 2).sum(-1) + 0.5) for x in (P, N))
    np.testing.assert_allclose(triplet(A, P, N, eps=0.5), np.maximum(near - far + 1, 0), rtol=1e-5)
    np.testing.assert_allclose(triplet(A, A, A, margin=0.25), 0.25)


def test_axes_and_broadcasting() -> None:
    got = triplet(A.T, P.T, N.T, axis=0)
    np.testing.assert_allclose(got, triplet(A, P, N), rtol=1e-6)
    whole = triplet(A, P, N, axis=None)
    np.testing.assert_allclose(whole, triplet(A.ravel(), P.ravel(), N.ravel()), rtol=1e-6)
    np.testing.assert_allclose(triplet(A, P, N[0]), triplet(A, P, N[:1].repeat(4, 0)), rtol=1e-6)


def test_gradients_are_unit_vectors() -> None:
    by_anchor, by_positive, by_negative = slopes(A, P, N, margin=10.0, eps=0.0)
    toward, away = ((A - x) / np.linalg.norm(A - x, axis=-1, keepdims=True) for x in (P, N))
    np.testing.assert_allclose(by_positive, -toward, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_negative, away, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_anchor, toward - away, rtol=1e-5, atol=1e-6)
    for slope in slopes(A, P, N, margin=-10.0, eps=0.0):
        np.testing.assert_array_equal(slope, 0)


@pytest.mark.parametrize("degree", [1, 2])
def test_coincident_points_have_finite_gradients(degree: int) -> None:
    for eps in (0.0, 1e-6):
        options = {"eps": eps, "margin": 9.0, "norm_degree": degree}
        by_anchor, by_positive, by_negative = slopes(A, A, N, **options)
        np.testing.assert_array_equal(by_positive, 0)
        np.testing.assert_array_equal(by_anchor, -by_negative)
        assert jnp.isfinite(by_negative).all()


def test_squares_are_smooth_where_points_coincide() -> None:
    # The curvature is 1 / sqrt(eps).
    def loss(p: jax.Array) -> jax.Array:
        return triplet_margin_loss(jnp.zeros(3), p, jnp.full(3, 9.0), margin=99.0)

    curvature = jax.jit(jax.hessian(loss))(jnp.zeros(3))
    np.testing.assert_allclose(curvature, 1e3 * np.eye(3), rtol=1e-4)


def test_far_points_do_not_overflow() -> None:
    scale = np.float32(1e25)
    want = scale * np.float64(1) * triplet(A, P, N, margin=0.0)
    np.testing.assert_allclose(
        triplet(scale * A, scale * P, scale * N, margin=0.0), want, rtol=1e-5
    )
    for slope in slopes(scale * A, scale * P, scale * N, margin=9.0, eps=0.0):
        assert jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((jnp.arange(3), A, A), {}, TypeError, "anchors must be .* int32"),
        ((A, P, jnp.ones((4, 5), int)), {}, TypeError, "negatives must be .* int32"),
        ((A, P[:2], N), {}, ValueError, r"positives of shape \(2, 5\)"),
        ((A, P, N), {"axis": 2}, ValueError, "axis must be .*; got 2"),
        ((A, P, N), {"norm_degree": 0.5}, ValueError, "norm_degree must be in .*; got 0.5"),
        ((A, P, N), {"norm_degree": np.inf}, ValueError, "norm_degree must be in .*; got inf"),
        ((A, P, N), {"eps": -1.0}, ValueError, "eps must be >= 0; got -1.0"),
        ((A, P, N), {"margin": np.nan}, ValueError, "margin must be .*; got nan"),
    ],
)
def test_errors(
    arguments: tuple[object, ...],
    options: dict[str, object],
    kind: type[Exception],
    message: str,
) -> None:
    call: Callable[..., object] = triplet_margin_loss
    with pytest.raises(kind, match=f"triplet_margin_loss: .*{message}"):
        call(*arguments, **options)
