"""PolyLoss, safe cross entropy and smoothed labels against float64; masks, limits, errors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from grad_losses import (
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    smooth_labels,
    softmax_cross_entropy,
)

INF = jnp.inf
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(4, 6))).astype(np.float32)
LABELS = RNG.dirichlet(np.ones(6), size=4).astype(np.float32)
MASK = RNG.random(size=(4, 6)) < 0.6
MASK[3] = False

poly = jax.jit(poly_loss_cross_entropy, static_argnames="axis")
safe = jax.jit(safe_softmax_cross_entropy)
smooth = jax.jit(smooth_labels, static_argnames="axis")


def exact(z: np.ndarray, y: np.ndarray, epsilon: float, axis: object = -1) -> np.ndarray:
    """The polynomial loss in float64."""
    log_p = scipy.special.log_softmax(z.astype(np.float64), axis)
    return (-y * log_p + epsilon * y * (1 - np.exp(log_p))).sum(axis)


@pytest.mark.parametrize("axis", [-1, 0, (0, 1), None])
def test_poly_values(axis: int | tuple[int, ...] | None) -> None:
    for epsilon in (2.0, -0.5, 0.0):
        got = poly(LOGITS, LABELS, epsilon=epsilon, axis=axis)
        np.testing.assert_allclose(got, exact(LOGITS, LABELS, epsilon, axis), rtol=2e-6)


def test_poly_against_scikit_learn() -> None:
    classes = np.array([0, 5, 2, 3])
    y = np.eye(6, dtype=np.float32)[classes]
    p = scipy.special.softmax(LOGITS.astype(np.float64), -1)
    want = sklearn.metrics.log_loss(classes, p, labels=range(6))
    np.testing.assert_allclose(np.mean(poly(LOGITS, y, epsilon=0.0)), want, rtol=1e-6)
    want += np.mean(1 - p[np.arange(4), classes])
    np.testing.assert_allclose(np.mean(poly(LOGITS, y, epsilon=1.0)), want, rtol=1e-6)
    by_example = poly(LOGITS, y, epsilon=np.array([0.0, 1.0, 0.0, 1.0], np.float32))
    np.testing.assert_allclose(by_example[1], exact(LOGITS, y, 1.0)[1], rtol=1e-6)


def test_poly_gradient() -> None:
    # Of a one-hot label: (p - y) (1 + epsilon p_y).
    y = np.eye(6, dtype=np.float32)[[0, 5, 2, 3]]
    p = scipy.special.softmax(LOGITS.astype(np.float64), -1)
    slope = jax.jit(jax.grad(lambda z: poly_loss_cross_entropy(z, y, epsilon=1.5).sum()))
    want = (p - y) * (1 + 1.5 * (p * y).sum(-1, keepdims=True))
    np.testing.assert_allclose(slope(LOGITS), want, atol=1e-6)


# Logits, labels, cross entropy, and what p lacks to 1.
LIMITS = [
    ([0.0, -INF, 0.0], [1, 0, 0], np.log(2), 0.5),
    ([0.0, -INF, -INF], [1, 0, 0], 0, 0),
    ([0.0, -INF, 0.0], [0, 1, 0], INF, 1),
    ([INF, 0.0, 0.0], [1, 0, 0], 0, 0),
    ([1e4, -1e4, 0.0], [1, 0, 0], 0, 0),
    ([1e4, -1e4, 0.0], [0, 0, 1], 1e4, 1),
    ([-INF, -INF, -INF], [0, 0, 0], 0, 0),
]


def test_infinite_logits() -> None:
    z, y, cost, lack = (np.array(column, np.float32) for column in zip(*LIMITS, strict=True))
    run = jax.jit(jax.vmap(jax.value_and_grad(poly_loss_cross_entropy, (0, 1))))
    value, slopes = run(z, y)
    np.testing.assert_allclose(value, cost + 2 * lack, rtol=1e-6, atol=1e-6)
    for slope in slopes:
        assert jnp.isfinite(slope[jnp.isfinite(cost)]).all()
    np.testing.assert_allclose(safe(z, y), cost, rtol=1e-6, atol=1e-6)


@jax.jit
def masked_poly(z: jax.Array, y: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    value, pull = jax.vjp(lambda z, y: poly_loss_cross_entropy(z, y, where=MASK), z, y)
    return value, pull(jnp.ones_like(value))


@pytest.mark.parametrize("hidden", [0.0, -INF, INF, np.nan])
def test_what_where_leaves_out_does_not_matter(hidden: float) -> None:
    value, slopes = masked_poly(np.where(MASK, LOGITS, np.float32(hidden)), LABELS)
    for row in range(3):
        kept = MASK[row]
        want = exact(LOGITS[row, kept], LABELS[row, kept], 2.0)
        np.testing.assert_allclose(value[row], want, rtol=2e-6)
    assert value[3] == 0
    for slope in slopes:
        np.testing.assert_array_equal(slope[~MASK], 0)
        assert jnp.isfinite(slope).all()


def test_safe_is_the_same() -> None:
    got = safe(LOGITS, LABELS)
    np.testing.assert_array_equal(got, jax.jit(softmax_cross_entropy)(LOGITS, LABELS))
    np.testing.assert_allclose(got, exact(LOGITS, LABELS, 0.0), rtol=2e-6)


def test_smoothed_labels() -> None:
    y = LABELS.astype(np.float64)
    for axis, count in ((-1, 6), (0, 4), ((0, 1), 24), (None, 24)):
        got = smooth(LABELS, 0.3, axis=axis)
        np.testing.assert_allclose(got, 0.7 * y + 0.3 / count, rtol=1e-6)
    np.testing.assert_array_equal(smooth(LABELS, 0.0), LABELS)
    np.testing.assert_allclose(smooth(LABELS, 1.0), 1 / 6, rtol=1e-6)
    by_example = smooth(LABELS, jnp.array([[0.0], [1.0], [0.5], [0.5]]))
    np.testing.assert_allclose(by_example[1], 1 / 6, rtol=1e-6)
    # Rounded once: in bfloat16 1 - 0.1 and 0.1 / 6 would be rounded too.
    narrow = jnp.eye(6, dtype=jnp.bfloat16)
    want = np.float32(0.9) * np.eye(6, dtype=np.float32) + np.float32(0.1 / 6)
    np.testing.assert_array_equal(smooth(narrow, 0.1), jnp.asarray(want, jnp.bfloat16))


def test_smoothing_counts_the_classes_that_take_part() -> None:
    got = smooth(LABELS, 0.3, where=MASK)
    shares = 0.3 / np.maximum(MASK.sum(-1, keepdims=True), 1)
    np.testing.assert_allclose(got[MASK], (0.7 * LABELS + shares)[MASK], rtol=1e-6)
    np.testing.assert_allclose(got[3], 0.7 * LABELS[3], rtol=1e-6)
    # Under the same mask the loss is that of fewer classes.
    row = np.flatnonzero(MASK[0])
    y = np.zeros(6, np.float32)
    y[row[0]] = 1
    smoothed = smooth_labels(y, 0.3, where=MASK[0])
    loss = poly(LOGITS[0], smoothed, where=MASK[0])
    want = exact(LOGITS[0, row], 0.7 * y[row] + 0.3 / row.size, 2.0)
    np.testing.assert_allclose(loss, want, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: poly_loss_cross_entropy(1, 1), TypeError, "poly_.*: logits must be .* got int32"),
        (lambda: safe_softmax_cross_entropy(LOGITS, 1j), TypeError, "safe.*: labels must be real"),
        (
            lambda: safe_softmax_cross_entropy(LOGITS, LABELS[:3]),
            ValueError,
            r"safe_softmax.*: logits of shape \(4, 6\) and labels of shape \(3, 6\)",
        ),
        (
            lambda: poly_loss_cross_entropy(LOGITS, LABELS, axis=3),
            ValueError,
            r"poly_.*: axis must be .* of logits of shape \(4, 6\); got 3",
        ),
        (
            lambda: poly_loss_cross_entropy(LOGITS, LABELS, epsilon=np.nan),
            ValueError,
            "poly_.*: epsilon must be .*; got nan",
        ),
        (
            lambda: poly_loss_cross_entropy(LOGITS, LABELS, where=LABELS),
            ValueError,
            "poly_.*: where must be boolean",
        ),
        (
            lambda: smooth_labels(jnp.eye(3, dtype=int), 0.1),
            TypeError,
            "smooth_labels: labels must",
        ),
        (lambda: smooth_labels(LABELS, 1.5), ValueError, r"alpha must be in \[0, 1\]; got 1.5"),
        (lambda: smooth_labels(LABELS, 0.5, where=LABELS), ValueError, "where must be boolean"),
        (
            lambda: smooth_labels(LABELS, 0.5, where=MASK[:3]),
            ValueError,
            r"where of shape \(3, 6\)",
        ),
        (lambda: smooth_labels(1.0, 0.5), ValueError, r"axis must .* shape \(\); got -1"),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
