r"""Dice losses of segmentations: how little a predicted region overlaps the true one.

With predicted probabilities p and true ones y, summed over the pixels:

.. math::

    L = 1 - \frac{TP + s}{TP + \alpha FP + \beta FN + s}
    \quad\text{with } TP = \sum p y, \ FP = \sum p (1 - y), \ FN = \sum (1 - p) y

This is Tversky's loss, and for :math:`\alpha = \beta = \frac12` Dice's. The smoothing s keeps
regions of few pixels from mattering; with s = 0 an empty one, rightly predicted, costs 0 too.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, axes_of, between, real
from grad_losses._dense import surprisals
from grad_losses._regions import regions, tversky

_PREDICTIONS = np.array(
    [[[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], [[-0.4, 0.9, 0.1], [0.6, -0.8, 1.2]]], np.float32
)
_TARGETS = np.array(
    [[[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], [[0.7, 0.2, 0.1], [0.25, 0.35, 0.4]]], np.float32
)
_POSITIVE = (0, np.inf)


@example(_PREDICTIONS, _TARGETS, class_weights=np.array([0.5, 1.0, 2.0], np.float32))
@promises(
    shared=("class_weights",),
    infinite=("predictions",),
    ranges={
        "targets": (0, 1),
        **dict.fromkeys(("class_weights", "smooth", "alpha", "beta"), _POSITIVE),
    },
)
def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    """The Dice loss of each example, or Tversky's, over the regions of its classes.

    Args:
      predictions: Logits, or probabilities if not `apply_softmax`, of shape [batch, ..., classes]
        and floating point dtype.
      targets: The probability of each class, as of one-hot labels, of the same shape and any real
        dtype. Of a single class, either may lack the last axis.
      class_weights: What the loss of each class is multiplied by, of shape [classes].
      smooth: Added to numerator and denominator, >= 0.
      alpha: The weight of false positives, >= 0.
      beta: The weight of false negatives, >= 0; above `alpha`, missing a pixel is worse.
      apply_softmax: Whether predictions are logits, of which the softmax over classes is taken.
      reduction: What becomes of the losses of the classes: "mean", "sum", or "none".
      ignore_background: Whether the first class, if there are several, is left out of the loss.
      axis: The axes of the pixels, over which is summed; with None, all but the first and last. If
        that of the classes is among them, all classes are one region: there is nothing to reduce.

    Returns:
      The losses, in the dtype of `predictions` and of its shape, without `axis` and, unless
      `reduction` is "none", without the classes.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If shapes do not fit, `axis` does not exist, `reduction` is none of the three, or
        `smooth`, `alpha` or `beta` is a negative number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_losses import dice_loss
      >>> region = jax.nn.one_hot(jnp.array([[0, 1, 1, 1]]), 2)
      >>> dice_loss(99 * region, region), dice_loss(-99 * region, region, smooth=0.0)
      (Array([0.], dtype=float32), Array([1.], dtype=float32))

    Reference:
      Milletari, Navab and Ahmadi, V-Net, 2016, https://arxiv.org/abs/1606.04797; Salehi, Erdogmus
      and Gholipour, Tversky loss function for image segmentation using 3D fully convolutional deep
      networks, 2017, https://arxiv.org/abs/1706.05721.
    """
    name = "dice_loss"
    between(name, 0, math.inf, smooth=smooth, alpha=alpha, beta=beta)
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{name}: reduction must be "mean", "sum" or "none"; got {reduction!r}.')
    p, y, dtype = regions(name, predictions, targets)
    classes = p.ndim - 1
    axes = range(1, classes) if axis is None else axes_of(name, axis, "predictions", p)
    if class_weights is not None:
        class_weights = real(name, "class_weights", class_weights)
        if classes in axes or class_weights.shape != p.shape[-1:]:
            raise ShapeError(
                f"{name}: class_weights of shape {class_weights.shape} must have one weight for "
                f"each class of predictions of shape {p.shape}, of which axis={axis} leaves "
                f"{0 if classes in axes else p.shape[-1]}."
            )
    if apply_softmax:
        p = jnp.exp(-surprisals(p, -1))
    left_out = int(ignore_background and p.shape[-1] > 1)
    losses = tversky(p[..., left_out:], y[..., left_out:], axes, smooth, alpha, beta)
    if class_weights is not None:
        losses = losses * class_weights[left_out:]
    if classes in axes or reduction == "none":
        return losses.astype(dtype)
    count = max(losses.shape[-1], 1) if reduction == "mean" else 1
    return (jnp.sum(losses, axis=-1) / count).astype(dtype)


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32),
    np.array([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], np.float32),
)
@promises(infinite=("predictions",), ranges={"targets": (0, 1), "smooth": _POSITIVE})
def binary_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
) -> jax.Array:
    """The Dice loss of each example with a single region.

    Args:
      predictions: Log odds, or probabilities if not `apply_sigmoid`, of shape [batch, ...] and
        floating point dtype.
      targets: The probability that a pixel is in the region, of the same shape and any real dtype.
        Either may have one more axis at the end, of size 1.
      smooth: Added to numerator and denominator, >= 0.
      apply_sigmoid: Whether predictions are log odds.

    Returns:
      The losses, of shape [batch] and the dtype of `predictions`.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not fit, or `smooth` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import binary_dice_loss
      >>> region = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> prediction = jnp.array([[1.0, 0.0, 0.0, 0.0]])
      >>> binary_dice_loss(prediction, region, smooth=0.0, apply_sigmoid=False).round(4)
      Array([0.3333], dtype=float32)

    Reference:
      Milletari, Navab and Ahmadi, V-Net, 2016, https://arxiv.org/abs/1606.04797.
    """
    name = "binary_dice_loss"
    between(name, 0, math.inf, smooth=smooth)
    p, y, dtype = regions(name, predictions, targets)
    p, q = (jax.nn.sigmoid(p), jax.nn.sigmoid(-p)) if apply_sigmoid else (p, 1 - p)
    return tversky(p, y, range(1, p.ndim), smooth, 0.5, 0.5, q).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(
    per="batch",
    infinite=("predictions",),
    ranges={"targets": (0, 1), "smooth": _POSITIVE},
)
def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> jax.Array:
    """The Dice loss of a batch, where classes weigh the more the fewer pixels of them there are.

    The weight of a class of V pixels in the whole batch is 1 / (V**2 + 1e-7), divided by the mean
    of these over all classes; the loss is the mean over classes and examples.

    Args:
      predictions: Logits, or probabilities if not `apply_softmax`, of shape [batch, ..., classes]
        and floating point dtype.
      targets: The probability of each class, as of one-hot labels, of the same shape and any real
        dtype. Of a single class, either may lack the last axis.
      smooth: Added to numerator and denominator, >= 0.
      apply_softmax: Whether predictions are logits, of which the softmax over classes is taken.
      ignore_background: Whether the first class, if there are several, is left out of the loss; its
        weight counts in the mean of weights nevertheless.

    Returns:
      The loss of the batch, of shape () and the dtype of `predictions`.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not fit, or `smooth` is a negative number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_losses import multiclass_generalized_dice_loss
      >>> region = jax.nn.one_hot(jnp.array([[0, 1, 1, 1]]), 2)
      >>> multiclass_generalized_dice_loss(jnp.zeros((1, 4, 2)), region).round(4)
      Array(0.3886, dtype=float32)

    Reference:
      Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced
      segmentations, 2017, https://arxiv.org/abs/1707.03237.
    """
    name = "multiclass_generalized_dice_loss"
    between(name, 0, math.inf, smooth=smooth)
    p, y, dtype = regions(name, predictions, targets)
    volumes = jnp.sum(y, axis=tuple(range(y.ndim - 1)))
    weights = 1 / (jnp.square(volumes) + 1e-7)
    losses = dice_loss(
        p,
        y,
        class_weights=weights * weights.size / jnp.sum(weights),
        smooth=smooth,
        apply_softmax=apply_softmax,
        ignore_background=ignore_background,
    )
    return jnp.mean(losses).astype(dtype)
