r"""Lovasz losses of segmentations: convex surrogates of Jaccard's, with its derivatives.

The loss of a set M of wrong pixels is :math:`J(M) = |M| / |R \cup M|`, with the true region R: one
less the intersection over the union. Its Lovasz extension to errors :math:`e_k \ge 0` is

.. math::

    \bar J(e) = \sum_k e_k\,(J(\{1, \dots, k\}) - J(\{1, \dots, k - 1\}))
    \quad\text{with pixels in the order } e_1 \ge e_2 \ge \dots

The hinge form takes errors :math:`\max(0, 1 - t_k z_k)` of log odds with signs t, the softmax form,
for each class c, :math:`|[y_k = c] - p_{kc}|`.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_core.numerics import safe_divide
from grad_losses._checks import ShapeError, axes_of, floating, integer, real, same_shape, widened
from grad_losses._dense import surprisals
from grad_losses._logits import class_mask, classes_last, product
from grad_losses._scores import one_hot

_LOGITS = np.array([[0.5, -1.0, 0.7, 0.1], [-0.4, 0.2, 0.3, -0.6]], np.float32)
_REGIONS = np.array([[1, 0, 0, 1], [0, 0, 1, 1]])
_CLASS_LOGITS = np.array(
    [[[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], [[-0.4, 0.9, 0.1], [0.6, -0.8, 1.2]]], np.float32
)


@example(_LOGITS, _REGIONS)
@promises(infinite=("logits",))
def lovasz_hinge_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    axis: int | Sequence[int] | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Lovasz extension of Jaccard's loss of hinge losses, for a single region.

    Args:
      logits: Log odds that a pixel is in the region, of shape [batch, ...] and floating point
        dtype.
      labels: 1 for pixels in the region, 0 for others, of the same shape and any real dtype.
      axis: The axes of the pixels; with None, all but the first.
      where: Which pixels take part, booleans that broadcast with `logits`; all with None.

    Returns:
      The losses, of that shape without `axis`, in the dtype of `logits`; 0 where no pixel takes
      part. Where the region is empty, it is the largest error.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import lovasz_hinge_loss
      >>> lovasz_hinge_loss(jnp.array([[9.0, -1.0, -9.0, -9.0]]), jnp.array([[1, 1, 0, 0]]))
      Array([1.], dtype=float32)

    Reference:
      Berman, Rannen Triki and Blaschko, The Lovasz-softmax loss, 2018,
      https://arxiv.org/abs/1705.08790.
    """
    name = "lovasz_hinge_loss"
    logits, labels = floating(name, "logits", logits), real(name, "labels", labels)
    same_shape(name, logits=logits, labels=labels)
    axes = tuple(range(1, logits.ndim)) if axis is None else axes_of(name, axis, "logits", logits)
    mask = class_mask(name, where, logits)
    wide, is_region, mask = (
        classes_last(name, x, axes) for x in (*widened(logits), labels > 0, mask)
    )
    errors = jnp.maximum(0, 1 - jnp.where(is_region, wide, -wide))
    return _lovasz_extension(errors, is_region, mask).astype(logits.dtype)


@example(_CLASS_LOGITS, np.array([[2, 0], [1, 2]]))
@promises(infinite=("logits",))
def lovasz_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    only_present: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Lovasz extension of Jaccard's loss of errors of probabilities, mean over classes.

    Args:
      logits: Unnormalized log probabilities, of shape [batch, ..., classes] and floating point
        dtype; the axes between are those of the pixels.
      labels: The class of each pixel, integers of shape [batch, ...]. Negative ones count from the
        end; those that are no class are pixels of none.
      only_present: Whether the mean is over the classes that are labels of some pixel only.
      where: Which pixels take part, booleans that broadcast with `labels`; all with None.

    Returns:
      The losses, of shape [batch] and the dtype of `logits`; 0 where no pixel takes part.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import lovasz_softmax_loss
      >>> logits = jnp.array([[[9.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 0.0]]])
      >>> lovasz_softmax_loss(logits, jnp.array([[0, 0, 1, 1]])).round(2)
      Array([0.42], dtype=float32)

    Reference:
      Berman, Rannen Triki and Blaschko, The Lovasz-softmax loss, 2018,
      https://arxiv.org/abs/1705.08790.
    """
    name = "lovasz_softmax_loss"
    logits = floating(name, "logits", logits)
    labels = integer(name, "labels", labels, "Convert one-hot labels with labels.argmax(-1).")
    if logits.ndim < 2 or labels.shape != logits.shape[:-1]:
        raise ShapeError(
            f"{name}: logits of shape {logits.shape} must have axes of examples and classes, and "
            f"labels of shape {labels.shape} the same without that of the classes."
        )
    mask = class_mask(name, where, labels, "labels")
    batch, pixels = labels.shape[0], math.prod(labels.shape[1:])
    (wide,) = widened(jnp.where(mask[..., None], logits, 0))
    wide = wide.reshape(batch, pixels, logits.shape[-1])
    is_region = one_hot(wide, labels.reshape(batch, pixels)).swapaxes(1, 2)
    p = jnp.exp(-surprisals(wide, -1)).swapaxes(1, 2)
    mask = jnp.broadcast_to(mask.reshape(batch, 1, pixels), p.shape)
    losses = _lovasz_extension(jnp.where(is_region, 1 - p, p), is_region, mask)
    counts = jnp.any(is_region & mask, axis=-1) if only_present else jnp.any(mask, axis=-1)
    mean = safe_divide(jnp.sum(losses, axis=-1, where=counts), jnp.sum(counts, axis=-1))
    return mean.astype(logits.dtype)


def _lovasz_extension(errors: jax.Array, is_region: jax.Array, mask: jax.Array) -> jax.Array:
    """The extension along the last axis, over the pixels in the mask."""
    errors, is_region = jnp.where(mask, errors, 0), is_region & mask
    order = jnp.argsort(-jax.lax.stop_gradient(errors), axis=-1)
    errors, is_region = (jnp.take_along_axis(x, order, axis=-1) for x in (errors, is_region))
    # Pixel by pixel, one of the region leaves the intersection, another one enters the union.
    hits = jnp.cumsum(is_region, axis=-1)
    total = hits[..., -1:]
    intersection = (total - hits).astype(errors.dtype)
    union = total + jnp.cumsum(~is_region, axis=-1)
    gain = intersection / jnp.maximum(union - 1, 1)
    # The differences of J in closed form, which does not cancel. The first pixel of all that enters
    # an empty union takes J from 0 to 1.
    numerator = jnp.where(is_region | (union == 1), 1, gain)
    return jnp.sum(product(numerator / jnp.maximum(union, 1), errors), axis=-1)
