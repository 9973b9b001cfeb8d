r"""Margin losses of one or several labels among many classes.

With scores z of K classes, a label y, or a set Y of labels:

.. math::

    \mathrm{multi}(z, y) &= \frac1K \sum_{j \ne y} w_y \max(0, m - z_y + z_j)^r \\
    \mathrm{multilabel}(z, Y) &= \frac1K \sum_{y \in Y} \sum_{j \notin Y} \max(0, m - z_y + z_j) \\
    \mathrm{soft\ multilabel}(z, Y) &= -\frac1K \sum_j
        w_j \log \sigma(z_j \text{ if } j \in Y \text{ else } -z_j)

The soft margin of one score with a target t of 1 or -1 is :math:`-\log \sigma(t z)`.
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, floating, one_per_class, real, same_shape, widened
from grad_losses._functions import power
from grad_losses._labels import weights_of_labels
from grad_losses._logits import product
from grad_losses._ranking import differences, pairs, ranked_lists
from grad_losses._scores import excess, one_hot, scores_and_labels

_SCORES = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_WEIGHTS = np.array([0.5, 1.5, 2.0], np.float32)
_LABELS = np.array([[1, 0, 0], [0, 1, 1]])


@example(_SCORES, np.array([1, 0]), class_weights=_WEIGHTS)
@promises(shared=("class_weights",), infinite=("scores",))
def multi_margin_loss(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    degree: ArrayLike = 1,
    margin: ArrayLike = 1.0,
    class_weights: ArrayLike | None = None,
) -> jax.Array:
    """By how much the other classes come too near to the label, on average over all classes.

    `multiclass_hinge_loss` is that of the nearest class only.

    Args:
      scores: Of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...], or one that broadcasts to it.
        Negative ones count from the end; those that are no class give NaN.
      degree: The power r of what is too near, >= 1 and finite.
      margin: By how much the label should lead.
      class_weights: What examples are weighted with by their label, of shape [classes]; 1 with
        None.

    Returns:
      The losses, of shape [...] and the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating point or `labels` not integer.
      ValueError: If the shapes do not fit, or `degree` or `margin` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import multi_margin_loss
      >>> multi_margin_loss(jnp.array([[3.0, 1.0], [0.0, 0.5]]), jnp.array([0, 1]))
      Array([0.  , 0.25], dtype=float32)

    Reference:
      Weston and Watkins, Multi-class support vector machines, 1998.
    """
    name = "multi_margin_loss"
    between(name, 1, sys.float_info.max, degree=degree)
    between(name, -math.inf, math.inf, margin=margin)
    scores, labels, dtype = scores_and_labels(name, scores, labels)
    weights = weights_of_labels(name, class_weights, scores, labels)
    near = jnp.maximum(0, margin + excess(scores, labels))
    near = jnp.where(one_hot(scores, labels), 0, near)
    return (weights * jnp.mean(power(near, degree), axis=-1)).astype(dtype)


@example(_SCORES, _LABELS)
def multi_label_margin_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """By how much classes that are no labels come too near to labels, summed over all pairs.

    Args:
      logits: Scores, of shape [..., classes] and floating point dtype.
      labels: 1 for each class that is a label, 0 for others, of the same shape and any real dtype.
      margin: By how much labels should lead.
      where: Which classes take part, booleans that broadcast with `logits`; all with None.

    Returns:
      The losses, of shape [...] and the dtype of `logits`: sums over pairs, divided by the number
      of classes. It takes memory for all pairs of classes.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit, `where` is not boolean or `margin` is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import multi_label_margin_loss
      >>> multi_label_margin_loss(jnp.array([2.0, 0.5, 1.0, -1.0]), jnp.array([1, 1, 0, 0]))
      Array(0.375, dtype=float32)

    Reference:
      Crammer and Singer, A family of additive online algorithms for category ranking, 2003.
    """
    name = "multi_label_margin_loss"
    between(name, -math.inf, math.inf, margin=margin)
    logits, labels, mask, dtype = ranked_lists(name, logits, labels, where)
    is_label, _ = pairs(mask & (labels > 0))
    _, is_other = pairs(mask & ~(labels > 0))
    near = jnp.where(is_label & is_other, jnp.maximum(0, margin - differences(logits)), 0)
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    return (jnp.sum(near, axis=(-2, -1)) / count).astype(dtype)


@example(_SCORES, _LABELS, class_weights=_WEIGHTS)
@promises(shared=("class_weights",), infinite=("logits",))
def multi_label_soft_margin_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The cross entropy of independent decisions for each class, on average over the classes.

    `sigmoid_binary_cross_entropy` is that of each decision.

    Args:
      logits: The log odds of each class, of shape [..., classes] and floating point dtype.
      labels: 1 for each class that is a label, 0 for others, or the probability that it is, of the
        same shape and any real dtype.
      class_weights: What the cross entropy of each class is weighted with, of shape [classes]; 1
        with None.
      where: Which classes take part, booleans that broadcast with `logits`; all with None.

    Returns:
      The losses, of shape [...] and the dtype of `logits`; 0 where no class takes part.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit, or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import multi_label_soft_margin_loss
      >>> multi_label_soft_margin_loss(jnp.array([0.0, 99.0, -9.0]), jnp.array([1, 1, 1])).round(
      ...     1
      ... )
      Array(3.2, dtype=float32)

    Reference:
      Goodfellow, Bengio and Courville, Deep learning, 2016, section 6.2.2.2.
    """
    name = "multi_label_soft_margin_loss"
    logits, labels, mask, dtype = ranked_lists(name, logits, labels, where)
    yes = product(labels, jax.nn.softplus(-logits))
    no = product(1 - labels, jax.nn.softplus(logits))
    cost = yes + no
    if class_weights is not None:
        cost = product(one_per_class(name, "class_weights", class_weights, logits), cost)
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1)
    return (jnp.sum(cost, axis=-1, where=mask) / count).astype(dtype)


@example(np.array([0.5, -1.5, 0.25], np.float32), np.array([1, 1, -1]))
@promises(infinite=("predictor_outputs",))
def soft_margin_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """The logistic loss of two classes, log(1 + exp(-targets * predictor_outputs)).

    Args:
      predictor_outputs: The scores of the class 1, of any shape and floating point dtype.
      targets: -1 or 1, of the same shape and any real dtype.

    Returns:
      The losses, of that shape, in the dtype that both promote to.

    Raises:
      TypeError: If `predictor_outputs` is not floating point.
      ValueError: If the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import soft_margin_loss
      >>> soft_margin_loss(jnp.array([0.0, 99.0, 99.0]), jnp.array([1, 1, -1])).round(4)
      Array([ 0.6931,  0.    , 99.    ], dtype=float32)

    Reference:
      Hastie, Tibshirani and Friedman, The elements of statistical learning, 2009, section 10.5.
    """
    name = "soft_margin_loss"
    outputs = floating(name, "predictor_outputs", predictor_outputs)
    targets = real(name, "targets", targets)
    same_shape(name, predictor_outputs=outputs, targets=targets)
    dtype = jnp.result_type(outputs, targets)
    outputs, targets = widened(outputs, targets)
    return jax.nn.softplus(-targets * outputs).astype(dtype)
