"""Dice losses against scikit-learn's scores and float64, class weights, and empty regions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from grad_losses import binary_dice_loss, dice_loss, multiclass_generalized_dice_loss

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
CLASSES = RNG.integers(5, size=(2, 3, 4))
REGIONS = np.eye(5, dtype=np.float32)[CLASSES]
P = scipy.special.softmax(LOGITS.astype(np.float64), -1)
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0, 3.0])

dice = jax.jit(
    dice_loss, static_argnames=("axis", "apply_softmax", "reduction", "ignore_background")
)
binary = jax.jit(binary_dice_loss, static_argnames="apply_sigmoid")


def exact(
    p: np.ndarray,
    y: np.ndarray,
    axis: tuple[int, ...] = (1, 2),
    smooth: float = 1.0,
    alpha: float = 0.5,
    beta: float = 0.5,
) -> np.ndarray:
    """One less Tversky's index of each region, in float64."""
    overlap = (p * y).sum(axis)
    wrong = alpha * (p * (1 - y)).sum(axis) + beta * ((1 - p) * y).sum(axis)
    return 1 - (overlap + smooth) / (overlap + wrong + smooth)


def test_against_scikit_learn() -> None:
    # Of hard masks, Dice's coefficient is the F1 score, and Tversky's index the F-beta score.
    y, guess = CLASSES.reshape(2, -1), LOGITS.argmax(-1).reshape(2, -1)
    p = np.eye(5, dtype=np.float32)[guess]
    got = {
        beta: dice(
            p,
            np.eye(5)[y],
            smooth=0.0,
            alpha=1 / (1 + beta**2),
            beta=beta**2 / (1 + beta**2),
            apply_softmax=False,
            reduction="none",
        )
        for beta in (1, 2)
    }
    jaccard = dice(p, np.eye(5)[y], smooth=0.0, alpha=1.0, beta=1.0, apply_softmax=False)
    ones = (guess == 1).astype(np.float32)
    single = binary(ones, y == 1, smooth=0.0, apply_sigmoid=False)
    for i in range(2):
        options = {"labels": range(5), "average": None, "zero_division": 1.0}
        want = sklearn.metrics.f1_score(y[i], guess[i], **options)
        np.testing.assert_allclose(got[1][i], 1 - want, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(single[i], 1 - want[1], rtol=1e-6)
        want = sklearn.metrics.fbeta_score(y[i], guess[i], beta=2, **options)
        np.testing.assert_allclose(got[2][i], 1 - want, rtol=1e-6, atol=1e-7)
        want = sklearn.metrics.jaccard_score(y[i], guess[i], **options)
        np.testing.assert_allclose(jaccard[i], 1 - want.mean(), rtol=1e-6)


def test_values() -> None:
    options = {"smooth": 0.1, "alpha": 0.3, "beta": 0.9}
    each = exact(P, REGIONS, **options)
    got = dice(LOGITS, REGIONS, reduction="none", **options)
    np.testing.assert_allclose(got, each, rtol=2e-6)
    got = dice(LOGITS, REGIONS, **options)
    np.testing.assert_allclose(got, each.mean(-1), rtol=2e-6)
    got = dice(LOGITS, REGIONS, class_weights=WEIGHTS, reduction="sum", **options)
    np.testing.assert_allclose(got, (WEIGHTS * each).sum(-1), rtol=2e-6)
    got = dice(LOGITS, REGIONS, class_weights=WEIGHTS, ignore_background=True, **options)
    np.testing.assert_allclose(got, (WEIGHTS * each)[:, 1:].mean(-1), rtol=2e-6)


def test_axes() -> None:
    for axis in (0, (0, 1, 2), (-2,)):
        got = dice(LOGITS, REGIONS, axis=axis, reduction="none")
        whole = axis if isinstance(axis, tuple) else (axis,)
        np.testing.assert_allclose(got, exact(P, REGIONS, whole), rtol=2e-6)
    # With the classes summed over too, there is one region, and nothing to reduce.
    got = dice(LOGITS, REGIONS, axis=(1, 2, 3), ignore_background=True)
    want = exact(P[..., 1:], REGIONS[..., 1:], (1, 2, 3))
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_binary_values() -> None:
    @jax.jit
    def losses(z: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        return (
            binary_dice_loss(z, y),
            binary_dice_loss(z[..., None], y),
            binary_dice_loss(z, y[..., None] == 1),
        )

    z, y = LOGITS[..., 0], REGIONS[..., 0]
    want = exact(scipy.special.expit(z.astype(np.float64)), y)
    for got in losses(z, y):
        np.testing.assert_allclose(got, want, rtol=2e-6)


def test_rare_classes_weigh_more() -> None:
    @jax.jit
    def losses(z: jax.Array, p: jax.Array, y: jax.Array) -> tuple[jax.Array, ...]:
        return (
            multiclass_generalized_dice_loss(z, y),
            multiclass_generalized_dice_loss(z, y, ignore_background=True),
            multiclass_generalized_dice_loss(p, y, apply_softmax=False, smooth=0.1),
        )

    volumes = REGIONS.sum((0, 1, 2), dtype=np.float64)
    weights = 1 / (volumes**2 + 1e-7)
    weights /= weights.mean()
    each = weights * exact(P, REGIONS)
    got = losses(LOGITS, P.astype(np.float32), REGIONS)
    want = each.mean(), each[:, 1:].mean(), (weights * exact(P, REGIONS, smooth=0.1)).mean()
    np.testing.assert_allclose(got, want, rtol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_empty_regions(dtype: jax.typing.DTypeLike) -> None:
    # Nothing, and nothing predicted; nothing, and all predicted; all, and nothing predicted.
    p, y = jnp.array([[0, 0], [1, 1], [0, 0]], dtype), jnp.array([[0, 0], [0, 0], [1, 1]], dtype)

    @jax.jit
    def losses_and_slope(p: jax.Array, smooth: jax.Array) -> tuple[jax.Array, ...]:
        options = {"smooth": smooth, "apply_softmax": False, "reduction": "none"}
        several, pull = jax.vjp(lambda p: dice_loss(p.T[None], y.T[None], **options)[0], p)
        single = binary_dice_loss(p, y, smooth=smooth, apply_sigmoid=False)
        return several, single, *pull(jnp.ones_like(several))

    for smooth in (0.0, 1.0):
        several, single, slope = losses_and_slope(p, smooth)
        assert several.dtype == single.dtype == slope.dtype == dtype
        want = [0, 1, 1] / np.array(1 + smooth)
        np.testing.assert_allclose(several.astype(float), want, rtol=1e-3)
        np.testing.assert_allclose(single.astype(float), want, rtol=1e-3)
        assert jnp.isfinite(slope).all()


def test_a_right_prediction_costs_nothing() -> None:
    for smooth in (0.0, 1e-6, 1.0):
        got = dice(1e4 * REGIONS, REGIONS, smooth=smooth, reduction="none")
        np.testing.assert_array_equal(got, 0)


def test_no_classes_cost_nothing() -> None:
    z, y = LOGITS[..., :0], REGIONS[..., :0]
    np.testing.assert_array_equal(dice_loss(z, y), [0, 0])
    assert multiclass_generalized_dice_loss(z, y) == 0


def test_a_class_alone_is_no_background() -> None:
    z, y = LOGITS[..., :1], REGIONS[..., :1]
    got = dice_loss(z, y[..., 0], apply_softmax=False, ignore_background=True)
    np.testing.assert_array_equal(got, dice_loss(z, y, apply_softmax=False))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: dice_loss(CLASSES, CLASSES), TypeError, "dice_loss: predictions must be .* int"),
        (lambda: dice_loss(LOGITS, CLASSES), ValueError, r"\(2, 3, 4\) must have .*jax.nn.one_hot"),
        (
            lambda: dice_loss(LOGITS, REGIONS[:1]),
            ValueError,
            r"and targets of shape \(1, 3, 4, 5\)",
        ),
        (lambda: dice_loss(LOGITS, REGIONS, axis=4), ValueError, r"axis must be .*; got 4"),
        (lambda: dice_loss(LOGITS, REGIONS, axis=(1, 1)), ValueError, r"different axes.* \(1, 1\)"),
        (lambda: dice_loss(LOGITS, REGIONS, reduction="max"), ValueError, "\"none\"; got 'max'"),
        (lambda: dice_loss(LOGITS, REGIONS, smooth=-1.0), ValueError, "smooth must be >= 0"),
        (lambda: dice_loss(LOGITS, REGIONS, beta=-1.0), ValueError, "beta must be >= 0; got -1.0"),
        (
            lambda: dice_loss(LOGITS, REGIONS, class_weights=WEIGHTS[:4]),
            ValueError,
            r"class_weights of shape \(4,\) .* axis=None leaves 5",
        ),
        (
            lambda: dice_loss(LOGITS, REGIONS, class_weights=WEIGHTS, axis=-1),
            ValueError,
            "axis=-1 leaves 0",
        ),
        (lambda: binary_dice_loss(1.0, 1.0), ValueError, r"binary_dice_loss: .* axis of examples"),
        (
            lambda: multiclass_generalized_dice_loss(LOGITS, CLASSES),
            ValueError,
            "multiclass_generalized_dice_loss: .*jax.nn.one_hot",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
