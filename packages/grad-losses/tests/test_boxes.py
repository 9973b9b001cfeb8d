"""Losses of boxes against the papers' formulas in float64, and boxes that break these."""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import ciou_loss, diou_loss, giou_loss, iou_loss

LOSSES = [iou_loss, giou_loss, diou_loss, ciou_loss]
EACH_LOSS = pytest.mark.parametrize("loss", LOSSES)
RNG = np.random.default_rng(0)


def random_boxes(number: int) -> np.ndarray:
    low = RNG.normal(size=(number, 2))
    return np.concatenate([low, low + np.exp(RNG.normal(size=(number, 2)))], axis=-1)


A, B = random_boxes(300), random_boxes(300)


def overlap(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and the area of the union."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    union = sum(areas) - width * height
    return width * height / union, union


def shape_term(a: list[float], b: list[float]) -> float:
    """v of the CIoU paper."""
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (b, a)]
    return 4 / math.pi**2 * (angles[0] - angles[1]) ** 2


def exact(loss: Callable, a: list[float], b: list[float], weight: float | None = None) -> float:
    """The loss of two boxes in double precision; `weight` is alpha, if it is to be constant."""
    iou, union = overlap(a, b)
    sides = [max(a[i + 2], b[i + 2]) - min(a[i], b[i]) for i in (0, 1)]
    if loss is iou_loss:
        return 1 - iou
    if loss is giou_loss:
        hull = sides[0] * sides[1]
        return 1 - iou + (hull - union) / hull
    centers = [[(box[i] + box[i + 2]) / 2 for i in (0, 1)] for box in (a, b)]
    distance = sum((x - y) ** 2 for x, y in zip(*centers, strict=True))
    found = 1 - iou + distance / (sides[0] ** 2 + sides[1] ** 2)
    if loss is ciou_loss:
        found += (alpha(a, b) if weight is None else weight) * shape_term(a, b)
    return found


def alpha(a: list[float], b: list[float]) -> float:
    v = shape_term(a, b)
    return v / (1 - overlap(a, b)[0] + v)


def slopes(loss: Callable, a: list[float], b: list[float]) -> np.ndarray:
    """Central differences by the first box."""
    step, found = 1e-6, []
    for i in range(4):
        up, down = ([x + s * step * (i == k) for k, x in enumerate(a)] for s in (1, -1))
        found.append(exact(loss, up, b, alpha(a, b)) - exact(loss, down, b, alpha(a, b)))
    return np.array(found) / (2 * step)


@functools.cache
def compiled(loss: Callable) -> Callable:
    """Values and gradients by both boxes."""
    return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1))))


@EACH_LOSS
def test_values_and_gradients(loss: Callable) -> None:
    want = [exact(loss, a, b) for a, b in zip(A.tolist(), B.tolist(), strict=True)]
    slope = [slopes(loss, a, b) for a, b in zip(A.tolist(), B.tolist(), strict=True)]
    assert 0.2 < np.mean([iou_loss(A, B) < 1]) < 0.9
    value, (gradient, _) = compiled(loss)(np.float32(A), np.float32(B))
    np.testing.assert_allclose(value, want, atol=2e-6)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-4)
    with jax.enable_x64(True):
        value, (gradient, _) = jax.device_get(compiled(loss)(A, B))
    np.testing.assert_allclose(value, want, rtol=1e-13)
    np.testing.assert_allclose(gradient, slope, atol=1e-7)


@EACH_LOSS
def test_formats(loss: Callable) -> None:
    a, b = (np.float32(np.ceil(8 * x) / 8) for x in (A, B))
    want = jax.jit(loss)(a, b)
    a, b = (np.concatenate([x[:, :2], x[:, 2:] - x[:, :2]], axis=-1) for x in (a, b))
    call = jax.jit(loss, static_argnames="box_format")
    np.testing.assert_array_equal(call(a, b, box_format="xywh"), want)
    a, b = (np.concatenate([x[:, :2] + x[:, 2:] / 2, x[:, 2:]], axis=-1) for x in (a, b))
    np.testing.assert_array_equal(call(a, b, box_format="cxcywh"), want)


@EACH_LOSS
def test_where_boxes_are_and_how_large_does_not_matter(loss: Callable) -> None:
    # Multiples of 1/8, so that float32 has them wherever they are.
    a, b = (np.float32(np.ceil(8 * x) / 8) for x in (A, B))
    value, gradients = compiled(loss)(a, b)
    moved, moved_gradients = compiled(loss)(a + 2**16, b + 2**16)
    np.testing.assert_allclose(moved, value, atol=1e-6)
    np.testing.assert_allclose(moved_gradients, gradients, atol=1e-6)
    for scale in (2.0**-90, 2.0**90):
        scaled, scaled_gradients = compiled(loss)(scale * a, scale * b)
        np.testing.assert_allclose(scaled, value, atol=1e-6)
        for got, want in zip(scaled_gradients, gradients, strict=True):
            np.testing.assert_allclose(got * scale, want, rtol=1e-5, atol=1e-6)


def test_exact_values() -> None:
    box, far = np.array([1.0, 2, 4, 3], np.float32), np.array([1.0, 12, 4, 13], np.float32)
    pairs = np.stack([box, box, box]), np.stack([box, far, far + 2**20])
    for loss, want in zip(LOSSES, (1, 1 + 9 / 11, 1 + 100 / 130, 1 + 100 / 130), strict=True):
        value, (gradient, _) = compiled(loss)(*pairs)
        assert value[0] == 0
        np.testing.assert_allclose(value[1], want, rtol=1e-6)
        np.testing.assert_allclose(value[2], 1 if loss is iou_loss else 2, rtol=1e-5)
        # Nothing but iou_loss brings boxes together that do not overlap.
        assert (gradient[1, [1, 3]] < 0).any() == (loss is not iou_loss)


POINT, LINE, BOX = [1.0, 1, 1, 1], [1.0, 1, 3, 1], [0.0, 0, 2, 2]
ODD_PAIRS = [
    (POINT, POINT),
    (POINT, [5.0, 5, 5, 5]),
    (POINT, LINE),
    (LINE, LINE),
    (LINE, [2.0, 0, 2, 4]),
    (POINT, BOX),
    (LINE, BOX),
    (BOX, [2.0, 0, 4, 2]),
    (BOX, BOX),
    ([2.0, 2, 0, 0], BOX),
    ([2.0, 0, 0, 2], [1.0, 1, 0, 0]),
    ([0.0] * 4, [0.0] * 4),
    ([0, 0, 1e-30, 1], [0, 0, 1, 1e-30]),
    ([-1e38, -1e38, 1e38, 1e38], BOX),
]


@EACH_LOSS
def test_odd_boxes_have_finite_losses_and_gradients(loss: Callable) -> None:
    a, b = np.float32(np.swapaxes(np.array(ODD_PAIRS), 0, 1))
    for boxes in ((a, b), (b, a)):
        value, gradients = compiled(loss)(*boxes)
        assert np.isfinite(value).all()
        assert (np.array(value) >= 0).all()
        assert np.isfinite(gradients).all()
    # Without area, they overlap nothing, even if they are the same.
    np.testing.assert_array_equal(compiled(iou_loss)(a, b)[0][:7], 1)


def test_second_derivatives_where_centers_coincide() -> None:
    a, b = jnp.array([-1.0, -2.0, 1.0, 2.0]), jnp.array([-2.0, -3.0, 2.0, 3.0])
    hessian = jax.jit(jax.hessian(lambda shift: diou_loss(a + jnp.tile(shift, 2), b)))
    found = hessian(jnp.zeros(2))
    np.testing.assert_allclose(found, 2 / (4**2 + 6**2) * np.eye(2), rtol=1e-5, atol=1e-7)


@EACH_LOSS
def test_pixels_in_float16(loss: Callable) -> None:
    a, b = np.array([[100.0, 200, 1100, 1800]]), np.array([[300.0, 100, 1500, 1900]])
    got = loss(jnp.asarray(a, jnp.float16), b.astype(int))
    assert got.dtype == jnp.float16
    np.testing.assert_allclose(got, exact(loss, a[0], b[0]), rtol=1e-3)


@EACH_LOSS
def test_all_pairs(loss: Callable) -> None:
    found = loss(np.float32(A[:3, None]), np.float32(B[:4]))
    assert found.shape == (3, 4)
    np.testing.assert_allclose(found[1, 2], loss(np.float32(A[1]), np.float32(B[2])), rtol=1e-6)


@EACH_LOSS
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((A.astype(int), B, "xyxy"), TypeError, "predictions must be of a real floating point"),
        ((A, B * 1j, "xyxy"), TypeError, "targets must be real; got complex64"),
        ((A[:, :3], B, "xyxy"), ValueError, r"predictions must have shape .* got \(300, 3\)"),
        ((A, B[0, 0], "xyxy"), TypeError, r"targets must have shape \[\.\.\., 4\]; got \(\)"),
        ((A[:2], B[:3], "xyxy"), ValueError, r"\(2, 4\) and targets of shape \(3, 4\)"),
        ((A, B, "yxyx"), ValueError, "box_format must be one of .*'xywh'.*; got 'yxyx'"),
    ],
)
def test_errors(loss: Callable, arguments: tuple, kind: type[Exception], message: str) -> None:
    a, b, box_format = arguments
    with pytest.raises(kind, match=f"^{loss.__name__}: .*{message}"):
        loss(a, b, box_format=box_format)
