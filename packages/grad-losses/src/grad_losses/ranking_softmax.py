r"""The softmax loss of ranked lists, ListNet's with labels that need not be normalized.

With the logits z and relevances y of the items of a list, and weights w:

.. math::

    L = -\sum_i w_i y_i \log \frac{e^{z_i}}{\sum_j e^{z_j}}
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import broadcast_shape, floating, masked, real
from grad_losses._dense import labels_and_costs
from grad_losses._logits import class_mask, product


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.3]], np.float32),
    np.array([[0.2, 0.5, 0.3], [0.1, 0.3, 0.6]], np.float32),
    weights=np.array([[1.0, 0.6, 2.0], [0.5, 1.5, 0.8]], np.float32),
    reduce_fn=None,
)
@promises(infinite=("logits",), ranges={"labels": (0, np.inf), "weights": (0, np.inf)})
def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., ArrayLike] | None = jnp.mean,
) -> jax.Array:
    """The cross entropy of a softmax over the items of each list, with the mean over lists.

    Args:
      logits: The scores of the items, higher for what should come first, of shape [..., items] and
        floating point dtype.
      labels: Their relevances >= 0, of any real dtype, of a shape that broadcasts with `logits`.
      where: Which items are in the list, booleans that broadcast with `logits`; all with None.
        Lists of different lengths are padded, and masked with it.
      weights: What labels are multiplied by, >= 0, of a shape that broadcasts with `logits`.
      reduce_fn: Called as ``reduce_fn(losses, where=is_list)`` with the losses, of shape [...], and
        which of the lists have any item, or None if `where` is. By default the mean over lists;
        with None the losses are returned as they are. If no list has an item, all take part, with
        loss 0.

    Returns:
      What `reduce_fn` makes of the losses, by default of shape (), in the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not broadcast or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ranking_softmax_loss
      >>> logits, labels = jnp.array([[2.0, 2.0], [9.0, 0.0]]), jnp.array([[1, 0], [0, 1]])
      >>> ranking_softmax_loss(logits, labels, reduce_fn=None).round(4)
      Array([0.6931, 9.0001], dtype=float32)

    Reference:
      Cao et al., Learning to rank: from pairwise approach to listwise approach, 2007; in this form,
      Bruch et al., An analysis of the softmax cost function for learning to rank, 2019.
    """
    name = "ranking_softmax_loss"
    logits, labels = floating(name, "logits", logits), real(name, "labels", labels)
    dtype = logits.dtype
    labels, costs, _ = labels_and_costs(name, logits, labels, where=where)
    if weights is not None:
        weights = real(name, "weights", weights)
        broadcast_shape(name, logits=costs, weights=weights)
        labels = labels * masked(name, where, (0,), weights=weights)[0]
    losses = jnp.sum(product(labels, costs), axis=-1)
    if reduce_fn is None:
        return losses.astype(dtype)
    is_list = None
    if where is not None:
        is_list = jnp.any(class_mask(name, where, costs), axis=-1)
        is_list = is_list | ~jnp.any(is_list)
    return jnp.asarray(reduce_fn(losses, where=is_list)).astype(dtype)
