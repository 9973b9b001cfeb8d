"""What losses of logits and dense labels share: checks, and the cost of each class."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import axes_of, broadcast_shape, floating, real, widened
from grad_losses._logits import Axis, class_mask, less_peak, log_normalizer, peak


def labels_and_costs(
    loss: str,
    logits: ArrayLike,
    labels: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Labels and ``-log_softmax(logits)``, to compute with and of one shape; the dtype to return.

    Classes that take no part have label 0 and infinite cost.
    """
    logits, labels = floating(loss, "logits", logits), real(loss, "labels", labels)
    dtype = jnp.result_type(logits, labels)
    broadcast_shape(loss, logits=logits, labels=labels)
    logits, labels = jnp.broadcast_arrays(*widened(logits, labels))
    axes_of(loss, axis, "logits", logits)
    if where is not None:
        mask = class_mask(loss, where, logits)
        logits, labels = jnp.where(mask, logits, -math.inf), jnp.where(mask, labels, 0)
    return labels, surprisals(logits, axis), dtype


def surprisals(logits: jax.Array, axis: Axis | None) -> jax.Array:
    """``-log_softmax(logits)``, in the limit where logits are infinite."""
    logits = less_peak(logits, peak(logits, axis))
    return log_normalizer(logits, axis) - logits
