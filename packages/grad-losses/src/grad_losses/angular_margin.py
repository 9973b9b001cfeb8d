r"""Losses of cosines with a margin: ArcFace, CosFace and circle loss.

With the cosine :math:`c_j = \cos\theta_j` of an embedding with the weights of class j, y the class
of the example, a scale s and a margin m, the first two are the softmax cross entropy of
:math:`s\,c_j`, in which that of the class is replaced:

.. math::

    \mathrm{arcface}: s \cos(\theta_y + m), \qquad \mathrm{cosface}: s\,(\cos\theta_y - m)

The circle loss weighs each cosine by how far it is from its optimum, 1 + m for positives (P) and -m
for negatives (N), and counts the weights as constants in derivatives:

.. math::

    \mathrm{circle} = \log\Big(1 + \sum_{n \in N} e^{s\,[c_n + m]_+ (c_n - m)}
        \sum_{p \in P} e^{-s\,[1 + m - c_p]_+ (c_p - 1 + m)}\Big)
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, exempt, promises
from grad_core.numerics import safe_sqrt
from grad_losses._checks import between, floating, same_shape, widened
from grad_losses._logits import class_mask, log_normalizer, peak
from grad_losses._scores import one_hot, scores_and_labels
from grad_losses.classification import softmax_cross_entropy_with_integer_labels

_COSINES = np.array([[0.5, -0.9, 0.2], [0.1, 0.7, -0.3], [-0.4, 0.3, 0.8]], np.float32)


@example(_COSINES, np.array([0, 1, 0]))
@promises(ranges={"cosines": (-1, 1)})
def arcface_loss(
    cosines: ArrayLike, labels: ArrayLike, *, margin: ArrayLike = 0.5, scale: ArrayLike = 64.0
) -> jax.Array:
    """ArcFace: a softmax cross entropy of cosines, with a margin added to the angle of the class.

    Args:
      cosines: Of the angles between embeddings and the weights of classes, of shape
        [..., classes] and floating point dtype, in [-1, 1]; what rounding puts beyond counts as the
        end.
      labels: The class of each example, integers of shape [...]. Negative ones count from the end.
      margin: The angle m added, in radians, a number or an array that broadcasts with `cosines`.
        Beyond an angle of pi - m the loss falls again, as in the paper.
      scale: The number >= 0, or array that broadcasts, that cosines are multiplied with.

    Returns:
      The losses, of shape [...] and the dtype of `cosines`. At cosines of 1 and -1, where the
      derivative is infinite, that of the sine of the angle counts as 0.

    Raises:
      TypeError: If `cosines` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, or `scale` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import arcface_loss
      >>> arcface_loss(jnp.array([1.0, 0.0]), jnp.array(0), margin=jnp.pi / 2, scale=1.0).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Deng et al., ArcFace: Additive angular margin loss for deep face recognition, 2019,
      equation 3, https://arxiv.org/abs/1801.07698
    """

    def later(cosine: jax.Array) -> jax.Array:
        sine = safe_sqrt(jnp.maximum((1 - cosine) * (1 + cosine), 0))
        return cosine * jnp.cos(margin) - sine * jnp.sin(margin)

    return _margin_loss("arcface_loss", cosines, labels, margin, scale, later)


@example(_COSINES, np.array([0, 1, 0]))
@promises(ranges={"cosines": (-1, 1)})
def cosface_loss(
    cosines: ArrayLike, labels: ArrayLike, *, margin: ArrayLike = 0.35, scale: ArrayLike = 64.0
) -> jax.Array:
    """CosFace: a softmax cross entropy of cosines, with a margin taken off that of the class.

    Args:
      cosines: Of the angles between embeddings and the weights of classes, of shape
        [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...]. Negative ones count from the end.
      margin: What is taken off, a number or an array that broadcasts with `cosines`.
      scale: The number >= 0, or array that broadcasts, that cosines are multiplied with.

    Returns:
      The losses, of shape [...] and the dtype of `cosines`.

    Raises:
      TypeError: If `cosines` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, or `scale` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import cosface_loss
      >>> cosface_loss(jnp.array([0.5, 0.0]), jnp.array(0), margin=0.5, scale=1.0).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Wang et al., CosFace: Large margin cosine loss for deep face recognition, 2018, equation 4,
      https://arxiv.org/abs/1801.09414
    """
    return _margin_loss(
        "cosface_loss", cosines, labels, margin, scale, lambda cosine: cosine - margin
    )


@example(_COSINES, np.array([[True, False, True], [False, True, False], [False, False, True]]))
@promises(ranges={"cosines": (-1, 1)})
@exempt("gradients_are_slopes", reason="the paces count as constants in derivatives")
@exempt("second_derivatives_are_slopes", reason="as its first ones")
@exempt("tangents_are_slopes", reason="the paces count as constants in derivatives")
def circle_loss(
    cosines: ArrayLike,
    positives: ArrayLike,
    *,
    margin: ArrayLike = 0.25,
    scale: ArrayLike = 256.0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Circle loss: cosines with positives go to 1 and with negatives to 0, each at its own pace.

    It takes cosines with the weights of classes, of which one is positive, as well as cosines
    between the examples of a batch; then ``where=~jnp.eye(batch, dtype=bool)`` leaves out those of
    examples with themselves.

    Args:
      cosines: Of each example with all it is compared to, of shape [..., compared] and floating
        point dtype.
      positives: With which of them it should agree, booleans of the same shape.
      margin: The margin m of both similarities, a number or an array that broadcasts with
        `cosines`.
      scale: The number >= 0, or array that broadcasts, that exponents are multiplied with.
      where: Which of them are compared, booleans that broadcast with `cosines`; all with None.

    Returns:
      The losses, of shape [...] and the dtype of `cosines`; 0 for examples without a positive or
      without a negative.

    Raises:
      TypeError: If `cosines` is not floating point or `positives` not boolean.
      ValueError: If shapes do not fit, `where` is not boolean or `scale` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import circle_loss
      >>> circle_loss(jnp.array([0.75, 0.25]), jnp.array([True, False])).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Sun et al., Circle loss: A unified perspective of pair similarity optimization, 2020,
      section 3, https://arxiv.org/abs/2002.10857
    """
    name = "circle_loss"
    between(name, 0, math.inf, scale=scale)
    between(name, -math.inf, math.inf, margin=margin)
    cosines, positives = floating(name, "cosines", cosines), jnp.asarray(positives)
    if positives.dtype != bool:
        raise TypeError(
            f"{name}: positives must be boolean; got {positives.dtype}. From integer labels, take "
            "labels[:, None] == labels."
        )
    same_shape(name, cosines=cosines, positives=positives)
    dtype = cosines.dtype
    mask = class_mask(name, where, cosines, "cosines")
    (cosines,) = widened(jnp.where(mask, cosines, 0))
    negatives = mask & ~positives
    positives = mask & positives

    optimum_distance = jnp.where(positives, 1 + margin - cosines, cosines + margin)
    pace = jax.lax.stop_gradient(jnp.maximum(optimum_distance, 0)) * scale
    exponents = pace * jnp.where(positives, 1 - margin - cosines, cosines - margin)
    total = _log_sum_exp(exponents, negatives) + _log_sum_exp(exponents, positives)
    is_compared = jnp.any(positives, axis=-1) & jnp.any(negatives, axis=-1)
    return jnp.where(is_compared, jax.nn.softplus(total), 0).astype(dtype)


def _margin_loss(
    loss: str,
    cosines: ArrayLike,
    labels: ArrayLike,
    margin: ArrayLike,
    scale: ArrayLike,
    penalized: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """The softmax cross entropy of scaled cosines, those of the labels penalized."""
    between(loss, 0, math.inf, scale=scale)
    between(loss, -math.inf, math.inf, margin=margin)
    cosines, labels, dtype = scores_and_labels(loss, cosines, labels, "cosines")
    logits = jnp.where(one_hot(cosines, labels), penalized(cosines), cosines) * scale
    return softmax_cross_entropy_with_integer_labels(logits, labels).astype(dtype)


def _log_sum_exp(exponents: jax.Array, mask: jax.Array) -> jax.Array:
    """``log(sum(exp(exponents)))`` over the last axis where the mask is true; finite elsewhere."""
    exponents = jnp.where(mask, exponents, -jnp.inf)
    largest = peak(exponents, -1)
    return jnp.squeeze(largest + log_normalizer(exponents - largest, -1), -1)
