r"""The cross entropy of a softmax with one class per example, and what is added to it.

With log probabilities :math:`\log p_k = z_k - \log Z`, label y and class weights w:

.. math::

    (1 - \epsilon)\, w_y (-\log p_y) + \frac{\epsilon}{K} \sum_k w_k (-\log p_k)
    + \zeta (\log Z)^2
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import between, one_per_class
from grad_losses._logits import less_peak, log_normalizer, peak, pick, product


class CrossEntropyOptions(NamedTuple):
    """What is added to the cross entropy; None, where nothing is."""

    label_smoothing: ArrayLike | None
    class_weights: jax.Array | None
    ignore_index: ArrayLike | None
    z_loss: ArrayLike | None


def cross_entropy_options(
    loss: str,
    logits: jax.Array,
    label_smoothing: ArrayLike,
    class_weights: ArrayLike | None,
    ignore_index: int | None,
    z_loss: ArrayLike,
) -> CrossEntropyOptions:
    """The options that a user passed to `loss`, checked for logits in the dtype to compute in."""
    between(loss, 0, 1, label_smoothing=label_smoothing)
    between(loss, 0, math.inf, z_loss=z_loss)
    if class_weights is not None:
        class_weights = one_per_class(loss, "class_weights", class_weights, logits)
    if ignore_index is not None and not _is_index(ignore_index):
        raise TypeError(f"{loss}: ignore_index must be an integer or None; got {ignore_index!r}.")
    return CrossEntropyOptions(
        _unless_zero(label_smoothing), class_weights, ignore_index, _unless_zero(z_loss)
    )


def integer_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    options: CrossEntropyOptions,
    mask: jax.Array | None = None,
) -> jax.Array:
    """The losses [...] of logits [..., classes], in the dtype to compute in, and labels [...]."""
    free = jnp.bool_(False) if mask is None else ~jnp.any(mask, axis=-1)
    if options.ignore_index is not None:
        free |= labels == options.ignore_index
        labels = jnp.where(labels == options.ignore_index, 0, labels)
    included = logits if mask is None else jnp.where(mask, logits, -jnp.inf)
    largest = peak(included, -1)
    scores = less_peak(included, largest)
    log_z, largest = log_normalizer(scores, -1)[..., 0], largest[..., 0]

    loss = log_z - less_peak(pick(logits, labels), largest)
    if options.class_weights is not None:
        loss = product(weights_of(labels, options.class_weights), loss)
    if options.label_smoothing is not None:
        smoothing = jnp.asarray(options.label_smoothing, logits.dtype)
        spread = _mean_over_classes(log_z, scores, mask, options.class_weights)
        loss = product(1 - smoothing, loss) + product(smoothing, spread)
    if options.z_loss is not None:
        loss = loss + options.z_loss * jnp.square(log_z + largest)
    return jnp.where(free, 0, loss)


def weights_of(labels: jax.Array, class_weights: jax.Array) -> jax.Array:
    """The weight of each label; NaN for those that are no class."""
    return class_weights.at[labels].get(mode="fill", fill_value=jnp.nan)


def _mean_over_classes(
    log_z: jax.Array, scores: jax.Array, mask: jax.Array | None, weights: jax.Array | None
) -> jax.Array:
    """The mean of ``weights * -log(p)`` over the classes that take part."""
    if mask is None and weights is None:
        return log_z - jnp.mean(scores, axis=-1)
    count = scores.shape[-1] if mask is None else jnp.maximum(jnp.sum(mask, axis=-1), 1)
    weights = jnp.ones((), scores.dtype) if weights is None else weights
    weights = weights if mask is None else jnp.where(mask, weights, 0)
    return jnp.sum(product(weights, log_z[..., None] - scores), axis=-1) / count


def _unless_zero(value: ArrayLike) -> ArrayLike | None:
    return None if isinstance(value, int | float) and value == 0 else value


def _is_index(value: object) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return is_number or jnp.issubdtype(jnp.asarray(value).dtype, jnp.integer)
