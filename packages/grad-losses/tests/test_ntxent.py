"""NT-Xent against its definition in float64, closed forms, and batches with few pairs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import ntxent

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([2, 0, 2, 1, 0, 2])


@jax.jit
def value_and_slope(
    x: jax.Array, labels: jax.Array, temperature: jax.Array = 0.07
) -> tuple[jax.Array, jax.Array]:
    return jax.value_and_grad(ntxent)(x, labels, temperature)


def exact(x: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The loss pair by pair, in float64."""
    u = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True)
    logits = u @ u.T / temperature
    costs = []
    for i, own in enumerate(labels):
        negatives = logits[i, labels != own]
        for j in np.flatnonzero(labels == own):
            if j != i:
                costs.append(np.logaddexp.reduce([logits[i, j], *negatives]) - logits[i, j])
    return float(np.mean(costs))


def test_values_and_gradients() -> None:
    for temperature in (0.07, 1.0, 1e3):
        value, slope = value_and_slope(X, LABELS, temperature)
        np.testing.assert_allclose(value, exact(X, LABELS, temperature), rtol=1e-5)
        step = 1e-6 * RNG.normal(size=X.shape)
        up, down = (exact(X + sign * step, LABELS, temperature) for sign in (1, -1))
        np.testing.assert_allclose((slope * step).sum(), (up - down) / 2, rtol=1e-3, atol=1e-11)


def test_closed_form() -> None:
    # One pair, parallel, and its negative at right angles.
    x = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], np.float32)
    for temperature in (0.1, 1.0):
        got, _ = value_and_slope(x, np.array([1, 1, 0]), temperature)
        np.testing.assert_allclose(got, np.log1p(np.exp(-1 / temperature)), rtol=1e-5)


def test_only_equality_of_labels_and_directions_matter() -> None:
    want, _ = value_and_slope(X, LABELS)
    for labels in (LABELS * 0.5, -LABELS, LABELS + 100):
        np.testing.assert_array_equal(value_and_slope(X, labels)[0], want)
    lengths = np.array([[1e-30], [1e30], [1], [7], [1e-3], [1]], np.float32)
    np.testing.assert_allclose(value_and_slope(X * lengths, LABELS)[0], want, rtol=1e-5)


def test_few_pairs() -> None:
    one = np.array([0, 0, 1, 2, 3, 4])
    value, slope = value_and_slope(X, one)
    np.testing.assert_allclose(value, exact(X, one, 0.07), rtol=1e-5)
    assert jnp.isfinite(slope).all()
    # No pair, no negative: nothing to learn.
    for labels in (np.arange(6), np.zeros(6, int)):
        value, slope = value_and_slope(X, labels)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)


def test_identical_and_zero_embeddings() -> None:
    same = np.ones((6, 4), np.float32)
    value, slope = value_and_slope(same, LABELS)
    # Of all pairs equally alike, it is the logarithm of 1 + the number of negatives.
    pairs = {label: (n := (label == LABELS).sum()) * (n - 1) for label in range(3)}
    want = sum(k * np.log(1 + (label != LABELS).sum()) for label, k in pairs.items())
    np.testing.assert_allclose(value, want / sum(pairs.values()), rtol=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-5)
    value, slope = value_and_slope(0 * same, LABELS)
    np.testing.assert_allclose(value, want / sum(pairs.values()), rtol=1e-6)
    np.testing.assert_array_equal(slope, 0)
    value, slope = value_and_slope(np.concatenate([0 * X[:1], X[1:]]), LABELS)
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()


def test_low_temperatures_do_not_overflow() -> None:
    # The loss goes to the mean of (best negative - positive)+ over the temperature.
    u = X.astype(np.float64) / np.linalg.norm(X, axis=-1, keepdims=True)
    cosine, same = u @ u.T, LABELS[:, None] == LABELS
    behind = np.where(same, -np.inf, cosine).max(-1, keepdims=True) - cosine
    want = np.maximum(behind, 0)[same & ~np.eye(6, dtype=bool)].mean()
    value, slope = value_and_slope(X, LABELS, 1e-6)
    np.testing.assert_allclose(1e-6 * value, want, rtol=1e-5)
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: ntxent(jnp.ones((3, 2), int), jnp.ones(3)),
            TypeError,
            "embeddings must be .* int",
        ),
        (lambda: ntxent(X, LABELS * 1j), TypeError, "labels must be real"),
        (lambda: ntxent(X[0], LABELS), ValueError, r"\[batch, features\]; got shape \(4,\)"),
        (lambda: ntxent(X, LABELS[:3]), ValueError, r"labels of shape \(3,\) .* \(6, 4\)"),
        (lambda: ntxent(X, LABELS[:, None]), ValueError, r"labels of shape \(6, 1\)"),
        (lambda: ntxent(X, LABELS, 0.0), ValueError, "temperature must be > 0; got 0.0"),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"ntxent: .*{message}"):
        call()
