r"""Self-supervised losses without negatives: features agree between views, and not with each other.

Z and Z' are embeddings of two views of n examples, with d features. Barlow Twins looks at the
correlations C between the features of the one and of the other; VICReg at the covariances Cov of
either, whose diagonals are the variances:

.. math::

    \mathrm{barlow} &= \sum_i (1 - C_{ii})^2 + \lambda \sum_{i \ne j} C_{ij}^2 \\
    \mathrm{vicreg} &= \lambda \frac{\|Z - Z'\|^2}{n d} + \mu\,(v(Z) + v(Z')) + \nu\,(c(Z) + c(Z'))
    \\
    v(Z) &= \frac1d \sum_i \max\Big(0, \gamma - \sqrt{\mathrm{Cov}(Z)_{ii} + \epsilon}\Big), \qquad
    c(Z) = \frac1d \sum_{i \ne j} \mathrm{Cov}(Z)_{ij}^2
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_core.numerics import safe_sqrt
from grad_losses._checks import between
from grad_losses._embeddings import embedding_matrices, matrix_product
from grad_losses._vectors import centered, unit

_FIRST = np.array(
    [[0.5, -1.0, 2.0], [1.0, 0.2, 0.3], [-0.7, 0.4, 1.1], [0.1, 0.6, 0.7]], np.float32
)
_SECOND = np.array(
    [[0.3, -0.6, 1.5], [0.8, 0.9, 0.4], [-0.2, 1.0, 0.6], [0.4, 0.1, 1.3]], np.float32
)


@example(_FIRST, _SECOND)
@promises(per="batch")
def barlow_twins_loss(
    first: ArrayLike,
    second: ArrayLike,
    *,
    redundancy_weight: ArrayLike = 5e-3,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Barlow Twins: how far the correlations between two views' features are from the identity.

    It is a loss of the batch as a whole: correlations are over examples.

    Args:
      first: Embeddings of shape [batch, features] and floating point dtype. Features that are the
        same in all examples have correlation 0 with all others.
      second: Embeddings of the same shape, of other views of the same examples.
      redundancy_weight: The weight >= 0 of correlations between different features, the lambda of
        the paper.
      where: Which examples take part, booleans of shape [batch]; all with None.

    Returns:
      The loss, of shape (), in the dtype that the embeddings promote to.

    Raises:
      TypeError: If the embeddings are not floating point.
      ValueError: If shapes do not fit, `where` is not boolean or the weight is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import barlow_twins_loss
      >>> x = jnp.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
      >>> barlow_twins_loss(x, 2 * x)
      Array(1., dtype=float32)

    Reference:
      Zbontar et al., Barlow Twins: Self-supervised learning via redundancy reduction, 2021,
      equations 1 and 2, https://arxiv.org/abs/2103.03230
    """
    name = "barlow_twins_loss"
    between(name, 0, math.inf, redundancy_weight=redundancy_weight)
    (first, second), mask, dtype = embedding_matrices(name, where, first=first, second=second)
    first, second = (
        unit(centered(array, mask[:, None], axis=0), axis=0) for array in (first, second)
    )
    correlations = matrix_product(first.T, second)
    own = jnp.eye(correlations.shape[0], dtype=bool)
    terms = jnp.where(own, (1 - correlations) ** 2, redundancy_weight * correlations**2)
    return jnp.sum(terms).astype(dtype)


@example(_FIRST, _SECOND)
@promises(per="batch")
def vicreg_loss(
    first: ArrayLike,
    second: ArrayLike,
    *,
    invariance_weight: ArrayLike = 25.0,
    variance_weight: ArrayLike = 25.0,
    covariance_weight: ArrayLike = 1.0,
    deviation: ArrayLike = 1.0,
    epsilon: ArrayLike = 1e-4,
    where: ArrayLike | None = None,
) -> jax.Array:
    """VICReg: views agree (invariance), features vary (variance), and not together (covariance).

    It is a loss of the batch as a whole. With two of the three weights 0 it is one of its terms.
    The first term is divided by the number of features as in the paper's algorithm 1, for which its
    weights are meant; equation 5 is not. The authors' program also halves the second term: for its
    numbers take half of `variance_weight`.

    Args:
      first: Embeddings of shape [batch, features] and floating point dtype.
      second: Embeddings of the same shape, of other views of the same examples.
      invariance_weight: The weight of the mean squared difference between views.
      variance_weight: The weight of what standard deviations lack to `deviation`.
      covariance_weight: The weight of squared covariances between different features.
      deviation: The standard deviation that each feature should have at least.
      epsilon: The number >= 0 added to variances, that bounds the slopes of their roots.
      where: Which examples take part, booleans of shape [batch]; all with None. Variances and
        covariances are divided by their number less 1 (but at least 1).

    Returns:
      The loss, of shape (), in the dtype that the embeddings promote to.

    Raises:
      TypeError: If the embeddings are not floating point.
      ValueError: If shapes do not fit, `where` is not boolean, or a number is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import vicreg_loss
      >>> x = jnp.array([[2.0, 0.0], [-2.0, 0.0]])
      >>> vicreg_loss(x, x, epsilon=0.0)
      Array(25., dtype=float32)

    Reference:
      Bardes, Ponce and LeCun, VICReg: Variance-invariance-covariance regularization for
      self-supervised learning, 2022, equations 1 to 6, https://arxiv.org/abs/2105.04906
    """
    name = "vicreg_loss"
    between(
        name,
        0,
        math.inf,
        invariance_weight=invariance_weight,
        variance_weight=variance_weight,
        covariance_weight=covariance_weight,
        deviation=deviation,
        epsilon=epsilon,
    )
    (first, second), mask, dtype = embedding_matrices(name, where, first=first, second=second)
    count = jnp.sum(mask)
    own = jnp.eye(first.shape[1], dtype=bool)
    features = max(first.shape[1], 1)

    invariance = jnp.sum((first - second) ** 2) / (jnp.maximum(count, 1) * features)
    variance = covariance = jnp.zeros((), first.dtype)
    for view in (first, second):
        deviations = centered(view, mask[:, None], axis=0)
        products = matrix_product(deviations.T, deviations) / jnp.maximum(count - 1, 1)
        spread = safe_sqrt(jnp.diagonal(products) + epsilon)
        variance += jnp.sum(jnp.maximum(deviation - spread, 0)) / features
        covariance += jnp.sum(jnp.where(own, 0, products**2)) / features
    loss = invariance * invariance_weight + variance * variance_weight
    return (loss + covariance * covariance_weight).astype(dtype)
