"""What losses of a softmax with one class per example share, beyond the cross entropy itself."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import axes_of, floating, integer, one_per_class, widened
from grad_losses._dense import surprisals
from grad_losses._logits import Axis, class_indices, class_mask, classes_last, pick
from grad_losses._scores import known, one_hot


class Labelled(NamedTuple):
    """Examples with a class each, to compute with.

    Attributes:
      logits: Of shape [..., classes], -inf for classes that take no part.
      labels: Of shape [...], classes all.
      takes_part: Of which examples any class takes part; the others cost 0.
      is_known: Which examples cost 0 or have a label that is a class; the others cost NaN.
      dtype: The dtype to return.
    """

    logits: jax.Array
    labels: jax.Array
    takes_part: jax.Array
    is_known: jax.Array
    dtype: jnp.dtype

    def settled(self, losses: jax.Array) -> jax.Array:
        """The losses, but 0 or NaN as the attributes say, in the dtype to return."""
        losses = jnp.where(self.takes_part, losses, 0)
        return jnp.where(self.is_known, losses, jnp.nan).astype(self.dtype)


def logits_and_labels(
    loss: str, logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None
) -> Labelled:
    """The arguments of `loss`, checked."""
    logits = floating(loss, "logits", logits)
    labels = integer(loss, "labels", labels, "Convert one-hot labels with labels.argmax.")
    dtype, axes = logits.dtype, axes_of(loss, axis, "logits", logits)
    mask = classes_last(loss, class_mask(loss, where, logits), axes)
    logits = classes_last(loss, widened(logits)[0], axes)
    labels, is_class = known(logits, class_indices(loss, labels, logits))
    takes_part = jnp.any(mask, axis=-1)
    return Labelled(
        jnp.where(mask, logits, -jnp.inf),
        labels,
        takes_part,
        is_class | ~takes_part,
        dtype,
    )


def costs_of_labels(
    loss: str, logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[jax.Array, Labelled]:
    """``-log_softmax(logits)`` of the labels, 0 where no class takes part; and the arguments."""
    given = logits_and_labels(loss, logits, labels, axis, where)
    costs = pick(surprisals(given.logits, -1), given.labels)
    return jnp.where(given.takes_part, costs, 0), given


def weights_of_labels(
    loss: str, class_weights: ArrayLike | None, logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """The weights of the labels, from the argument `class_weights` of `loss`; 1 with None."""
    if class_weights is None:
        return jnp.ones(())
    weights = one_per_class(loss, "class_weights", class_weights, logits)
    # No gather: those of sharded labels ask for a sharding.
    return jnp.sum(jnp.where(one_hot(logits, labels), weights, 0), axis=-1)
