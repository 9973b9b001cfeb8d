r"""Cross entropies of logits z with labels, exact also where logits are infinite.

.. math::

    \mathrm{softmax}(z, y) &= -\sum_k y_k \log p_k,
    \qquad \log p_k = z_k - \log \sum_j e^{z_j} \\
    \mathrm{sigmoid}(z, y) &= -y \log \sigma(z) - (1 - y) \log \sigma(-z)

Products are understood as limits: a class that cannot be (a logit of -inf) and need not be (a label
of 0) costs nothing, and a logit of +inf has all the probability.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from grad_core import example, promises
from grad_losses._checks import broadcast_shape, floating, integer, result_dtype, widened
from grad_losses._cross_entropy import cross_entropy_options, integer_cross_entropy
from grad_losses._dense import labels_and_costs
from grad_losses._logits import (
    Axis,
    class_indices,
    class_mask,
    classes_last,
    product,
)

_LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.3]], np.float32)


@example(_LOGITS, np.array([[0.2, 0.5, 0.3], [0.1, 0.2, 0.7]], np.float32))
@promises(infinite=("logits",))
def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
    *,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Cross entropy of a softmax with dense labels, -sum(labels * log_softmax(logits)).

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: Of a shape that broadcasts with that of `logits`, of any real dtype: the probability
        of each class, or any weight >= 0.
      axis: The axis of the classes, the axes (then a class is a place in all of them), or None for
        all axes.
      where: Which classes take part, booleans that broadcast with `logits`; all with None. Examples
        of which no class takes part cost 0.
      dtype: The dtype of the result; with None, the one that logits and labels promote to. For
        float32 from narrower logits the sums, which are in float32 anyway, are not rounded.

    Returns:
      The losses, of the broadcast shape without `axis`.

    Raises:
      TypeError: If `logits` or `dtype` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import softmax_cross_entropy
      >>> logits = jnp.array([[0.0, 0.0], [2.0, -jnp.inf]])
      >>> softmax_cross_entropy(logits, jnp.array([[0.5, 0.5], [1.0, 0.0]])).round(4)
      Array([0.6931, 0.    ], dtype=float32)

    Reference:
      Goodfellow, Bengio and Courville, Deep learning, 2016, section 6.2.2.3.
    """
    name = "softmax_cross_entropy"
    labels, cost, promoted = labels_and_costs(name, logits, labels, axis, where)
    dtype = result_dtype(name, dtype, promoted)
    return jnp.sum(product(labels, cost), axis=axis).astype(dtype)


@example(_LOGITS, np.array([2, 0]))
@promises(infinite=("logits",))
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
    *,
    label_smoothing: ArrayLike = 0.0,
    class_weights: ArrayLike | None = None,
    ignore_index: int | None = None,
    z_loss: ArrayLike = 0.0,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """Cross entropy of a softmax with one class per example, -log_softmax(logits)[label].

    With log probabilities log(p), K classes, label y, smoothing e, weights w and z-loss c it is
    (1 - e) * w[y] * -log(p[y]) + e / K * sum(w * -log(p)) + c * log_sum_exp(logits)**2.

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: The class of each example, of shape [...] (that of `logits` without `axis`, or one
        that broadcasts with it) and integer dtype. Negative ones count from the end. Labels that
        are no class give NaN: an array's values cannot raise.
      axis: The axis of the classes. With several, labels count their places in row-major order.
      where: Which classes the softmax is normalized over, booleans that broadcast with `logits`;
        all with None. Examples of which no class takes part cost 0.
      label_smoothing: The share of the label that is spread evenly over all classes that take
        part, in [0, 1]. No array of dense labels is made.
      class_weights: A weight for each class, of shape [classes] and any real dtype; 1 with None.
        The z-loss is not weighted.
      ignore_index: The label of examples that cost 0, whatever their logits; none with None. It
        need be no class.
      z_loss: The weight, >= 0, of the square of the logits' log-normalizer, which keeps them from
        drifting.
      dtype: The dtype of the result; that of `logits` with None. For float32 from narrower logits
        the sums, which are in float32 anyway, are not rounded.

    Returns:
      The losses, of shape [...].

    Raises:
      TypeError: If `logits` or `dtype` is not floating point, or `labels` or `ignore_index` not
        integer.
      ValueError: If shapes do not fit, `axis` does not exist, `where` is not boolean, or
        `label_smoothing` or `z_loss` is out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import softmax_cross_entropy_with_integer_labels
      >>> logits = jnp.array([[0.0, 0.0], [9.0, -jnp.inf]])
      >>> softmax_cross_entropy_with_integer_labels(logits, jnp.array([1, 0])).round(4)
      Array([0.6931, 0.    ], dtype=float32)

    Reference:
      Goodfellow, Bengio and Courville, Deep learning, 2016, section 6.2.2.3.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    logits = floating(name, "logits", logits)
    labels = integer(name, "labels", labels, "For probabilities use softmax_cross_entropy.")
    dtype = result_dtype(name, dtype, logits.dtype)
    (logits,) = widened(logits)
    mask = None if where is None else classes_last(name, class_mask(name, where, logits), axis)
    logits = classes_last(name, logits, axis)
    labels = class_indices(name, labels, logits)
    options = cross_entropy_options(
        name, logits, label_smoothing, class_weights, ignore_index, z_loss
    )
    if options.ignore_index is not None:  # such logits may be NaN
        logits = jnp.where((labels == options.ignore_index)[..., None], 0, logits)
    return integer_cross_entropy(logits, labels, options, mask).astype(dtype)


@example(_LOGITS, np.array([[0.2, 0.5, 0.3], [0.1, 0.0, 1.0]], np.float32))
@promises(infinite=("logits",))
def sigmoid_binary_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, dtype: DTypeLike | None = None
) -> jax.Array:
    """Cross entropy of independent yes-or-no decisions, elementwise.

    Its equation is -labels * log_sigmoid(logits) - (1 - labels) * log_sigmoid(-logits).

    Args:
      logits: The log odds of yes, of any shape and floating point dtype.
      labels: The probability of yes, of any real dtype, of a shape that broadcasts with `logits`.
      dtype: The dtype of the result; that of `logits` with None.

    Returns:
      The losses, of the broadcast shape.

    Raises:
      TypeError: If `logits` or `dtype` is not floating point.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import sigmoid_binary_cross_entropy
      >>> sigmoid_binary_cross_entropy(jnp.array([0.0, jnp.inf]), jnp.array([0.5, 1.0])).round(4)
      Array([0.6931, 0.    ], dtype=float32)

    Reference:
      Goodfellow, Bengio and Courville, Deep learning, 2016, section 6.2.2.2.
    """
    name = "sigmoid_binary_cross_entropy"
    logits, labels = floating(name, "logits", logits), jnp.asarray(labels)
    broadcast_shape(name, logits=logits, labels=labels)
    dtype = result_dtype(name, dtype, logits.dtype)
    logits, labels = widened(logits, labels)
    yes = product(labels, jax.nn.softplus(-logits))
    no = product(1 - labels, jax.nn.softplus(logits))
    return (yes + no).astype(dtype)
