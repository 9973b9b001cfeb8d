r"""The triplet margin loss: an anchor is to be nearer to the positive than to the negative.

.. math::

    L = \max(0, d(a, p) - d(a, n) + m), \qquad
    d(x, y) = \left(\sum_k |x_k - y_k|^r + \varepsilon\right)^{1 / r}
"""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import axes_of, between, broadcast_shape, floating, widened
from grad_losses._functions import power
from grad_losses._logits import Axis


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32),
    np.array([[0.2, 0.9, 1.5], [-1.1, 0.4, 0.8]], np.float32),
    np.array([[-0.6, 1.2, 0.7], [0.5, -0.3, 1.0]], np.float32),
)
@promises(ranges={"eps": (0, np.inf)})
def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: Axis | None = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
) -> jax.Array:
    """How far anchors are from being nearer to positives than to negatives by the margin.

    Args:
      anchors: Embeddings, of shape [..., features] and floating point dtype.
      positives: Those that should be near, of a shape that broadcasts, of floating point dtype.
      negatives: Those that should be far, likewise.
      axis: The axis of the features, the axes, or None for all axes.
      norm_degree: The degree r of the norm of differences, >= 1 and finite.
      margin: By how much negatives should be farther than positives; a number, or an array that
        broadcasts with the losses.
      eps: Added to the sum under the root, >= 0. With 0 the distance of coincident points has
        gradient 0.

    Returns:
      The losses, of the broadcast shape without `axis`, in the dtype that all three promote to.

    Raises:
      TypeError: If an embedding is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist, or `norm_degree`, `margin` or
        `eps` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import triplet_margin_loss
      >>> anchor, positive = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])
      >>> triplet_margin_loss(anchor, positive, jnp.array([5.5, 0.0])).round(4)
      Array(0.5, dtype=float32)

    Reference:
      Balntas et al., Learning local feature descriptors with triplets and shallow convolutional
      neural networks, 2016; Schroff, Kalenichenko and Philbin, FaceNet, 2015,
      https://arxiv.org/abs/1503.03832.
    """
    name = "triplet_margin_loss"
    between(name, 1, sys.float_info.max, norm_degree=norm_degree)
    between(name, -math.inf, math.inf, margin=margin)
    between(name, 0, math.inf, eps=eps)
    given = {"anchors": anchors, "positives": positives, "negatives": negatives}
    arrays = {each: floating(name, each, value) for each, value in given.items()}
    broadcast_shape(name, **arrays)
    anchor, *others = jnp.broadcast_arrays(*widened(*arrays.values()))
    axes_of(name, axis, "anchors", anchor)
    near, far = (_distance(anchor - other, axis, norm_degree, eps) for other in others)
    return jnp.maximum(0, near - far + margin).astype(jnp.result_type(*arrays.values()))


def _distance(error: jax.Array, axis: Axis | None, degree: ArrayLike, eps: ArrayLike) -> jax.Array:
    # The scale, a constant, cancels; without it powers of large errors would overflow.
    largest = jnp.max(jnp.abs(error), axis=axis, keepdims=True, initial=1.0)
    scale = jax.lax.stop_gradient(largest)
    total = jnp.sum(_power(error / scale, degree), axis=axis, keepdims=True) + eps / scale**degree
    return jnp.squeeze(scale * power(total, 1 / degree), axis)


def _power(error: jax.Array, degree: ArrayLike) -> jax.Array:
    """``abs(error)**degree``; of even degrees without the kink that abs has at 0."""
    if isinstance(degree, int | float) and degree % 2 == 0:
        return error ** int(degree)
    return power(jnp.abs(error), degree)
