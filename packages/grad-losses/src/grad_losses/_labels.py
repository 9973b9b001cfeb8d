"""What losses of a softmax with one class per example share, beyond the cross entropy itself."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import axes_of, floating, integer, one_per_class, widened
from grad_losses._dense import surprisals
from grad_losses._logits import Axis, class_indices, class_mask, classes_last, pick
from grad_losses._scores import one_hot


def logits_and_labels(
    loss: str, logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array, jnp.dtype]:
    """Logits [..., classes] to compute with, labels [...], which take part, the dtype to return.

    Classes that take no part have a logit of -inf, examples that take part have any that does.
    """
    logits = floating(loss, "logits", logits)
    labels = integer(loss, "labels", labels, "Convert one-hot labels with labels.argmax.")
    dtype, axes = logits.dtype, axes_of(loss, axis, "logits", logits)
    mask = classes_last(loss, class_mask(loss, where, logits), axes)
    logits = classes_last(loss, widened(logits)[0], axes)
    labels = class_indices(loss, labels, logits)
    return jnp.where(mask, logits, -jnp.inf), labels, jnp.any(mask, axis=-1), dtype


def costs_of_labels(
    loss: str, logits: ArrayLike, labels: ArrayLike, axis: Axis, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array, jnp.dtype]:
    """``-log_softmax(logits)`` of the labels, 0 for examples that take no part.

    With it logits, labels and dtype as from `logits_and_labels`.
    """
    logits, labels, takes_part, dtype = logits_and_labels(loss, logits, labels, axis, where)
    costs = pick(surprisals(logits, -1), labels)
    return jnp.where(takes_part, costs, 0), logits, labels, dtype


def weights_of_labels(
    loss: str, class_weights: ArrayLike | None, logits: jax.Array, labels: jax.Array
) -> jax.Array:
    """The weights of the labels, from the argument `class_weights` of `loss`; 1 with None."""
    if class_weights is None:
        return jnp.ones(())
    weights = one_per_class(loss, "class_weights", class_weights, logits)
    # No gather: those of sharded labels ask for a sharding.
    return jnp.sum(jnp.where(one_hot(logits, labels), weights, 0), axis=-1)
