r"""Variants of the softmax cross entropy: with a polynomial correction, with smoothed labels.

.. math::

    \mathrm{poly}_\varepsilon(z, y) &= -\sum_k y_k \log p_k + \varepsilon \sum_k y_k (1 - p_k),
    \qquad p = \mathrm{softmax}(z) \\
    \mathrm{smooth}_\alpha(y)_k &= (1 - \alpha) y_k + \frac{\alpha}{K}
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import axes_of, between, boolean, broadcast_shape, floating, widened
from grad_losses._dense import labels_and_costs
from grad_losses._logits import Axis, product

_LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.3]], np.float32)
_LABELS = np.array([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], np.float32)


@example(_LOGITS, _LABELS)
@promises(infinite=("logits",), ranges={"labels": (0, np.inf)})
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """The same as `softmax_cross_entropy`, which is safe too: at label 0 no logit costs anything.

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: Of a shape that broadcasts with that of `logits`, of any real dtype: the probability
        of each class, or any weight >= 0.

    Returns:
      The losses, of the broadcast shape without the last axis, in the dtype that logits and labels
      promote to.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import safe_softmax_cross_entropy
      >>> logits = jnp.array([0.0, 0.0, -jnp.inf])
      >>> safe_softmax_cross_entropy(logits, jnp.array([0.5, 0.5, 0.0])).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Goodfellow, Bengio and Courville, Deep learning, 2016, section 6.2.2.3.
    """
    labels, costs, dtype = labels_and_costs("safe_softmax_cross_entropy", logits, labels)
    return jnp.sum(product(labels, costs), axis=-1).astype(dtype)


@example(_LOGITS, _LABELS)
@promises(infinite=("logits",), ranges={"labels": (0, np.inf)})
def poly_loss_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Poly-1: cross entropy of a softmax, plus epsilon times what the labels' classes lack to 1.

    It changes the first coefficient of the cross entropy's expansion in 1 - p, from 1 to
    1 + epsilon.

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: Of a shape that broadcasts with that of `logits`, of any real dtype: the probability
        of each class, or any weight >= 0.
      epsilon: The weight of the correction: 0 gives the cross entropy. A number, or an array that
        broadcasts with the losses.
      axis: The axis of the classes, the axes, or None for all axes.
      where: Which classes take part, booleans that broadcast with `logits`; all with None. Examples
        of which no class takes part cost 0.

    Returns:
      The losses, of the broadcast shape without `axis`, in the dtype that logits and labels promote
      to.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist, `where` is not boolean or
        `epsilon` is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import poly_loss_cross_entropy
      >>> poly_loss_cross_entropy(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0])).round(4)
      Array(1.6931, dtype=float32)

    Reference:
      Leng et al., PolyLoss, 2022, equation 4, https://arxiv.org/abs/2204.12511.
    """
    name = "poly_loss_cross_entropy"
    between(name, -math.inf, math.inf, epsilon=epsilon)
    labels, costs, dtype = labels_and_costs(name, logits, labels, axis, where)
    cross_entropy = jnp.sum(product(labels, costs), axis=axis)
    shortfall = jnp.sum(labels * -jnp.expm1(-costs), axis=axis)
    return (cross_entropy + epsilon * shortfall).astype(dtype)


@example(_LABELS, 0.1)
@promises(ranges={"labels": (0, 1), "alpha": (0, 1)})
def smooth_labels(
    labels: ArrayLike,
    alpha: ArrayLike,
    *,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The mean of labels and the uniform distribution, (1 - alpha) * labels + alpha / classes.

    Args:
      labels: Probabilities, one-hot or not, of shape [..., classes] and floating point dtype.
      alpha: The weight of the uniform distribution, from 0 to 1; a number, or an array that
        broadcasts with `labels`.
      axis: The axis of the classes, the axes, or None for all axes.
      where: Which classes take part, booleans that broadcast with `labels`; all with None. The
        others are not counted; what becomes of their labels is for the loss to ignore.

    Returns:
      The smoothed labels, of the broadcast shape and the dtype of `labels`.

    Raises:
      TypeError: If `labels` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist, `where` is not boolean or
        `alpha` is a number outside of 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import smooth_labels
      >>> smooth_labels(jnp.array([[1.0, 0.0], [0.0, 1.0]]), 0.5)
      Array([[0.75, 0.25],
             [0.25, 0.75]], dtype=float32)

    Reference:
      Szegedy et al., Rethinking the Inception architecture for computer vision, 2016, section 7,
      https://arxiv.org/abs/1512.00567; Müller, Kornblith and Hinton, When does label smoothing
      help?, 2019.
    """
    name = "smooth_labels"
    between(name, 0, 1, alpha=alpha)
    labels = floating(name, "labels", labels)
    weight = jnp.asarray(alpha)
    mask = jnp.array(True) if where is None else boolean(name, "where", where)
    shape = broadcast_shape(name, labels=labels, alpha=weight, where=mask)
    takes_part = jnp.broadcast_to(mask, shape)
    axes = axes_of(name, axis, "labels", takes_part)
    count = jnp.sum(takes_part, axis=axes, keepdims=True)
    (wide,) = widened(labels)
    smooth = (1 - weight) * wide + weight / jnp.where(count == 0, jnp.inf, count)
    return smooth.astype(labels.dtype)
