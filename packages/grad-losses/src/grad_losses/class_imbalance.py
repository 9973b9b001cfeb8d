r"""Losses for classes of very different sizes: softmax focal, asymmetric, and LDAM.

With the probability p of the label y, or of yes, which a label t says or not:

.. math::

    \mathrm{focal} &= -w_y (1 - p)^\gamma \log p \\
    \mathrm{asymmetric} &= -t\,(1 - p)^{\gamma_+} \log p
        - (1 - t)\,p_m^{\gamma_-} \log(1 - p_m) \quad\text{with } p_m = \max(0, p - m) \\
    \mathrm{ldam} &= -w_y \log \mathrm{softmax}(s (z - \Delta_y [j = y]))_y
        \quad\text{with } \Delta_j = m\,(\min_k n_k / n_j)^{1/4}
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import (
    between,
    broadcast_shape,
    floating,
    one_per_class,
    positive,
    real,
    widened,
)
from grad_losses._dense import surprisals
from grad_losses._functions import power
from grad_losses._labels import costs_of_labels, weights_of_labels
from grad_losses._logits import Axis, less_peak, peak, pick, product
from grad_losses._scores import one_hot, scores_and_labels

_LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_WEIGHTS = np.array([0.5, 1.5, 2.0], np.float32)


@example(_LOGITS, np.array([1, 0]), class_weights=_WEIGHTS)
@promises(shared=("class_weights",), infinite=("logits",), ranges={"gamma": (0, math.inf)})
def softmax_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    class_weights: ArrayLike | None = None,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross entropy of a softmax times a power of the probability of error.

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...]. Negative ones count from the end;
        those that are no class give NaN.
      gamma: The power, >= 0: with 0 it is the cross entropy. A number, or an array that broadcasts
        with the losses.
      class_weights: What examples are weighted with by their label, of shape [classes]; 1 with
        None.
      axis: The axis of the classes. With several, labels count their places in row-major order.
      where: Which classes take part, booleans that broadcast with `logits`; all with None. Examples
        of which no class takes part cost 0.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, `axis` does not exist, `where` is not boolean or `gamma` is
        a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import softmax_focal_loss
      >>> logits = jnp.array([[0.0, 0.0], [3.0, 0.0]])
      >>> softmax_focal_loss(logits, jnp.array([0, 1])).round(2)
      Array([0.17, 2.77], dtype=float32)

    Reference:
      Lin et al., Focal loss for dense object detection, 2017, https://arxiv.org/abs/1708.02002.
    """
    name = "softmax_focal_loss"
    between(name, 0, math.inf, gamma=gamma)
    costs, given = costs_of_labels(name, logits, labels, axis, where)
    focus = power(-jnp.expm1(-costs), gamma)
    weights = weights_of_labels(name, class_weights, given.logits, given.labels)
    return given.settled(product(weights, _times(focus, costs)))


@example(_LOGITS, np.array([[0, 0, 1], [1, 0, 1]]))
@promises(
    infinite=("logits",),
    ranges={
        "gamma_positive": (0, math.inf),
        "gamma_negative": (0, math.inf),
        "margin": (0, 1),
    },
)
def asymmetric_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma_positive: ArrayLike = 0.0,
    gamma_negative: ArrayLike = 4.0,
    margin: ArrayLike = 0.05,
) -> jax.Array:
    """Cross entropy of yes-or-no decisions in which easy negatives count little, elementwise.

    It is for several labels an example, of which most are negative.

    Args:
      logits: The log odds of yes, of any shape and floating point dtype.
      labels: 1 for yes, 0 for no, or the probability of yes, of any real dtype, of a shape that
        broadcasts with that of `logits`.
      gamma_positive: The power, >= 0, by which easy positives count less.
      gamma_negative: The power, >= 0, by which easy negatives count less.
      margin: What is subtracted from the probability of yes for negatives, in [0, 1]: those with
        less cost nothing.

    Returns:
      The losses, of the broadcast shape and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If the shapes do not broadcast, or a number is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import asymmetric_loss
      >>> asymmetric_loss(jnp.array([0.0, 0.0, -4.0]), jnp.array([1, 0, 0])).round(4)
      Array([0.6931, 0.0245, 0.    ], dtype=float32)

    Reference:
      Ben-Baruch et al., Asymmetric loss for multi-label classification, 2021,
      https://arxiv.org/abs/2009.14119.
    """
    name = "asymmetric_loss"
    between(name, 0, math.inf, gamma_positive=gamma_positive, gamma_negative=gamma_negative)
    between(name, 0, 1, margin=margin)
    logits, labels = floating(name, "logits", logits), real(name, "labels", labels)
    broadcast_shape(name, logits=logits, labels=labels)
    dtype = logits.dtype
    logits, labels = widened(logits, labels)
    margin = jnp.asarray(margin, logits.dtype)

    surprise_yes, surprise_no = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    yes = _times(jnp.exp(-product(jnp.asarray(gamma_positive), surprise_no)), surprise_yes)
    # -log(1 - p + m), where m and 1 - p may both be far smaller than 1.
    log_margin = jnp.log(jnp.where(margin > 0, margin, 1))
    cost_no = jnp.maximum(0, -jnp.logaddexp(-surprise_no, log_margin))
    cost_no = jnp.where(margin > 0, cost_no, surprise_no)
    p = jnp.exp(-surprise_yes)  # the derivative of jax.nn.sigmoid cancels near 1
    no = _times(power(jnp.maximum(0, p - margin), gamma_negative), cost_no)
    return (product(labels, yes) + product(1 - labels, no)).astype(dtype)


@example(_LOGITS, np.array([1, 0]), np.array([90, 20, 3]))
@promises(shared=("class_counts",), infinite=("logits",))
def ldam_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    class_counts: ArrayLike,
    *,
    max_margin: ArrayLike = 0.5,
    scale: ArrayLike = 30.0,
    class_weights: ArrayLike | None = None,
) -> jax.Array:
    """Cross entropy of a softmax in which labels are to lead by a margin, larger for rare classes.

    Args:
      logits: Of shape [..., classes] and floating point dtype: in the paper, cosines of features
        with the weights of classes.
      labels: The class of each example, integers of shape [...], or one that broadcasts to it.
        Negative ones count from the end; those that are no class give NaN.
      class_counts: The number of training examples of each class, > 0, of shape [classes] and any
        real dtype.
      max_margin: The margin m of the rarest class.
      scale: What logits are multiplied by, less the margin, > 0.
      class_weights: What examples are weighted with by their label, of shape [classes]; 1 with
        None. The paper begins to weight late in training.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, or `max_margin` or `scale` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ldam_loss
      >>> logits, counts = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1600, 100])
      >>> ldam_loss(logits, jnp.array([0, 1]), counts, max_margin=1.0, scale=2.0).round(1)
      Array([0.3, 0.7], dtype=float32)

    Reference:
      Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, 2019,
      https://arxiv.org/abs/1906.07413.
    """
    name = "ldam_loss"
    between(name, -math.inf, math.inf, max_margin=max_margin)
    positive(name, scale=scale)
    scores, labels, dtype = scores_and_labels(name, logits, labels, "logits")
    counts = one_per_class(name, "class_counts", class_counts, scores)
    weights = weights_of_labels(name, class_weights, scores, labels)
    margins = jnp.asarray(max_margin * (jnp.min(counts) / counts) ** 0.25)
    penalty = jnp.where(one_hot(scores, labels), margins, 0)
    penalized = jnp.asarray(scale * (less_peak(scores, peak(scores, -1)) - penalty))
    return product(weights, pick(surprisals(penalized, -1), labels)).astype(dtype)


def _times(focus: jax.Array, cost: jax.Array) -> jax.Array:
    """The product; where the cost is infinite the focus is 1, and a change of it would be NaN."""
    return jnp.where(jnp.isinf(cost), jax.lax.stop_gradient(focus), focus) * cost
