r"""Losses of a softmax that wrong labels harm less.

With the probability p of the label:

.. math::

    \mathrm{generalized}_q = \frac{1 - p^q}{q}
"""

import jax
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between
from grad_losses._functions import growth
from grad_losses._labels import costs_of_labels
from grad_losses._logits import Axis

_LOGITS = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)


@example(_LOGITS, np.array([1, 0]))
@promises(infinite=("logits",), ranges={"q": (0, 1)})
def generalized_cross_entropy_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    q: ArrayLike = 0.7,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """(1 - p**q) / q: from the cross entropy, q = 0, to the mean absolute error, q = 1.

    It is at most 1 / q, so that examples with a wrong label matter less.

    Args:
      logits: Unnormalized log probabilities, of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...]. Negative ones count from the end;
        those that are no class give NaN.
      q: The power of the probability, in [0, 1]. A number, or an array that broadcasts with the
        losses.
      axis: The axis of the classes. With several, labels count their places in row-major order.
      where: Which classes take part, booleans that broadcast with `logits`; all with None. Examples
        of which no class takes part cost 0.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, `axis` does not exist, `where` is not boolean or `q` is a
        number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import generalized_cross_entropy_loss
      >>> logits = jnp.array([[0.0, 0.0], [-99.0, 0.0]])
      >>> generalized_cross_entropy_loss(logits, jnp.array([0, 0]), q=0.5).round(4)
      Array([0.5858, 2.    ], dtype=float32)

    Reference:
      Zhang and Sabuncu, Generalized cross entropy loss for training deep neural networks with noisy
      labels, 2018, https://arxiv.org/abs/1805.07836.
    """
    name = "generalized_cross_entropy_loss"
    between(name, 0, 1, q=q)
    costs, given = costs_of_labels(name, logits, labels, axis, where)
    return given.settled(-growth(-costs, q))
