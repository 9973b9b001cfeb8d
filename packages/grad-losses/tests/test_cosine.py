"""Cosines against scipy and float64, their derivatives, masks, and vectors without direction."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial.distance

from grad_losses import cosine_distance, cosine_similarity

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 4, 5)).astype(np.float32)
MASK = RNG.random(size=(4, 5)) < 0.6
LOSSES = [cosine_similarity, cosine_distance]


similarity = jax.jit(cosine_similarity, static_argnames="axis")
distance = jax.jit(cosine_distance, static_argnames="axis")
slope = jax.jit(jax.grad(lambda a, b, **kwargs: cosine_similarity(a, b, **kwargs).sum()))
distance_slope = jax.jit(jax.grad(lambda a, b: cosine_distance(a, b).sum()))


def exact(a: np.ndarray, b: np.ndarray, axis: int | tuple[int, ...] | None = -1) -> np.ndarray:
    """The cosine in float64."""
    a, b = np.broadcast_arrays(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = (np.sqrt((x**2).sum(axis=axis)) for x in (a, b))
    return (a * b).sum(axis=axis) / np.prod(list(lengths), axis=0)


def test_against_scipy() -> None:
    want = [scipy.spatial.distance.cosine(a, b) for a, b in zip(A, B, strict=True)]
    np.testing.assert_allclose(distance(A, B), want, rtol=1e-6)
    np.testing.assert_allclose(similarity(A, B), 1 - np.array(want), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, (-1, 0), None])
def test_axes(axis: int | tuple[int, ...] | None) -> None:
    got = similarity(A, B, axis=axis)
    np.testing.assert_allclose(got, exact(A, B, axis), rtol=1e-5)
    np.testing.assert_allclose(distance(A, B, axis=axis), 1 - got, rtol=1e-5)


def test_where_is_the_same_as_fewer_features() -> None:
    mask = np.array(MASK)
    mask[3] = False
    hidden = jnp.where(mask, A, jnp.nan)
    got = similarity(hidden, B, where=mask)
    for row in range(3):
        kept = mask[row]
        np.testing.assert_allclose(got[row], exact(A[row][kept], B[row][kept]), rtol=1e-5)
    assert got[3] == 0
    np.testing.assert_allclose(distance(hidden, B, where=mask), 1 - got, rtol=1e-5)
    found = slope(hidden, B, where=mask)
    np.testing.assert_array_equal(found[~mask], 0)
    assert jnp.isfinite(found).all()
    repeated = similarity(A, B, where=np.tile(mask[0], (4, 1)))
    np.testing.assert_allclose(similarity(A, B, where=mask[0]), repeated)


def test_broadcasting() -> None:
    pairs = similarity(A[:, None], B[None])
    np.testing.assert_allclose(pairs, exact(A[:, None], B[None]), rtol=1e-5)
    np.testing.assert_allclose(similarity(A, B[0]), exact(A, B[:1].repeat(4, 0)), rtol=1e-5)


def test_close_directions_lose_no_digits() -> None:
    # Of an angle t the distance is 2 sin(t / 2)**2.
    t = np.array([1e-6, 1e-5, 1e-3, 0.1], np.float32)
    x = np.stack([np.ones_like(t), np.zeros_like(t), 0 * t, 0 * t, 0 * t], -1)
    y = np.stack([np.cos(t), np.sin(t), 0 * t, 0 * t, 0 * t], -1) * 7
    angle = np.arctan2(y[:, 1].astype(np.float64), y[:, 0])
    np.testing.assert_allclose(distance(x, y), 2 * np.sin(angle / 2) ** 2, rtol=1e-6)
    np.testing.assert_allclose(distance(A, 2 * A), 0, atol=1e-14)
    np.testing.assert_allclose(distance(A, -A), 2, rtol=1e-6)


def test_vectors_of_zeros_have_no_direction() -> None:
    z = jnp.zeros((4, 5)).at[1].set(1e-30)
    got, want = similarity(z, B), np.zeros(4)
    want[1] = B[1].sum() / np.sqrt(5) / np.linalg.norm(B[1])
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(distance(z, B), 1 - got, rtol=1e-6)
    np.testing.assert_array_equal(similarity(z[::2], z[::2]), 0)
    zero = np.array([0, 2, 3])
    for gradient in (slope, distance_slope):
        for found in (gradient(z, B), gradient(B, z)):
            assert jnp.isfinite(found).all()
            np.testing.assert_allclose(found[zero], 0, atol=1e-6)
    _, curvature = jax.jvp(distance_slope, (z, B), (B, A))
    assert jnp.isfinite(curvature[zero]).all()


def test_gradient_is_the_other_direction_less_its_part_along_this() -> None:
    a, b = A.astype(np.float64), B.astype(np.float64)
    length = np.linalg.norm(a, axis=-1, keepdims=True)
    direction = b / np.linalg.norm(b, axis=-1, keepdims=True)
    want = (direction - exact(a, b)[:, None] * a / length) / length
    np.testing.assert_allclose(slope(A, B), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(distance_slope(A, B), -want, rtol=1e-5, atol=1e-6)


def test_lengths_do_not_matter() -> None:
    for scale in (np.float32(1e-30), np.float32(1e30)):
        np.testing.assert_allclose(similarity(scale * A, B), exact(A, B), rtol=1e-5)
        found = scale * distance_slope(scale * A, B)
        np.testing.assert_allclose(found, distance_slope(A, B), rtol=1e-4, atol=1e-6)


def test_epsilon_bounds_squared_lengths_from_below() -> None:
    x, y = jnp.array([1.0, 2.0, 2.0]), jnp.array([2.0, 0.0, 0.0])
    epsilon = jnp.array([[0.0], [4.0], [6.25], [100.0]])
    want = np.array([1 / 3, 1 / 3, 2 / 7.5, 0.02])
    np.testing.assert_allclose(similarity(x, y, epsilon=epsilon), want, rtol=1e-6)
    np.testing.assert_allclose(distance(x, y, epsilon=epsilon), 1 - want, rtol=1e-6)
    by_epsilon = jax.grad(lambda e, loss: loss(x, y, epsilon=e))
    np.testing.assert_array_equal([by_epsilon(0.0, loss) for loss in (similarity, distance)], 0)
    # Below the bound the length is a constant, also for zeros.
    np.testing.assert_allclose(slope(jnp.zeros(3), x, epsilon=4.0), x / 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(jnp.arange(3), jnp.ones(3)), TypeError, "predictions must be .* got int32"),
        (lambda f: f(A, 1j * B), TypeError, "targets must be real; got complex64"),
        (lambda f: f(A, B[:2]), ValueError, r".* \(4, 5\) and targets of shape \(2, 5\)"),
        (lambda f: f(A, B, axis=2), ValueError, r"axis must be .* \(4, 5\); got 2"),
        (lambda f: f(1.0, 2.0), ValueError, r"axis must be .* \(\); got -1"),
        (lambda f: f(A, B, where=A), ValueError, "where must be boolean; got float32"),
        (lambda f: f(A, B, where=MASK[:3]), ValueError, r".* where of shape \(3, 5\)"),
        (lambda f: f(A, B, epsilon=-1.0), ValueError, "epsilon must be >= 0; got -1.0"),
    ],
)
@pytest.mark.parametrize("loss", LOSSES)
def test_errors(
    loss: Callable[..., jax.Array],
    call: Callable[[Callable[..., jax.Array]], object],
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=f"{loss.__name__}: {message}"):
        call(loss)
