"""Margin and sparsemax losses against scikit-learn, float64 and closed forms."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from grad_core.projections import projection_simplex
from grad_losses import (
    hinge_loss,
    make_fenchel_young_loss,
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    multiclass_sparsemax_loss,
    perceptron_loss,
    sparsemax_loss,
)

INF = np.inf
RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(8, 5)).astype(np.float32)
LABELS = RNG.integers(5, size=8)
ONE_HOT = np.eye(5)[LABELS]
OUTPUTS = np.array([-3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 2.0, 1e4], np.float32)
Loss = Callable[..., jax.Array]
MULTICLASS: list[Loss] = [
    multiclass_hinge_loss,
    multiclass_perceptron_loss,
    multiclass_sparsemax_loss,
]


def sparsemax(scores: np.ndarray) -> np.ndarray:
    """The nearest point of the simplex, in float64, by bisection."""
    z = np.asarray(scores, np.float64)
    low, high = z.max(-1, keepdims=True) - 1, z.max(-1, keepdims=True)
    for _ in range(60):
        middle = (low + high) / 2
        is_low = np.maximum(z - middle, 0).sum(-1, keepdims=True) >= 1
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return np.maximum(z - low, 0)


def exact(loss: Loss, scores: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """The loss by its definition, in float64."""
    z = np.asarray(scores, np.float64)
    of_label = (z * one_hot).sum(-1)
    if loss is multiclass_sparsemax_loss:
        p = sparsemax(z)
        return (p * z - p**2 / 2).sum(-1) - (of_label - 0.5)
    margin = (1 - one_hot) * (loss is multiclass_hinge_loss)
    return (z + margin).max(-1) - of_label


@functools.partial(jax.jit, static_argnums=0)
def values_and_slopes(loss: Loss, z: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, pull = jax.vjp(lambda z: loss(z, y), z)
    return value, pull(jnp.ones_like(value))[0]


@pytest.mark.parametrize("loss", MULTICLASS)
def test_values_and_gradients_of_several_classes(loss: Loss) -> None:
    for scale in (0.3, 1.0, 30.0):
        z = SCORES * np.float32(scale)
        value, slope = values_and_slopes(loss, z, LABELS)
        np.testing.assert_allclose(value, exact(loss, z, ONE_HOT), rtol=1e-5, atol=1e-6)
        margin = (1 - ONE_HOT) * (loss is multiclass_hinge_loss)
        best = np.eye(5)[(z + margin).argmax(-1)]
        p = sparsemax(z) if loss is multiclass_sparsemax_loss else best
        np.testing.assert_allclose(slope, p - ONE_HOT, atol=1e-6)


def test_hinges_against_scikit_learn() -> None:
    labels = np.array([-1, 1, 1, -1, 1, 1, -1, 1])
    want = sklearn.metrics.hinge_loss(labels, OUTPUTS)
    found, _ = values_and_slopes(hinge_loss, OUTPUTS, labels)
    np.testing.assert_allclose(np.mean(found), want, rtol=1e-6)
    want = sklearn.metrics.hinge_loss(LABELS, SCORES, labels=np.arange(5))
    found, _ = values_and_slopes(multiclass_hinge_loss, SCORES, LABELS)
    np.testing.assert_allclose(np.mean(found), want, rtol=1e-6)


def test_two_classes() -> None:
    # value and slope by z = targets * outputs, at OUTPUTS.
    hinge = ([4, 2, 1.5, 1, 0.75, 0, 0, 0], [-1, -1, -1, -1, -1, -0.5, 0, 0])
    perceptron = ([3, 1, 0.5, 0, 0, 0, 0, 0], [-1, -1, -1, -0.5, 0, 0, 0, 0])
    curved = ([3, 1, 0.5625, 0.25, 0.140625, 0, 0, 0], [-1, -1, -0.75, -0.5, -0.375, 0, 0, 0])
    for loss, (value, slope) in (
        (hinge_loss, hinge),
        (perceptron_loss, perceptron),
        (sparsemax_loss, curved),
    ):
        no = 0 if loss is sparsemax_loss else -1
        for target, sign in ((1, 1), (no, -1)):
            got, by_outputs = values_and_slopes(loss, sign * OUTPUTS, np.full(8, target))
            np.testing.assert_array_equal(got, value)
            np.testing.assert_array_equal(by_outputs, np.multiply(sign, slope))


def test_two_classes_are_two_of_several() -> None:
    labels = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    scores = np.stack([np.zeros_like(OUTPUTS), OUTPUTS], -1)
    for binary, several, targets in (
        (hinge_loss, multiclass_hinge_loss, 2 * labels - 1),
        (perceptron_loss, multiclass_perceptron_loss, 2 * labels - 1),
        (sparsemax_loss, multiclass_sparsemax_loss, labels),
    ):
        want, _ = values_and_slopes(binary, OUTPUTS, targets)
        got, _ = values_and_slopes(several, scores, labels)
        np.testing.assert_allclose(got, want, atol=1e-7)


def test_sparsemax_is_a_fenchel_young_loss() -> None:
    def maximum(scores: jax.Array) -> jax.Array:
        p = projection_simplex(scores)
        return jnp.sum(p * scores) - jnp.sum(p**2) / 2 + 0.5

    got = jax.jit(make_fenchel_young_loss(maximum))(SCORES, ONE_HOT.astype(np.float32))
    want, _ = values_and_slopes(multiclass_sparsemax_loss, SCORES, LABELS)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_small_sparsemax_losses_lose_no_digits() -> None:
    # Of two classes, of which the label leads by less than 1, the loss is (1 - lead)**2 / 4.
    lead = 1 - np.array([0, 1e-4, 1e-3, 0.1, 0, 1e-4, 1e-3, 0.1], np.float32)
    top = np.array([0, 0, 0, 0, 32, 32, 32, 32], np.float32)
    z = np.stack([top, top - lead], -1)
    lacking = 1 - (z[:, 0].astype(np.float64) - z[:, 1])
    got, _ = values_and_slopes(multiclass_sparsemax_loss, z, np.zeros(8, int))
    np.testing.assert_allclose(got, lacking**2 / 4, rtol=1e-3, atol=1e-15)


# Scores; hinge, perceptron, sparsemax for label 0.
LIMITS = [
    ([0.0, -INF, -INF], 0, 0, 0),
    ([-INF, 0.0, -1.0], INF, INF, INF),
    ([INF, 0.0, -INF], 0, 0, 0),
    ([0.0, INF, 3.0], INF, INF, INF),
    ([0.5, 0.5, -INF], 1, 0, 0.25),
    ([3e38, -3e38, 0.0], 0, 0, 0),
]


def test_infinite_scores() -> None:
    z, *wanted = (np.array(column, np.float32) for column in zip(*LIMITS, strict=True))
    for loss, want in zip(MULTICLASS, wanted, strict=True):
        value, slope = values_and_slopes(loss, z, np.zeros(6, int))
        np.testing.assert_allclose(value, want, atol=1e-7)
        assert jnp.isfinite(slope).all()


def test_labels() -> None:
    for loss in MULTICLASS:
        got, _ = values_and_slopes(loss, SCORES, LABELS)
        from_the_end, _ = values_and_slopes(loss, SCORES, LABELS - 5)
        np.testing.assert_array_equal(from_the_end, got)
        outside, _ = values_and_slopes(loss, SCORES, np.array([5, -6] * 4))
        assert jnp.isnan(outside).all()
    loss = jax.jit(multiclass_perceptron_loss)
    got = loss(SCORES, LABELS.astype(np.uint8))
    batches = loss(SCORES.reshape(2, 4, 5), LABELS.reshape(2, 4))
    np.testing.assert_array_equal(batches.ravel(), got)
    assert loss(SCORES[0], LABELS[0]) == got[0]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(jnp.arange(3), 1), TypeError, "scores must be .* got int32"),
        (lambda f: f(SCORES, SCORES[:, 0]), TypeError, r"got float32. .*argmax\(-1\)"),
        (
            lambda f: f(SCORES, ONE_HOT.astype(int)),
            ValueError,
            r"one integer per example. .*argmax",
        ),
        (lambda f: f(SCORES, LABELS[:3]), ValueError, r"\(3,\) must have .* \(8, 5\) .*, \(8,\)"),
        (lambda f: f(1.0, 1), ValueError, r"at least one class; got \(\)"),
        (lambda f: f(jnp.ones((2, 0)), jnp.ones(2, int)), ValueError, r"one class; got \(2, 0\)"),
    ],
)
@pytest.mark.parametrize("loss", MULTICLASS)
def test_errors_of_several_classes(
    loss: Loss, call: Callable[[Loss], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"{loss.__name__}: .*{message}"):
        call(loss)


def test_errors_of_two_classes() -> None:
    for loss, name in (
        (hinge_loss, "predictor_outputs"),
        (perceptron_loss, "predictor_outputs"),
        (sparsemax_loss, "logits"),
    ):
        with pytest.raises(TypeError, match=f"{loss.__name__}: {name} must be .* got int32"):
            loss(jnp.arange(3), jnp.ones(3))
        with pytest.raises(ValueError, match=rf"{loss.__name__}: {name} of shape \(8,\) and "):
            loss(OUTPUTS, jnp.ones(3))
    np.testing.assert_array_equal(hinge_loss(OUTPUTS, 1), hinge_loss(OUTPUTS, jnp.ones(8)))
    with pytest.raises(ValueError, match="must have the same shape"):
        perceptron_loss(OUTPUTS, 1)
