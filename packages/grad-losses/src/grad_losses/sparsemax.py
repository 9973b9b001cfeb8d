r"""Sparsemax losses: like cross entropies, but exactly 0 once the label is ahead by 1.

The prediction is the point of the simplex nearest to the scores z, which has few nonzeros, and the
gradient its difference to the label y:

.. math::

    p(z) = \mathop{\mathrm{argmin}}_{p \in \Delta} |p - z|^2, \qquad
    L(z, y) = \max_{p \in \Delta} \left(p \cdot z - \tfrac12 |p|^2\right)
        - \left(e_y \cdot z - \tfrac12 |e_y|^2\right), \qquad
    \nabla_z L = p(z) - e_y

With the threshold :math:`\tau = z_j - p_j`, the same for all j of :math:`p_j > 0`, this is a sum of
terms that are not negative, :math:`L = \frac12 |e_y - p|^2 + [p_y = 0] (\tau - z_y)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_core.projections import projection_simplex
from grad_losses._checks import broadcast_shape, floating, real, widened
from grad_losses._logits import less_peak, peak, pick
from grad_losses._scores import one_hot, scores_and_labels


@example(np.array([0.5, -1.5, 0.25, -0.6], np.float32), np.array([1, 1, 0, 0]))
@promises(infinite=("logits",))
def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> jax.Array:
    """The sparsemax loss of yes-or-no decisions, elementwise.

    With z the logit if the label is yes, else its negative, it is 0 for z >= 1, -z for z <= -1, and
    (1 - z)**2 / 4 between.

    Args:
      logits: The scores of yes, of any shape and floating point dtype.
      labels: 1 for yes (and whatever else is not 0) and 0 for no, of any real dtype, of a shape
        that broadcasts with that of `logits`.

    Returns:
      The losses, of the broadcast shape and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import sparsemax_loss
      >>> sparsemax_loss(jnp.array([2.0, 0.0, 2.0]), jnp.array([1, 1, 0]))
      Array([0.  , 0.25, 2.  ], dtype=float32)

    Reference:
      Martins and Astudillo, From softmax to sparsemax, 2016, https://arxiv.org/abs/1602.02068;
      Blondel, Martins and Niculae, Learning with Fenchel-Young losses, 2020.
    """
    name = "sparsemax_loss"
    logits, labels = floating(name, "logits", logits), real(name, "labels", labels)
    broadcast_shape(name, logits=logits, labels=labels)
    (wide,) = widened(logits)
    margin = jnp.where(labels != 0, wide, -wide)
    is_curved = jnp.abs(margin) < 1
    curved, straight = jnp.where(is_curved, margin, 0), jnp.where(margin > -1, 0, -margin)
    return jnp.where(is_curved, jnp.square(1 - curved) / 4, straight).astype(logits.dtype)


@example(np.array([[0.5, -1.0, 1.1], [1.0, 0.2, 0.3]], np.float32), np.array([1, 0]))
@promises(infinite=("scores",))
def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """The sparsemax loss of several classes, whose gradient is sparsemax(scores) - one_hot(label).

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
      >>> from grad_losses import multiclass_sparsemax_loss
      >>> multiclass_sparsemax_loss(jnp.array([[3.0, 1.0], [0.0, 0.0]]), jnp.array([0, 1]))
      Array([0.  , 0.25], dtype=float32)

    Reference:
      Martins and Astudillo, From softmax to sparsemax, 2016, https://arxiv.org/abs/1602.02068.
    """
    scores, labels, dtype = scores_and_labels("multiclass_sparsemax_loss", scores, labels)
    scores = less_peak(scores, peak(scores, -1))
    # Whoever is behind by 1 or more has no part in the projection; -inf would be in its way.
    near = jnp.maximum(scores, -2)
    project = jnp.vectorize(projection_simplex, signature="(n)->(n)")
    support = project(jax.lax.stop_gradient(near)) > 0
    total = jnp.sum(near, axis=-1, keepdims=True, where=support)
    threshold = (total - 1) / jnp.sum(support, axis=-1, keepdims=True)
    p = jnp.where(support, near - threshold, 0)
    lacking = threshold[..., 0] - pick(scores, labels)
    squares = jnp.sum(jnp.square(one_hot(p, labels) - p), axis=-1)
    return (0.5 * squares + jnp.where(pick(p, labels) > 0, 0, lacking)).astype(dtype)
