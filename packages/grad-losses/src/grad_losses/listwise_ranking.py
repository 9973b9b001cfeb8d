r"""Listwise ranking losses: ListMLE, and NDCG with ranks made smooth.

For a list of items with logits z and relevances y,

.. math::

    \mathrm{listmle} &= \sum_i \log\Big(1 + \sum_{y_j < y_i} e^{z_j - z_i}\Big) \\
    \mathrm{approxndcg} &= 1 - \frac1{\text{best DCG}} \sum_i \frac{2^{y_i} - 1}{\log_2(1 + r_i)},
    \qquad r_i = 1 + \sum_{j \ne i} \sigma\Big(\frac{z_j - z_i}{\tau}\Big)

Where no relevances are equal, the first is the negative logarithm of the probability that items
drawn one after the other, by a softmax over those left, come in the order of relevance.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example
from grad_losses._checks import positive
from grad_losses._ranking import differences, discounts, gains, pairs, ranked_lists, ranks

_LOGITS = np.array([[0.5, -1.0, 2.0, 0.1], [1.0, 0.2, -0.3, 0.6]], np.float32)
_RELEVANCES = np.array([[1, 0, 2, 3], [0, 2, 1, 0]])


@example(_LOGITS, _RELEVANCES)
def listmle_loss(
    logits: ArrayLike, labels: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """ListMLE: the negative log likelihood of the order of relevance, under Plackett and Luce.

    Items of the same relevance do not compete: each has to win against the less relevant ones only.
    So the loss depends on no order within ties, and is 0 where all items are equally relevant.

    Args:
      logits: The scores of the items, higher for what should come first, of shape [..., items] and
        floating point dtype.
      labels: Their relevances, of the same shape and any real dtype; only their order matters.
      where: Which items are in the list, booleans that broadcast with `logits`; all with None.
        Lists of different lengths are padded, and masked with it.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import listmle_loss
      >>> listmle_loss(jnp.zeros((2, 3)), jnp.array([[3, 1, 2], [1, 1, 1]])).round(3)
      Array([1.792, 0.   ], dtype=float32)

    Reference:
      Xia et al., Listwise approach to learning to rank: Theory and algorithm, 2008, section 4.2.
    """
    logits, labels, mask, dtype = ranked_lists("listmle_loss", logits, labels, where)
    label, other_label = pairs(labels)
    taken, other_taken = pairs(mask)
    is_below = taken & other_taken & (other_label < label)
    itself = jnp.eye(labels.shape[-1], dtype=bool)
    exponents = jnp.where(is_below, -differences(logits), jnp.where(itself, 0, -jnp.inf))
    return jnp.sum(jax.nn.logsumexp(exponents, axis=-1), axis=-1).astype(dtype)


@example(_LOGITS, _RELEVANCES)
def approx_ndcg_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """ApproxNDCG: 1 less the NDCG of ranks that count items before by sigmoids.

    As the temperature goes to 0 it becomes 1 - NDCG, where items of the same logit share the mean
    of their ranks.

    Args:
      logits: The scores of the items, higher for what should come first, of shape [..., items] and
        floating point dtype.
      labels: Their relevances >= 0, of the same shape and any real dtype; the gains are
        2**label - 1.
      temperature: The number > 0, or array of shape (), that differences of logits are divided by.
      where: Which items are in the list, booleans that broadcast with `logits`; all with None.
        Lists of different lengths are padded, and masked with it.

    Returns:
      The losses, of shape [...] and the dtype of `logits`; 0 for lists without a relevant item.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit, `where` is not boolean or `temperature` not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import approx_ndcg_loss
      >>> approx_ndcg_loss(jnp.array([[9.0, 5.0], [5.0, 9.0]]), jnp.array([[1, 0]] * 2)).round(4)
      Array([0.    , 0.3691], dtype=float32)

    Reference:
      Qin, Liu and Li, A general approximation framework for direct optimization of information
      retrieval measures, 2010, section 4.
    """
    name = "approx_ndcg_loss"
    positive(name, temperature=temperature)
    logits, labels, mask, dtype = ranked_lists(name, logits, labels, where)
    is_other = mask[..., None, :] & ~jnp.eye(labels.shape[-1], dtype=bool)
    is_before = jax.nn.sigmoid(-differences(logits) / temperature)
    smooth_ranks = 1 + jnp.sum(is_before, axis=-1, where=is_other)
    # Term by term, so that lists in the best order cost 0, and not a rounding error.
    lost = discounts(ranks(labels, mask)) - discounts(smooth_ranks)
    return jnp.sum(gains(labels, mask) * lost, axis=-1).astype(dtype)
