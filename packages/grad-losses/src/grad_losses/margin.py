r"""Margin losses of scores: the perceptron's, and the hinge of support vector machines.

With one score z and a target t of -1 or 1; with scores z of classes and a label y:

.. math::

    \mathrm{perceptron} &= \max(0, -t z), \qquad
    \mathrm{hinge} = \max(0, 1 - t z) \\
    \mathrm{perceptron} &= \max_j z_j - z_y, \qquad
    \mathrm{hinge} = \max_j (z_j + [j \ne y]) - z_y

All are piecewise linear. Where pieces meet, gradients are the mean of those of the pieces.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import broadcast_shape, floating, real, same_shape, widened
from grad_losses._scores import excess, known, one_hot, scores_and_labels

_OUTPUTS = np.array([0.5, -1.5, 0.25], np.float32)
_TARGETS = np.array([1.0, 1.0, -1.0], np.float32)
_SCORES = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_LABELS = np.array([1, 0])


@example(_OUTPUTS, _TARGETS)
def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """The hinge loss of two classes, max(0, 1 - targets * predictor_outputs).

    Args:
      predictor_outputs: The scores of the class 1, of any shape and floating point dtype.
      targets: -1 or 1, of any real dtype, of a shape that broadcasts with that of
        `predictor_outputs`.

    Returns:
      The losses, of the broadcast shape, in the dtype that both promote to.

    Raises:
      TypeError: If `predictor_outputs` is not floating point.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import hinge_loss
      >>> hinge_loss(jnp.array([0.5, 2.0, 3.0]), jnp.array([1, 1, -1]))
      Array([0.5, 0. , 4. ], dtype=float32)

    Reference:
      Cortes and Vapnik, Support-vector networks, 1995.
    """
    name = "hinge_loss"
    outputs = floating(name, "predictor_outputs", predictor_outputs)
    targets = real(name, "targets", targets)
    broadcast_shape(name, predictor_outputs=outputs, targets=targets)
    dtype = jnp.result_type(outputs, targets)
    outputs, targets = widened(outputs, targets)
    return jnp.maximum(0, 1 - targets * outputs).astype(dtype)


@example(_OUTPUTS, _TARGETS)
def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> jax.Array:
    """The perceptron's loss of two classes, max(0, -targets * predictor_outputs).

    Args:
      predictor_outputs: The scores of the class 1, of any shape and floating point dtype.
      targets: -1 or 1, of the same shape and any real dtype.

    Returns:
      The losses, of the shape of `predictor_outputs`, in the dtype that both promote to.

    Raises:
      TypeError: If `predictor_outputs` is not floating point.
      ValueError: If the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import perceptron_loss
      >>> perceptron_loss(jnp.array([0.5, -2.0, 3.0]), jnp.array([1, 1, -1]))
      Array([0., 2., 3.], dtype=float32)

    Reference:
      Rosenblatt, The perceptron, 1958.
    """
    name = "perceptron_loss"
    outputs = floating(name, "predictor_outputs", predictor_outputs)
    targets = real(name, "targets", targets)
    same_shape(name, predictor_outputs=outputs, targets=targets)
    dtype = jnp.result_type(outputs, targets)
    outputs, targets = widened(outputs, targets)
    return jnp.maximum(0, -targets * outputs).astype(dtype)


@example(_SCORES, _LABELS)
@promises(infinite=("scores",))
def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """The hinge loss of several classes: how far the label is from leading all others by 1.

    Its equation is max(scores + 1 - one_hot(label)) - scores[label].

    Args:
      scores: Of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...], or one that broadcasts to it.
        Negative ones count from the end; those that are no class give NaN.

    Returns:
      The losses, of shape [...] and the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating point or `labels` not integer.
      ValueError: If the shapes do not fit, or there are no classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import multiclass_hinge_loss
      >>> multiclass_hinge_loss(jnp.array([[3.0, 1.0], [0.0, 0.5]]), jnp.array([0, 1]))
      Array([0. , 0.5], dtype=float32)

    Reference:
      Crammer and Singer, On the algorithmic implementation of multiclass kernel-based vector
      machines, 2001.
    """
    scores, labels, dtype = scores_and_labels("multiclass_hinge_loss", scores, labels)
    labels, is_class = known(scores, labels)
    margin = 1 - one_hot(scores, labels).astype(scores.dtype)
    loss = jnp.max(excess(scores, labels) + margin, axis=-1)
    return jnp.where(is_class, loss, jnp.nan).astype(dtype)


@example(_SCORES, _LABELS)
@promises(infinite=("scores",))
def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """The perceptron's loss of several classes, max(scores) - scores[label].

    Args:
      scores: Of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...], or one that broadcasts to it.
        Negative ones count from the end; those that are no class give NaN.

    Returns:
      The losses, of shape [...] and the dtype of `scores`.

    Raises:
      TypeError: If `scores` is not floating point or `labels` not integer.
      ValueError: If the shapes do not fit, or there are no classes.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import multiclass_perceptron_loss
      >>> multiclass_perceptron_loss(jnp.array([[3.0, 1.0], [0.5, 0.0]]), jnp.array([0, 1]))
      Array([0. , 0.5], dtype=float32)

    Reference:
      Collins, Discriminative training methods for hidden Markov models, 2002.
    """
    scores, labels, dtype = scores_and_labels("multiclass_perceptron_loss", scores, labels)
    labels, is_class = known(scores, labels)
    return jnp.where(is_class, jnp.max(excess(scores, labels), axis=-1), jnp.nan).astype(dtype)
