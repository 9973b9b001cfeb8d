"""What losses of ranked lists share: checks, differences of logits, gains of relevance."""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core.numerics import safe_divide
from grad_losses._checks import ShapeError, floating, real, same_shape, widened
from grad_losses._logits import class_mask, peak


def ranked_lists(
    loss: str, logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array, jnp.dtype]:
    """Logits and labels to compute with, the mask, all of shape [..., items]; dtype to return.

    Items that take no part have logit and label 0.
    """
    logits, labels = floating(loss, "logits", logits), real(loss, "labels", labels)
    same_shape(loss, logits=logits, labels=labels)
    if logits.ndim == 0:
        raise ShapeError(f"{loss}: logits must have an axis of items, the last; got shape ().")
    mask = class_mask(loss, where, logits)
    wide = widened(logits, labels)
    return jnp.where(mask, wide[0], 0), jnp.where(mask, wide[1], 0), mask, logits.dtype


def pairs(of_items: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What belongs to i and to j of each pair [..., i, j] of items."""
    return of_items[..., :, None], of_items[..., None, :]


def differences(logits: jax.Array) -> jax.Array:
    """``logits[i] - logits[j]`` for each pair [..., i, j]; equal infinities differ by 0."""
    first, second = pairs(logits)
    is_tie = jnp.isinf(first) & (first == second)
    return jnp.where(is_tie, 0, jnp.where(is_tie, 0, first) - jnp.where(is_tie, 0, second))


def ranks(scores: jax.Array, mask: jax.Array) -> jax.Array:
    """The rank 1, 2, ... of each item by falling score, ties in the order given; not derived."""
    items = jnp.arange(scores.shape[-1])
    score, other_score = pairs(scores)
    is_before = (other_score > score) | ((other_score == score) & (items < items[:, None]))
    count = jnp.sum(is_before & mask[..., None, :], axis=-1)
    return (1 + count).astype(scores.dtype)


def gains(labels: jax.Array, mask: jax.Array) -> jax.Array:
    """The gain ``2**label - 1`` of each item, as a share of the best possible DCG of its list.

    The gains, discounted at any ranks, then sum to the NDCG; in lists without relevance to 0.
    """
    # All are divided by 2**largest, so that large labels do not overflow.
    largest = peak(jnp.where(mask, labels, -jnp.inf), -1)
    raw = jnp.exp2(labels - largest) * -jnp.expm1(-math.log(2) * labels)
    best = jnp.sum(raw * discounts(ranks(labels, mask)), axis=-1, keepdims=True, where=mask)
    return jnp.where(mask, safe_divide(raw, best), 0)


def discounts(ranks: jax.Array) -> jax.Array:
    """What a gain counts at a rank 1, 2, ...: ``1 / log2(1 + rank)``."""
    return 1 / jnp.log2(1 + ranks)
