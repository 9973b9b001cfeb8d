r"""Losses of boxes: how far the predicted box is from overlapping the target.

With A and B the boxes, C the smallest box around both, of diagonal c, :math:`\rho` the distance of
their centers, and w / h the ratios of their sides:

.. math::

    \mathrm{iou} &= 1 - \mathrm{IoU}, \qquad \mathrm{IoU} = |A \cap B| \,/\, |A \cup B| \\
    \mathrm{giou} &= 1 - \mathrm{IoU} + |C \setminus (A \cup B)| \,/\, |C| \\
    \mathrm{diou} &= 1 - \mathrm{IoU} + \rho^2 / c^2 \\
    \mathrm{ciou} &= \mathrm{diou} + \alpha v, \qquad
    v = \tfrac{4}{\pi^2} \left(\arctan \tfrac{w_B}{h_B} - \arctan \tfrac{w_A}{h_A}\right)^2, \quad
    \alpha = \frac{v}{1 - \mathrm{IoU} + v}

Ratios of 0 to 0 are 0: boxes without area overlap nothing. Ratios of areas do not change when an
axis is scaled, so that sides are computed with in units of those of C; and distances in units of
its larger one. So squares and products neither overflow nor vanish.
"""

import math
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, exempt
from grad_losses._checks import ShapeError, broadcast_shape, floating, real, widened

BoxFormat = Literal["xyxy", "xywh", "cxcywh"]

PREDICTIONS = np.array([[0.5, -1.0, 2.0, 1.5], [1.0, 0.0, 3.0, 0.3]], np.float32)
TARGETS = np.array([[0.1, -0.7, 1.8, 2.0], [3.5, 1.0, 4.0, 2.5]], np.float32)


@example(PREDICTIONS, TARGETS)
def iou_loss(
    predictions: ArrayLike, targets: ArrayLike, *, box_format: BoxFormat = "xyxy"
) -> jax.Array:
    """1 - IoU: the share of the union of two boxes that is not in both, in [0, 1].

    Args:
      predictions: Boxes, of shape [..., 4] and floating point dtype. Boxes of negative width or
        height have no area.
      targets: Boxes of any real dtype, of a shape that broadcasts with that of `predictions`. For
        the losses of all pairs, pass ``predictions[:, None]`` and ``targets``.
      box_format: What the 4 numbers are: ``"xyxy"``, two opposite corners, the lower first;
        ``"xywh"``, that corner, width and height; ``"cxcywh"``, the center, width and height.

    Returns:
      The losses, of the broadcast shape without the last axis, in the dtype that predictions and
      targets promote to.

    Raises:
      TypeError: If `predictions` is not floating point, or `targets` not real.
      ValueError: If the shapes do not fit, or `box_format` is none of the three.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import iou_loss
      >>> iou_loss(jnp.array([0.0, 0.0, 2.0, 2.0]), jnp.array([1.0, 0.0, 3.0, 2.0])).round(4)
      Array(0.6667, dtype=float32)

    Reference:
      Yu et al., UnitBox: an advanced object detection network, 2016.
    """
    pair, dtype = _pair("iou_loss", predictions, targets, box_format)
    return (1 - _iou(pair)).astype(dtype)


@example(PREDICTIONS, TARGETS)
def giou_loss(
    predictions: ArrayLike, targets: ArrayLike, *, box_format: BoxFormat = "xyxy"
) -> jax.Array:
    """1 - IoU, plus the share of the smallest box around both that neither covers, in [0, 2].

    Unlike that of `iou_loss`, its gradient brings boxes together that do not overlap.

    Args:
      predictions: As for `iou_loss`.
      targets: As for `iou_loss`.
      box_format: As for `iou_loss`.

    Returns:
      The losses, as from `iou_loss`.

    Raises:
      TypeError: As from `iou_loss`.
      ValueError: As from `iou_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import giou_loss
      >>> giou_loss(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([3.0, 0.0, 4.0, 1.0]))
      Array(1.5, dtype=float32)

    Reference:
      Rezatofighi et al., Generalized intersection over union, 2019,
      https://arxiv.org/abs/1902.09630.
    """
    pair, dtype = _pair("giou_loss", predictions, targets, box_format)
    hull = _area(pair.hull / pair.unit)
    return (1 - _iou(pair) + _ratio(hull - _union(pair), hull)).astype(dtype)


@example(PREDICTIONS, TARGETS)
def diou_loss(
    predictions: ArrayLike, targets: ArrayLike, *, box_format: BoxFormat = "xyxy"
) -> jax.Array:
    """1 - IoU, plus the squared distance of the centers, in diagonals of the box around both.

    Args:
      predictions: As for `iou_loss`.
      targets: As for `iou_loss`.
      box_format: As for `iou_loss`.

    Returns:
      The losses, as from `iou_loss`.

    Raises:
      TypeError: As from `iou_loss`.
      ValueError: As from `iou_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import diou_loss
      >>> diou_loss(jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([2.0, 0.0, 3.0, 1.0])).round(4)
      Array(1.4, dtype=float32)

    Reference:
      Zheng et al., Distance-IoU loss, 2020, https://arxiv.org/abs/1911.08287.
    """
    pair, dtype = _pair("diou_loss", predictions, targets, box_format)
    return _diou(pair).astype(dtype)


@exempt("gradients_are_slopes", reason="the weight of the shape is a constant in derivatives")
@exempt("tangents_are_slopes", reason="the weight of the shape is a constant in derivatives")
@exempt("second_derivatives_are_slopes", reason="the weight is a constant in derivatives")
@example(PREDICTIONS, TARGETS)
def ciou_loss(
    predictions: ArrayLike, targets: ArrayLike, *, box_format: BoxFormat = "xyxy"
) -> jax.Array:
    """`diou_loss`, plus the weighted difference of the ratios of width to height.

    As in the authors' code, its weight alpha is a constant where derivatives are taken.

    Args:
      predictions: As for `iou_loss`.
      targets: As for `iou_loss`.
      box_format: As for `iou_loss`.

    Returns:
      The losses, as from `iou_loss`.

    Raises:
      TypeError: As from `iou_loss`.
      ValueError: As from `iou_loss`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ciou_loss
      >>> ciou_loss(jnp.array([0.0, 0.0, 2.0, 1.0]), jnp.array([0.0, 0.0, 1.0, 2.0])).round(4)
      Array(0.7629, dtype=float32)

    Reference:
      Zheng et al., Distance-IoU loss, 2020, https://arxiv.org/abs/1911.08287, equations 8 to 11.
    """
    pair, dtype = _pair("ciou_loss", predictions, targets, box_format)
    shape = (2 / math.pi * (_angle(pair.target) - _angle(pair.prediction))) ** 2
    weight = jax.lax.stop_gradient(_ratio(shape, 1 - _iou(pair) + shape))
    return (_diou(pair) + weight * shape).astype(dtype)


class _Pair(NamedTuple):
    """Widths and heights, [..., 2].

    Attributes:
      prediction: Of the prediction.
      target: Of the target.
      intersection: Of what is in both; 0 where nothing is.
      hull: Of the smallest box around both.
      shift: From center to center.
      unit: Those of `hull`, to divide by.
    """

    prediction: jax.Array
    target: jax.Array
    intersection: jax.Array
    hull: jax.Array
    shift: jax.Array
    unit: jax.Array


def _pair(
    loss: str, predictions: ArrayLike, targets: ArrayLike, box_format: str
) -> tuple[_Pair, jnp.dtype]:
    """The boxes that a user passed to `loss`, and the dtype to return it in."""
    a, b = floating(loss, "predictions", predictions), real(loss, "targets", targets)
    for name, array in (("predictions", a), ("targets", b)):
        if array.shape[-1:] != (4,):
            raise ShapeError(f"{loss}: {name} must have shape [..., 4]; got {array.shape}.")
    broadcast_shape(loss, predictions=a, targets=b)
    if box_format not in get_args(BoxFormat):
        raise ValueError(
            f"{loss}: box_format must be one of {get_args(BoxFormat)}; got {box_format!r}."
        )
    dtype = jnp.result_type(a, b)
    (a0, a1), (b0, b1) = (_corners(box, box_format) for box in widened(a, b))
    hull = _length(jnp.minimum(a0, b0), jnp.maximum(a1, b1))
    pair = _Pair(
        prediction=_length(a0, a1),
        target=_length(b0, b1),
        intersection=_length(jnp.maximum(a0, b0), jnp.minimum(a1, b1)),
        hull=hull,
        shift=(b0 - a0) / 2 + (b1 - a1) / 2,
        unit=_unit(hull),
    )
    return pair, dtype


def _corners(box: jax.Array, box_format: str) -> tuple[jax.Array, jax.Array]:
    first, last = box[..., :2], box[..., 2:]
    if box_format == "xyxy":
        return first, last
    if box_format == "xywh":
        return first, first + last
    return first - last / 2, first + last / 2


def _length(low: jax.Array, high: jax.Array) -> jax.Array:
    return jnp.maximum(high - low, 0)


def _area(sides: jax.Array) -> jax.Array:
    return sides[..., 0] * sides[..., 1]


def _union(pair: _Pair) -> jax.Array:
    """The area of the union, that of the unit being 1."""
    areas = (
        _area(sides / pair.unit) for sides in (pair.prediction, pair.target, pair.intersection)
    )
    prediction, target, intersection = areas
    return prediction + target - intersection


def _iou(pair: _Pair) -> jax.Array:
    intersection = _area(pair.intersection / pair.unit)
    return _ratio(intersection, jnp.where(intersection == 0, 0, _union(pair)))


def _diou(pair: _Pair) -> jax.Array:
    unit = _unit(jnp.max(pair.hull, axis=-1, keepdims=True))
    distance, diagonal = (
        jnp.sum(jnp.square(sides / unit), axis=-1) for sides in (pair.shift, pair.hull)
    )
    return 1 - _iou(pair) + _ratio(distance, diagonal)


def _angle(sides: jax.Array) -> jax.Array:
    """arctan(width / height), a constant 0 for a point."""
    largest = jnp.max(sides, axis=-1, keepdims=True)
    sides = jnp.where(largest == 0, jnp.array([0, 1], sides.dtype), sides / _unit(largest))
    return jnp.arctan2(sides[..., 0], sides[..., 1])


def _unit(length: jax.Array) -> jax.Array:
    """About the length, as a constant to divide by: its reciprocal is finite, and not subnormal."""
    top = jnp.finfo(length.dtype).max / 256  # type: ignore[no-untyped-call]
    return jax.lax.stop_gradient(jnp.where(length > 0, jnp.minimum(length, top), 1))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    """The part over the whole, a constant 0 if there is no whole."""
    is_void = whole == 0
    return jnp.where(is_void, 0, part) / jnp.where(is_void, 1, whole)
