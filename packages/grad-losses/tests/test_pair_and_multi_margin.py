"""Margins of pairs, triplets and many classes where torch says nothing: extremes, masks, errors.

Values and gradients are compared with torch's in test_torch.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import (
    cosine_embedding_loss,
    hinge_embedding_loss,
    margin_ranking_loss,
    multi_label_margin_loss,
    multi_label_soft_margin_loss,
    multi_margin_loss,
    sigmoid_binary_cross_entropy,
    soft_margin_loss,
    triplet_margin_with_distance_loss,
)

INF = np.inf
RNG = np.random.default_rng(0)
FIRST, SECOND, THIRD = RNG.normal(size=(3, 4, 5)).astype(np.float32)
SIDES = np.array([1, -1, 1, -1])
LABELS = RNG.integers(2, size=(4, 5))


cosine = jax.jit(cosine_embedding_loss, static_argnames="axis")
multi = jax.jit(multi_margin_loss)
labelled = jax.jit(multi_label_margin_loss)
soft_labelled = jax.jit(multi_label_soft_margin_loss)


# Pairs.


def test_pairs_elementwise():
    np.testing.assert_allclose(
        margin_ranking_loss([3.0, 1.0, 1.5], [1.0, 3.0, 1.0], [1, 1, -1]), [0, 2, 0.5]
    )
    np.testing.assert_allclose(
        margin_ranking_loss([1.0, 1.0], [1.0, 1.0], [1, -1], margin=np.array([0.5, -0.5])), [0.5, 0]
    )
    np.testing.assert_allclose(hinge_embedding_loss([0.2, 0.2, 3.0], [1, -1, -1]), [0.2, 0.8, 0])
    np.testing.assert_array_equal(hinge_embedding_loss([INF, INF], [1, -1]), [INF, 0])
    np.testing.assert_array_equal(soft_margin_loss([INF, INF, -INF], [1, -1, -1]), [0, INF, 0])


def test_cosines():
    cosines = np.sum(FIRST * SECOND, -1) / np.linalg.norm(FIRST, axis=-1)
    cosines /= np.linalg.norm(SECOND, axis=-1)
    want = np.where(SIDES > 0, 1 - cosines, np.maximum(0, cosines + 0.5))
    got = cosine(FIRST, SECOND, SIDES, margin=-0.5)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    got = cosine(FIRST.T, SECOND.T, SIDES, margin=-0.5, axis=0)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    huge = cosine(1e30 * FIRST, 1e-30 * SECOND, SIDES, margin=-0.5)
    np.testing.assert_allclose(huge, want, rtol=1e-5, atol=1e-6)


def test_close_directions_lose_no_digits():
    """1 less a rounded cosine would be off by up to 1e-7, or negative."""
    t = np.array([0, 1e-5, 1e-4, 1e-3], np.float32)
    got = cosine(np.array([[7.0, 0.0]] * 4, np.float32), np.stack([np.ones(4), t], -1), np.ones(4))
    np.testing.assert_allclose(got, 2 * np.sin(np.arctan(np.float64(t)) / 2) ** 2, rtol=1e-5)
    np.testing.assert_array_equal(cosine(FIRST, 2 * FIRST, np.ones(4)), 0)


def test_vectors_of_zeros_have_no_direction():
    zeros = jnp.zeros((2, 3))
    sides = jnp.array([1, -1])
    np.testing.assert_array_equal(cosine(zeros, zeros, sides), [1, 0])
    slopes = jax.jit(jax.grad(lambda u, v: cosine(u, v, sides, margin=-1.0).sum(), (0, 1)))
    np.testing.assert_array_equal(slopes(zeros, jnp.ones((2, 3))), 0)


def test_triplets():
    near, far = (np.linalg.norm(FIRST - x, axis=-1) for x in (SECOND, THIRD))
    loss = triplet_margin_with_distance_loss
    got = loss(FIRST, SECOND, THIRD, margin=0.5)
    np.testing.assert_allclose(got, np.maximum(0, near - far + 0.5), rtol=1e-5, atol=1e-6)
    far = np.minimum(far, np.linalg.norm(SECOND - THIRD, axis=-1))
    got = loss(FIRST, SECOND, THIRD, margin=0.5, swap=True)
    np.testing.assert_allclose(got, np.maximum(0, near - far + 0.5), rtol=1e-5, atol=1e-6)
    got = loss(FIRST, SECOND, THIRD, distance=lambda x, y: jnp.abs(x - y).sum(-1), margin=0.0)
    near, far = (np.abs(FIRST - x).sum(-1) for x in (SECOND, THIRD))
    np.testing.assert_allclose(got, np.maximum(0, near - far), rtol=1e-5, atol=1e-6)


def test_triplets_of_one_point():
    f = lambda a, p: triplet_margin_with_distance_loss(a, p, a, margin=1.0)  # noqa: E731
    value, slopes = jax.jit(jax.value_and_grad(f, (0, 1)))(jnp.ones(3), jnp.ones(3))
    assert value == 1
    np.testing.assert_array_equal(slopes, 0)
    # float16 is too narrow for squares, but not for what is computed from it.
    wide = triplet_margin_with_distance_loss(
        jnp.zeros(2, jnp.float16), jnp.array([3e4, 4e4], jnp.float16), jnp.zeros(2, jnp.float16)
    )
    assert wide.dtype == jnp.float16
    np.testing.assert_allclose(wide, 5e4, rtol=1e-3)


# Many classes.


def test_multi_margin_by_its_sum():
    labels = np.array([0, 2, -1, 4])
    weights = np.array([0.5, 1, 2, 0, 3], np.float32)
    for degree, margin in ((1, 1.0), (2, 0.5), (1.5, 2.0)):
        want = []
        for z, y in zip(FIRST, labels, strict=True):
            gaps = [max(0.0, margin - z[y] + z[j]) ** degree for j in range(5) if j != y % 5]
            want.append(weights[y] * sum(gaps) / 5)
        got = multi(FIRST, labels, degree=degree, margin=margin, class_weights=weights)
        np.testing.assert_allclose(got, want, rtol=1e-5)
    hessian = jax.jit(jax.hessian(lambda z: multi(z, 0, degree=2)))
    # Of (m - z_0 + z_1)^2 / 2 and nothing else.
    np.testing.assert_allclose(hessian(jnp.array([0.0, 0.5])), [[1, -1], [-1, 1]])
    np.testing.assert_allclose(hessian(jnp.array([0.0, -1.5])), np.zeros((2, 2)))


def test_classes_that_cannot_be():
    z = jnp.array([0.0, 0.5, -INF])
    value, slope = jax.jit(jax.value_and_grad(lambda z: multi(z, 0)))(z)
    np.testing.assert_allclose(value, 0.5)
    np.testing.assert_allclose(slope, [-1 / 3, 1 / 3, 0], rtol=1e-6)
    value, slope = jax.jit(jax.value_and_grad(labelled))(z, np.array([1, 0, 0]))
    np.testing.assert_allclose(value, 0.5)
    np.testing.assert_allclose(slope, [-1 / 3, 1 / 3, 0], rtol=1e-6)
    value, slope = jax.jit(jax.value_and_grad(soft_labelled))(z, np.array([0, 1, 0]))
    np.testing.assert_allclose(value, (np.log(2) + np.log1p(np.exp(-0.5))) / 3, rtol=1e-6)
    assert slope[2] == 0


def test_several_labels_by_their_sums():
    for mask in (np.ones(5, bool), np.array([True, False, True, True, True])):
        want, soft = [], []
        for z, labels in zip(FIRST, LABELS, strict=True):
            yes, no = z[mask & (labels == 1)], z[mask & (labels == 0)]
            want.append(np.maximum(0, 0.7 - yes[:, None] + no).sum() / mask.sum())
            soft.append(np.mean(sigmoid_binary_cross_entropy(z, labels)[mask]))
        hidden = np.where(mask, FIRST, np.nan)
        got = labelled(hidden, LABELS, margin=0.7, where=mask)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        got = soft_labelled(hidden, LABELS, where=mask)
        np.testing.assert_allclose(got, soft, rtol=1e-5)
        for loss in (labelled, soft_labelled):
            f = jax.jit(jax.grad(lambda z, m, loss=loss: loss(z, LABELS, where=m).sum()))
            slope = f(hidden, mask)
            assert np.isfinite(slope).all()
            np.testing.assert_array_equal(slope[:, ~mask], 0)
            np.testing.assert_array_equal(loss(FIRST, LABELS, where=np.zeros(5, bool)), 0)


def test_labels_that_are_no_class_give_nan():
    got = multi(FIRST[:3], [5, -5, -6])
    np.testing.assert_array_equal(np.isnan(got), [True, False, True])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: margin_ranking_loss(FIRST, SECOND, SIDES),
            ValueError,
            "margin_ranking_loss: first",
        ),
        (lambda: hinge_embedding_loss(FIRST, SIDES), ValueError, r"distances .* targets .* \(4,\)"),
        (lambda: cosine_embedding_loss(FIRST, SECOND, LABELS), ValueError, "targets of shape"),
        (
            lambda: cosine_embedding_loss(FIRST, THIRD, SIDES, margin=2),
            ValueError,
            "margin must be",
        ),
        (
            lambda: triplet_margin_with_distance_loss(FIRST, SECOND, THIRD[0]),
            ValueError,
            "triplet_margin_with_distance_loss: anchors of .* must have the same shape",
        ),
        (lambda: multi_margin_loss(FIRST, SIDES, degree=0.5), ValueError, "degree must be"),
        (lambda: multi_margin_loss(FIRST, FIRST), TypeError, "multi_margin_loss: labels must be"),
        (
            lambda: multi_label_soft_margin_loss(FIRST, LABELS, class_weights=[1.0]),
            ValueError,
            r"multi_label_soft_margin_loss: class_weights of shape \(1,\) must",
        ),
        (
            lambda: multi_label_margin_loss(FIRST, SIDES),
            ValueError,
            "multi_label_margin_loss: logits",
        ),
        (lambda: soft_margin_loss(LABELS, LABELS), TypeError, "predictor_outputs must be"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
