r"""Pairwise ranking losses: of two items, the more relevant should have the higher logit.

For a list of items with logits z and relevances y, summed over all pairs (i, j) with y_i > y_j,

.. math::

    L = \sum_{y_i > y_j} w_{ij}\,\phi(z_i - z_j), \qquad
    \phi_\mathrm{logistic}(d) = \log(1 + e^{-d}), \quad
    \phi_\mathrm{hinge}(d) = \max(0, m - d)

The weights w are 1, or those of LambdaRank: how much the NDCG of the list would change if the two
items changed places in the present ranking. With the ranks r,

.. math::

    w_{ij} = \frac{|2^{y_i} - 2^{y_j}|}{\text{best DCG}}
        \left|\frac1{\log_2(1 + r_i)} - \frac1{\log_2(1 + r_j)}\right|
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example
from grad_losses._checks import between
from grad_losses._ranking import differences, discounts, gains, pairs, ranked_lists, ranks

_LOGITS = np.array([[0.5, -1.0, 2.0, 0.1], [1.0, 0.2, -0.3, 0.6]], np.float32)
_RELEVANCES = np.array([[1, 0, 2, 3], [0, 2, 1, 0]])


@example(_LOGITS, _RELEVANCES)
def pairwise_logistic_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    ndcg_weights: bool = False,
) -> jax.Array:
    """RankNet, or with NDCG weights LambdaRank: logistic losses of all pairs in the wrong order.

    Args:
      logits: The scores of the items, higher for what should come first, of shape [..., items] and
        floating point dtype.
      labels: Their relevances, of the same shape and any real dtype; >= 0 for NDCG weights. Items
        of the same relevance are no pair.
      where: Which items are in the list, booleans that broadcast with `logits`; all with None.
        Lists of different lengths are padded, and masked with it.
      ndcg_weights: Whether pairs are weighted with the change of NDCG (LambdaRank). The weights
        are constants in derivatives. Items of the same logit are ranked in the order given.

    Returns:
      The losses, of shape [...] and the dtype of `logits`: sums over pairs, 0 if there is none.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import pairwise_logistic_loss
      >>> pairwise_logistic_loss(jnp.zeros((2, 3)), jnp.array([[0, 1, 1], [0, 0, 0]])).round(4)
      Array([1.3863, 0.    ], dtype=float32)

    Reference:
      Burges, From RankNet to LambdaRank to LambdaMART: An overview, 2010, sections 2 and 4.
    """
    name = "pairwise_logistic_loss"
    return _pairwise_loss(name, logits, labels, where, ndcg_weights, lambda d: jax.nn.softplus(-d))


@example(_LOGITS, _RELEVANCES)
def pairwise_hinge_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    where: ArrayLike | None = None,
    ndcg_weights: bool = False,
) -> jax.Array:
    """Ranking SVM: how much the logits of all pairs lack to be a margin apart.

    Args:
      logits: The scores of the items, higher for what should come first, of shape [..., items] and
        floating point dtype.
      labels: Their relevances, of the same shape and any real dtype; >= 0 for NDCG weights. Items
        of the same relevance are no pair.
      margin: A number, or array of shape ().
      where: Which items are in the list, booleans that broadcast with `logits`; all with None.
        Lists of different lengths are padded, and masked with it.
      ndcg_weights: Whether pairs are weighted with the change of NDCG, as in
        `pairwise_logistic_loss`.

    Returns:
      The losses, of shape [...] and the dtype of `logits`: sums over pairs, 0 if there is none.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If shapes do not fit or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import pairwise_hinge_loss
      >>> pairwise_hinge_loss(jnp.array([0.0, 0.75, 3.0]), jnp.array([0, 1, 1]))
      Array(0.25, dtype=float32)

    Reference:
      Herbrich, Graepel and Obermayer, Large margin rank boundaries for ordinal regression, 2000.
    """
    name = "pairwise_hinge_loss"
    between(name, -math.inf, math.inf, margin=margin)
    return _pairwise_loss(
        name, logits, labels, where, ndcg_weights, lambda d: jnp.maximum(margin - d, 0)
    )


def _pairwise_loss(
    loss: str,
    logits: ArrayLike,
    labels: ArrayLike,
    where: ArrayLike | None,
    ndcg_weights: bool,
    phi: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    logits, labels, mask, dtype = ranked_lists(loss, logits, labels, where)
    label, other_label = pairs(labels)
    taken, other_taken = pairs(mask)
    is_pair = taken & other_taken & (label > other_label)
    costs = phi(differences(logits))
    if ndcg_weights:
        costs *= _changes_of_ndcg(logits, labels, mask)
    return jnp.sum(jnp.where(is_pair, costs, 0), axis=(-2, -1)).astype(dtype)


def _changes_of_ndcg(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> jax.Array:
    """By how much the NDCG changes if items change places, for all pairs [..., i, j]."""
    gain, other_gain = pairs(gains(labels, mask))
    discount, other_discount = pairs(discounts(ranks(logits, mask)))
    return jnp.abs((gain - other_gain) * (discount - other_discount))
