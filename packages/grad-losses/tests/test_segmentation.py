"""Losses of regions against definitions on sets: Tversky, Jaccard, and Lovasz extensions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from grad_losses import (
    dice_loss,
    focal_tversky_loss,
    jaccard_loss,
    lovasz_hinge_loss,
    lovasz_softmax_loss,
    tversky_loss,
)

hinge = jax.jit(lovasz_hinge_loss, static_argnames="axis")
softmax = jax.jit(lovasz_softmax_loss, static_argnames="only_present")

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 3, 4)).astype(np.float32)
REGIONS = RNG.integers(2, size=(2, 3, 4))
SETS = {"smooth": 0.0, "apply_sigmoid": False}


# Overlaps.


def tversky(p, y, alpha, beta, smooth):
    hits, excess, missed = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
    return 1 - (hits + smooth) / (hits + alpha * excess + beta * missed + smooth)


def test_overlaps_of_sets():
    found = (LOGITS > 0).astype(np.float32)
    want = [1 - jaccard_score(y.ravel(), p.ravel()) for y, p in zip(REGIONS, found, strict=True)]
    np.testing.assert_allclose(jaccard_loss(found, REGIONS, **SETS), want, rtol=1e-6)


def test_overlaps_of_probabilities():
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    for alpha, beta, smooth in ((0.3, 0.7, 1.0), (1.0, 0.0, 0.5), (2.0, 0.25, 0.0)):
        weights = {"alpha": alpha, "beta": beta, "smooth": smooth}
        want = [tversky(*each, **weights) for each in zip(p, REGIONS, strict=True)]
        got = tversky_loss(LOGITS, REGIONS, **weights)
        np.testing.assert_allclose(got, want, rtol=1e-6)
        got = focal_tversky_loss(LOGITS, REGIONS, gamma=2.0, **weights)
        np.testing.assert_allclose(got, np.sqrt(want), rtol=1e-6)
    got = tversky_loss(p.astype(np.float32), REGIONS, apply_sigmoid=False)
    np.testing.assert_allclose(got, tversky_loss(LOGITS, REGIONS), rtol=1e-6)
    want = [tversky(*each, 1, 1, 1) for each in zip(p, REGIONS, strict=True)]
    np.testing.assert_allclose(jaccard_loss(LOGITS, REGIONS), want, rtol=1e-6)


def test_axes_of_pixels_give_a_loss_for_each_class():
    y = jax.nn.one_hot(REGIONS[..., 0], 4)
    got = tversky_loss(jax.nn.softmax(LOGITS), y, apply_sigmoid=False, axis=1)
    assert got.shape == (2, 4)
    want = dice_loss(LOGITS, y, alpha=0.3, beta=0.7, reduction="none")
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert jaccard_loss(LOGITS, REGIONS, axis=(0, -1)).shape == (3,)


def test_empty_and_perfect_regions():
    nothing, certain = np.zeros((1, 3), np.float32), np.full((1, 3), -np.inf, np.float32)
    for loss in (tversky_loss, focal_tversky_loss, jaccard_loss):
        f = jax.jit(jax.value_and_grad(lambda z, f=loss: f(z, nothing, smooth=0.0)[0]))
        value, slope = f(certain)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    # What a nearly perfect one lacks is far smaller than the resolution of probabilities near 1.
    nearly = tversky_loss(np.full((1, 3), 20, np.float32), 1 - nothing, smooth=0.0)
    np.testing.assert_allclose(nearly, 0.7 * np.exp(-20), rtol=1e-5)
    # A root has an infinite derivative at 0: a region that is just right stays as it is.
    gradient = jax.jit(jax.grad(lambda p: focal_tversky_loss(p, 1 - nothing, **SETS)[0]))
    np.testing.assert_array_equal(gradient(1 - nothing), 0)
    assert jnp.all(gradient(jnp.full((1, 3), 0.999)) < -0.1)


# Lovasz extensions.


def extension(errors, region):
    """The largest sum over a chain of sets: by a theorem of Edmonds, as J is submodular.

    Of all orders of the pixels, that of falling errors gives the extension, and it is the largest.
    """

    def jaccard(wrong):
        union = region.sum() + sum(not region[k] for k in wrong)
        return len(wrong) / union if union else 0.0

    def along(order):
        values = [jaccard(order[:k]) for k in range(len(order) + 1)]
        return np.dot(errors[list(order)], np.diff(values))

    return max(along(order) for order in itertools.permutations(range(len(errors))))


def test_the_hinge_form_is_the_extension_of_hinge_losses():
    logits = RNG.normal(size=(6, 2, 3)).astype(np.float32)
    regions = RNG.integers(2, size=(6, 2, 3))
    regions[4:] = np.array([0, 1])[:, None, None]
    errors = np.maximum(0, 1 - np.where(regions, logits, -logits).astype(np.float64)).reshape(6, 6)
    want = [extension(*each) for each in zip(errors, regions.reshape(6, 6), strict=True)]
    np.testing.assert_allclose(want[4], errors[4].max())
    np.testing.assert_allclose(want[5], errors[5].mean())
    np.testing.assert_allclose(hinge(logits, regions), want, rtol=1e-6)
    np.testing.assert_allclose(hinge(logits.T, regions.T, axis=(0, 1)), want, rtol=1e-6)


def test_the_softmax_form_is_the_mean_of_extensions():
    logits = RNG.normal(size=(2, 2, 3, 4)).astype(np.float32)
    labels = RNG.integers(3, size=(2, 2, 3))  # the last class is never there
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    present, every = [], []
    for image, label in zip(p.reshape(2, 6, 4), labels.reshape(2, 6), strict=True):
        losses = [extension(np.abs((label == c) - image[:, c]), label == c) for c in range(4)]
        present.append(np.mean([losses[c] for c in np.unique(label)]))
        every.append(np.mean(losses))
    np.testing.assert_allclose(softmax(logits, labels), present, rtol=1e-6)
    np.testing.assert_allclose(softmax(logits, labels, only_present=False), every, rtol=1e-6)


def test_at_certain_predictions_it_is_the_loss_of_sets():
    found, truth = RNG.integers(2, size=(2, 6, 2, 3))
    want = jaccard_loss(found.astype(np.float32), truth, **SETS)
    # Errors of 0 and 1: hinge losses are 0 and 2.
    got = hinge((2 * found - 1).astype(np.float32), truth) / 2
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_what_where_leaves_out_does_not_matter():
    mask = np.arange(8) % 4 != 1
    logits = RNG.normal(size=(2, 8)).astype(np.float32)
    labels = RNG.integers(2, size=(2, 8))
    several = np.stack([logits, logits[::-1]], -1)
    for loss, z in ((hinge, logits), (softmax, several)):
        f = lambda z, mask, loss=loss: loss(z, labels, where=mask).sum()  # noqa: E731
        total = jax.jit(jax.value_and_grad(f))
        want = loss(z[:, mask], labels[:, mask]).sum()
        for hidden in (1e30, -np.inf, np.nan):
            z[:, ~mask] = hidden
            got, slope = total(z, mask)
            np.testing.assert_allclose(got, want, rtol=1e-6)
            np.testing.assert_array_equal(slope[:, ~mask], 0)
            assert np.isfinite(slope).all()
        assert total(z, np.zeros(8, bool))[0] == 0


def test_many_pixels_do_not_cancel():
    # All errors are 1, so that the loss of every order is that of all pixels: 1.
    labels = np.arange(30_000) % 3 == 0
    np.testing.assert_allclose(hinge(np.zeros((1, 30_000), np.float32), labels[None]), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: tversky_loss(LOGITS, REGIONS[:1]), ValueError, "tversky_loss: .* same shape"),
        (lambda: tversky_loss(LOGITS, REGIONS, axis=3), ValueError, "tversky_loss: axis .* got 3"),
        (lambda: tversky_loss(LOGITS, REGIONS, alpha=-1), ValueError, "alpha must be >= 0"),
        (lambda: focal_tversky_loss(LOGITS, REGIONS, gamma=0), ValueError, "gamma must be > 0"),
        (lambda: jaccard_loss(REGIONS, REGIONS), TypeError, "jaccard_loss: predictions must be"),
        (lambda: lovasz_hinge_loss(LOGITS, REGIONS[0]), ValueError, "lovasz_hinge_loss: logits"),
        (lambda: lovasz_softmax_loss(LOGITS, LOGITS), TypeError, "labels must be of an integer"),
        (lambda: lovasz_softmax_loss(LOGITS, REGIONS), ValueError, r"labels of shape \(2, 3, 4\)"),
        (
            lambda: lovasz_softmax_loss(LOGITS, REGIONS[..., 0], where=LOGITS > 0),
            ValueError,
            "labels",
        ),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
