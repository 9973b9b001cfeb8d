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
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, broadcast_shape, floating, integer, widened

Axis = int | tuple[int, ...]


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
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

    Returns:
      The losses, of the broadcast shape without `axis`, in the dtype that logits and labels promote
      to.

    Raises:
      TypeError: If `logits` is not floating point.
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
    logits, labels = floating(name, "logits", logits), jnp.asarray(labels)
    dtype = jnp.result_type(logits, labels)
    broadcast_shape(name, logits=logits, labels=labels)
    logits, labels = jnp.broadcast_arrays(*widened(logits, labels))
    if where is not None:
        mask = _mask(name, where, logits)
        logits, labels = jnp.where(mask, logits, -jnp.inf), jnp.where(mask, labels, 0)
    logits = _attainable(logits, axis)
    logits = logits - _peak(logits, axis)
    cost = _log_normalizer(logits, axis) - logits
    return jnp.sum(_product(labels, cost), axis=axis).astype(dtype)


def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Cross entropy of a softmax with one class per example, -log_softmax(logits)[label].

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: The class of each example, of shape [...] (that of `logits` without `axis`, or one
        that broadcasts with it) and integer dtype. Negative ones count from the end. Labels that
        are no class give NaN: an array's values cannot raise.
      axis: The axis of the classes. With several, labels count their places in row-major order.
      where: Which classes the softmax is normalized over, booleans that broadcast with `logits`;
        all with None. Examples of which no class takes part cost 0.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, `axis` does not exist or `where` is not boolean.

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
    dtype = logits.dtype
    (logits,) = widened(logits)
    mask = None if where is None else _classes_last(name, _mask(name, where, logits), axis)
    logits = _classes_last(name, logits, axis)
    labels = _fitting(name, labels, logits)

    logits = _attainable(logits, -1, mask)
    included = logits if mask is None else jnp.where(mask, logits, -jnp.inf)
    peak = _peak(included, -1)
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    loss = jnp.squeeze(_log_normalizer(included - peak, -1) - (chosen - peak), -1)
    if mask is not None:
        loss = jnp.where(jnp.any(mask, axis=-1), loss, 0)
    return loss.astype(dtype)


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Cross entropy of independent yes-or-no decisions, elementwise.

    Its equation is -labels * log_sigmoid(logits) - (1 - labels) * log_sigmoid(-logits).

    Args:
      logits: The log odds of yes, of any shape and floating point dtype.
      labels: The probability of yes, of any real dtype, of a shape that broadcasts with `logits`.

    Returns:
      The losses, of the broadcast shape, in the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
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
    dtype = logits.dtype
    logits, labels = widened(logits, labels)
    yes = _product(labels, jax.nn.softplus(-logits))
    no = _product(1 - labels, jax.nn.softplus(logits))
    return (yes + no).astype(dtype)


def _attainable(logits: jax.Array, axis: Axis | None, mask: jax.Array | None = None) -> jax.Array:
    """The logits, but 0 instead of +inf, and -inf beside it: the same softmax, in the limit."""
    is_certain = jnp.isposinf(logits)
    any_certain = jnp.any(is_certain, axis=axis, keepdims=True, where=mask)
    return jnp.where(any_certain, jnp.where(is_certain, 0.0, -jnp.inf), logits)


def _peak(logits: jax.Array, axis: Axis | None) -> jax.Array:
    """The largest of the logits, keeping the axis, as a constant; 0 where all are -inf.

    A softmax does not change when it is subtracted first, and large logits then lose no digits.
    """
    logits = jax.lax.stop_gradient(logits)
    largest = jnp.max(logits, axis=axis, keepdims=True, initial=-jnp.inf)
    return jnp.where(jnp.isneginf(largest), 0.0, largest)


def _log_normalizer(logits: jax.Array, axis: Axis | None) -> jax.Array:
    """``log(sum(exp(logits)))``, keeping the axis; but 0, not -inf, where all are -inf."""
    total = jnp.sum(jnp.exp(logits), axis=axis, keepdims=True)
    return jnp.log(jnp.where(total == 0, 1.0, total))


def _product(weight: jax.Array, cost: jax.Array) -> jax.Array:
    """``weight * cost``, where 0 * inf is 0, in value and gradients."""
    is_void = (weight == 0) & jnp.isinf(cost)
    return jnp.where(is_void, 0.0, weight * jnp.where(is_void, 0.0, cost))


def _mask(loss: str, where: ArrayLike, logits: jax.Array) -> jax.Array:
    """The argument `where`, with the shape of `logits`."""
    mask = jnp.asarray(where)
    if mask.dtype != bool:
        raise ValueError(f"{loss}: where must be boolean; got {mask.dtype}. Try where != 0.")
    if broadcast_shape(loss, logits=logits, where=mask) != logits.shape:
        raise ShapeError(
            f"{loss}: where of shape {mask.shape} has more elements than logits of shape "
            f"{logits.shape}. Broadcast the logits first."
        )
    return jnp.broadcast_to(mask, logits.shape)


def _classes_last(loss: str, array: jax.Array, axis: Axis) -> jax.Array:
    """The array with `axis` last, several axes merged into one."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not all(isinstance(one, int) for one in axes):
        raise ValueError(f"{loss}: axis must be an int or a tuple of ints; got {axis!r}.")
    moved = jnp.moveaxis(array, axes, range(-len(axes), 0))
    return moved if len(axes) == 1 else moved.reshape(*moved.shape[: array.ndim - len(axes)], -1)


def _fitting(loss: str, labels: jax.Array, logits: jax.Array) -> jax.Array:
    """The labels in a dtype that counts all classes, after a check of their shape."""
    examples = logits.shape[:-1]
    try:
        fits = labels.ndim == len(examples) and jnp.broadcast_shapes(labels.shape, examples)
    except ValueError:
        fits = False
    if fits is False:
        raise ShapeError(
            f"{loss}: labels of shape {labels.shape} must have the shape of logits without the "
            f"axis of the classes, {examples}: one integer per example. For one-hot labels use "
            "softmax_cross_entropy."
        )
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels
