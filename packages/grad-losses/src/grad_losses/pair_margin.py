r"""Margin losses of pairs and triplets: what belongs together is to be nearer, or ranked higher.

With a target t of 1 or -1, a margin m, and a distance d:

.. math::

    \mathrm{ranking}(x_1, x_2, t) &= \max(0, m - t (x_1 - x_2)) \\
    \mathrm{hinge}(d, t) &= d \text{ where } t = 1, \quad \max(0, m - d) \text{ where } t = -1 \\
    \mathrm{cosine}(u, v, t) &= 1 - \cos(u, v) \text{ where } t = 1, \quad
        \max(0, \cos(u, v) - m) \text{ where } t = -1 \\
    \mathrm{triplet}(a, p, n) &= \max(0, d(a, p) - d(a, n) + m)

Where pieces meet, gradients are the mean of those of the pieces.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example
from grad_core.numerics import safe_norm
from grad_losses._checks import ShapeError, axes_of, between, floating, real, same_shape, widened
from grad_losses.cosine import cosine_distance, cosine_similarity

_FIRST = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_SECOND = np.array([[0.2, 0.9, 1.5], [-1.1, 0.4, 0.8]], np.float32)
_THIRD = np.array([[-0.6, 1.2, 0.7], [0.5, -0.3, 1.0]], np.float32)
_TARGETS = np.array([1, -1])


@example(_FIRST, _SECOND, np.array([[1, 1, -1], [-1, 1, 1]]), margin=0.1)
def margin_ranking_loss(
    first: ArrayLike, second: ArrayLike, targets: ArrayLike, *, margin: ArrayLike = 0.0
) -> jax.Array:
    """How far the score that should be higher is from being so by the margin, elementwise.

    Args:
      first: Scores, of any shape and floating point dtype.
      second: Those to compare with, of the same shape, of any real dtype.
      targets: 1 where the first should be higher, -1 where the second, of the same shape and any
        real dtype.
      margin: By how much; a number, or an array that broadcasts.

    Returns:
      The losses, of that shape, in the dtype that both scores promote to.

    Raises:
      TypeError: If `first` is not floating point.
      ValueError: If the shapes differ, or `margin` is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import margin_ranking_loss
      >>> first, second = jnp.array([3.0, 3.0]), jnp.array([1.0, 1.0])
      >>> margin_ranking_loss(first, second, jnp.array([1, -1]), margin=0.5)
      Array([0. , 2.5], dtype=float32)

    Reference:
      Herbrich, Graepel and Obermayer, Large margin rank boundaries for ordinal regression, 2000.
    """
    name = "margin_ranking_loss"
    between(name, -math.inf, math.inf, margin=margin)
    first, second = floating(name, "first", first), real(name, "second", second)
    targets = real(name, "targets", targets)
    same_shape(name, first=first, second=second, targets=targets)
    dtype = jnp.result_type(first, second)
    first, second, targets = widened(first, second, targets)
    return jnp.maximum(0, margin - targets * (first - second)).astype(dtype)


@example(np.array([0.5, 0.2, 2.0], np.float32), np.array([1, -1, 1]))
def hinge_embedding_loss(
    distances: ArrayLike, targets: ArrayLike, *, margin: ArrayLike = 1.0
) -> jax.Array:
    """The distance of what is alike, and by how much what is not alike is too near, elementwise.

    Args:
      distances: Of any shape and floating point dtype.
      targets: 1 for pairs that are alike, -1 for others, of the same shape and any real dtype.
      margin: The distance at which pairs that are not alike are far enough apart; a number, or an
        array that broadcasts.

    Returns:
      The losses, of that shape, in the dtype of `distances`.

    Raises:
      TypeError: If `distances` is not floating point.
      ValueError: If the shapes differ, or `margin` is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import hinge_embedding_loss
      >>> hinge_embedding_loss(jnp.array([0.25, 0.25, 3.0]), jnp.array([1, -1, -1]))
      Array([0.25, 0.75, 0.  ], dtype=float32)

    Reference:
      Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant mapping, 2006,
      without its squares.
    """
    name = "hinge_embedding_loss"
    between(name, -math.inf, math.inf, margin=margin)
    distances, targets = floating(name, "distances", distances), real(name, "targets", targets)
    same_shape(name, distances=distances, targets=targets)
    (wide,) = widened(distances)
    loss = jnp.where(targets > 0, wide, jnp.maximum(0, margin - wide))
    return loss.astype(distances.dtype)


@example(_FIRST, _SECOND, _TARGETS, margin=-0.9)
def cosine_embedding_loss(
    first: ArrayLike,
    second: ArrayLike,
    targets: ArrayLike,
    *,
    margin: ArrayLike = 0.0,
    axis: int = -1,
) -> jax.Array:
    """1 - cos of the angle between vectors that are alike, and max(0, cos - margin) of others.

    Args:
      first: Vectors, of shape [..., features] and floating point dtype.
      second: Vectors of the same shape, of any real dtype.
      targets: 1 for pairs that are alike, -1 for others, of that shape without `axis`, of any real
        dtype.
      margin: The cosine, from -1 to 1, that pairs that are not alike may have; a number, or an
        array that broadcasts.
      axis: The axis of the features.

    Returns:
      The losses, of that shape without `axis`, in the dtype that both vectors promote to. The
      cosine with a vector of zeros is 0, and so is its gradient.

    Raises:
      TypeError: If `first` is not floating point.
      ValueError: If the shapes do not fit, or `margin` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import cosine_embedding_loss
      >>> first, second = jnp.ones((2, 2)), jnp.array([[3.0, 3.0], [3.0, 0.0]])
      >>> cosine_embedding_loss(first, second, jnp.array([1, -1]), margin=0.5).round(2)
      Array([0.  , 0.21], dtype=float32)

    Reference:
      Chopra, Hadsell and LeCun, Learning a similarity metric discriminatively, with application to
      face verification, 2005, of which it is a variant.
    """
    name = "cosine_embedding_loss"
    between(name, -1, 1, margin=margin)
    first, second = floating(name, "first", first), real(name, "second", second)
    targets = real(name, "targets", targets)
    same_shape(name, first=first, second=second)
    dtype = jnp.result_type(first, second)
    axes_of(name, axis, "first", first)
    wide = widened(first, second)
    distances = cosine_distance(*wide, axis=axis)
    if targets.shape != distances.shape:
        raise ShapeError(
            f"{name}: targets of shape {targets.shape} must have one value for each pair of first "
            f"and second of shape {first.shape}: shape {distances.shape}."
        )
    cosines = cosine_similarity(*wide, axis=axis)
    loss = jnp.where(targets > 0, distances, jnp.maximum(0, cosines - margin))
    return loss.astype(dtype)


def _euclidean(first: jax.Array, second: jax.Array) -> jax.Array:
    """The Euclidean distance along the last axis, with gradient 0 where it is 0."""
    return safe_norm(first - second, 0.0, axis=-1)


@example(_FIRST, _SECOND, _THIRD, swap=True)
def triplet_margin_with_distance_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    distance: Callable[[jax.Array, jax.Array], ArrayLike] = _euclidean,
    margin: ArrayLike = 1.0,
    swap: bool = False,
) -> jax.Array:
    """How far anchors are from being nearer to positives than to negatives, by any distance.

    `triplet_margin_loss` is that of norms.

    Args:
      anchors: Embeddings, of shape [..., features] and floating point dtype.
      positives: Those that should be near, of the same shape and any real dtype.
      negatives: Those that should be far, likewise.
      distance: Gives the distances of two arrays of embeddings, in at least float32; the Euclidean
        one along the last axis, unless another is given.
      margin: By how much negatives should be farther than positives; a number, or an array that
        broadcasts with the losses.
      swap: Whether the distance of negatives is taken from the positive if that is nearer to them
        than the anchor.

    Returns:
      The losses, of the shape of the distances, in the dtype that all three promote to.

    Raises:
      TypeError: If `anchors` is not floating point.
      ValueError: If the shapes differ, or `margin` is NaN.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import triplet_margin_with_distance_loss
      >>> anchor, positive, negative = jnp.array([[0.0, 0.0], [3.0, 4.0], [5.5, 0.0]])
      >>> triplet_margin_with_distance_loss(
      ...     anchor, positive, negative, distance=lambda x, y: jnp.abs(x - y).max()
      ... )
      Array(0., dtype=float32)

    Reference:
      Balntas et al., Learning local feature descriptors with triplets and shallow convolutional
      neural networks, 2016.
    """
    name = "triplet_margin_with_distance_loss"
    between(name, -math.inf, math.inf, margin=margin)
    anchors = floating(name, "anchors", anchors)
    positives, negatives = real(name, "positives", positives), real(name, "negatives", negatives)
    same_shape(name, anchors=anchors, positives=positives, negatives=negatives)
    dtype = jnp.result_type(anchors, positives, negatives)
    anchor, near, far = widened(anchors, positives, negatives)
    to_negative = jnp.asarray(distance(anchor, far))
    if swap:
        to_negative = jnp.minimum(to_negative, distance(near, far))
    return jnp.maximum(0, distance(anchor, near) - to_negative + margin).astype(dtype)
