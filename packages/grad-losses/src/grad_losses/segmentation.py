r"""Losses of regions of pixels: Tversky's, its focal form, and Jaccard's (IoU).

With predicted probabilities p and true ones y, summed over the pixels, and a smoothing s:

.. math::

    \mathrm{tversky} &= 1 - \frac{TP + s}{TP + \alpha FP + \beta FN + s}
        \quad\text{with } TP = \sum p y, \ FP = \sum p (1 - y), \ FN = \sum (1 - p) y \\
    \mathrm{focal} &= \mathrm{tversky}^{1 / \gamma}, \qquad
    \mathrm{jaccard} = \mathrm{tversky} \text{ with } \alpha = \beta = 1

Dice's loss has both 1/2. An empty region, rightly predicted, costs 0.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import axes_of, between, positive
from grad_losses._functions import power
from grad_losses._regions import regions, tversky

_PREDICTIONS = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_TARGETS = np.array([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], np.float32)
_RANGES = {"targets": (0, 1), **dict.fromkeys(("alpha", "beta", "smooth"), (0, math.inf))}


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",), ranges=_RANGES)
def tversky_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: ArrayLike = 0.3,
    beta: ArrayLike = 0.7,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    """How little each region overlaps the true one, false positives and negatives weighted.

    Args:
      predictions: Log odds that a pixel is in the region, or probabilities if not `apply_sigmoid`,
        of shape [batch, ...] and floating point dtype.
      targets: The probability that it is, of the same shape and any real dtype.
      alpha: The weight of false positives, >= 0.
      beta: The weight of false negatives, >= 0; above `alpha`, missing a pixel is worse.
      smooth: Added to numerator and denominator, >= 0.
      apply_sigmoid: Whether predictions are log odds.
      axis: The axes of the pixels, over which is summed; with None, all but the first.

    Returns:
      The losses, of that shape without `axis`, in the dtype of `predictions`.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not fit, `axis` does not exist, or `alpha`, `beta` or `smooth` is
        a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import tversky_loss
      >>> region = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> missed, excess = (
      ...     jnp.array([[9.0, -9.0, -9.0, -9.0]]),
      ...     jnp.array([[9.0, 9.0, 9.0, -9.0]]),
      ... )
      >>> tversky_loss(missed, region).round(2), tversky_loss(excess, region).round(2)
      (Array([0.26], dtype=float32), Array([0.09], dtype=float32))

    Reference:
      Salehi, Erdogmus and Gholipour, Tversky loss function for image segmentation using 3D fully
      convolutional deep networks, 2017, https://arxiv.org/abs/1706.05721.
    """
    name = "tversky_loss"
    between(name, 0, math.inf, alpha=alpha, beta=beta, smooth=smooth)
    losses, dtype = _losses(name, predictions, targets, alpha, beta, smooth, apply_sigmoid, axis)
    return losses.astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",), ranges=_RANGES)
def focal_tversky_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    alpha: ArrayLike = 0.3,
    beta: ArrayLike = 0.7,
    gamma: ArrayLike = 4 / 3,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    """A root of Tversky's loss, in which regions that are nearly right count more.

    Args:
      predictions: Log odds that a pixel is in the region, or probabilities if not `apply_sigmoid`,
        of shape [batch, ...] and floating point dtype.
      targets: The probability that it is, of the same shape and any real dtype.
      alpha: The weight of false positives, >= 0.
      beta: The weight of false negatives, >= 0.
      gamma: The root taken, > 0, by the paper from 1 to 3. At a loss of 0, where the derivative of
        roots is infinite, it is 0.
      smooth: Added to numerator and denominator, >= 0.
      apply_sigmoid: Whether predictions are log odds.
      axis: The axes of the pixels, over which is summed; with None, all but the first.

    Returns:
      The losses, of that shape without `axis`, in the dtype of `predictions`.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not fit, `axis` does not exist, `gamma` is a number that is not
        positive, or `alpha`, `beta` or `smooth` a negative one.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import focal_tversky_loss
      >>> region = jnp.array([[1.0, 1.0, 0.0, 0.0]])
      >>> prediction = jnp.array([[1.0, 0.5, 0.5, 0.0]])
      >>> focal_tversky_loss(prediction, region, smooth=0.0, gamma=2.0, apply_sigmoid=False)
      Array([0.5], dtype=float32)

    Reference:
      Abraham and Khan, A novel focal Tversky loss function with improved attention U-Net for lesion
      segmentation, 2019, https://arxiv.org/abs/1810.07842.
    """
    name = "focal_tversky_loss"
    between(name, 0, math.inf, alpha=alpha, beta=beta, smooth=smooth)
    positive(name, gamma=gamma)
    losses, dtype = _losses(name, predictions, targets, alpha, beta, smooth, apply_sigmoid, axis)
    return power(losses, 1 / gamma).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",), ranges={"targets": (0, 1), "smooth": (0, math.inf)})
def jaccard_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_sigmoid: bool = True,
    axis: int | Sequence[int] | None = None,
) -> jax.Array:
    """1 less the intersection of each region with the true one over their union (soft IoU).

    Args:
      predictions: Log odds that a pixel is in the region, or probabilities if not `apply_sigmoid`,
        of shape [batch, ...] and floating point dtype.
      targets: The probability that it is, of the same shape and any real dtype.
      smooth: Added to numerator and denominator, >= 0.
      apply_sigmoid: Whether predictions are log odds.
      axis: The axes of the pixels, over which is summed; with None, all but the first.

    Returns:
      The losses, of that shape without `axis`, in the dtype of `predictions`.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not fit, `axis` does not exist, or `smooth` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import jaccard_loss
      >>> region, prediction = (
      ...     jnp.array([[1.0, 1.0, 1.0, 0.0]]),
      ...     jnp.array([[0.0, 0.0, 1.0, 1.0]]),
      ... )
      >>> jaccard_loss(prediction, region, smooth=0.0, apply_sigmoid=False)
      Array([0.75], dtype=float32)

    Reference:
      Rahman and Wang, Optimizing intersection-over-union in deep neural networks for image
      segmentation, 2016.
    """
    name = "jaccard_loss"
    between(name, 0, math.inf, smooth=smooth)
    losses, dtype = _losses(name, predictions, targets, 1, 1, smooth, apply_sigmoid, axis)
    return losses.astype(dtype)


def _losses(
    loss: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    alpha: ArrayLike,
    beta: ArrayLike,
    smooth: ArrayLike,
    apply_sigmoid: bool,
    axis: int | Sequence[int] | None,
) -> tuple[jax.Array, jnp.dtype]:
    """Tversky's losses, and the dtype to return them in."""
    p, y, dtype = regions(loss, predictions, targets)
    axes = range(1, p.ndim) if axis is None else axes_of(loss, axis, "predictions", p)
    p, q = (jax.nn.sigmoid(p), jax.nn.sigmoid(-p)) if apply_sigmoid else (p, 1 - p)
    return tversky(p, y, axes, smooth, alpha, beta, q), dtype
