r"""The cosine of the angle between two vectors, and the distance 1 - cos.

.. math::

    \cos(x, y) = u_x \cdot u_y, \qquad
    1 - \cos(x, y) = \tfrac12 |u_x - u_y|^2
    \quad\text{with } u_x = x / |x|

The second form loses no digits where the vectors point nearly the same way. A vector of zeros has
no direction: its cosine with any other is 0, and so is its gradient.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_core.numerics import safe_sqrt
from grad_losses._checks import axes_of, between, floating, masked, real
from grad_losses._logits import Axis
from grad_losses._vectors import direction

_PREDICTIONS = np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32)
_TARGETS = np.array([[0.2, 0.9, 1.5], [-1.1, 0.4, 0.8]], np.float32)


@example(_PREDICTIONS, _TARGETS)
@promises(ranges={"epsilon": (0, np.inf)})
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The cosine of the angle between predictions and targets: 1 where they point the same way.

    Args:
      predictions: Vectors, of shape [..., features] and floating point dtype.
      targets: Vectors of a shape that broadcasts with that of `predictions`, of any real dtype.
      epsilon: The least squared length, >= 0: shorter vectors are divided by its root, not by their
        length.
      axis: The axis of the features, the axes, or None for all axes.
      where: Which features take part, booleans that broadcast with the vectors; all with None.

    Returns:
      The cosines, of the broadcast shape without `axis`, in the dtype that predictions and targets
      promote to; 0 for vectors of zeros, and where no feature takes part.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist, `where` is not boolean or
        `epsilon` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import cosine_similarity
      >>> cosine_similarity(jnp.array([[1.0, 0.0], [0.0, 0.0]]), jnp.array([3.0, 4.0]))
      Array([0.6, 0. ], dtype=float32)

    Reference:
      Wikipedia, Cosine similarity, https://en.wikipedia.org/wiki/Cosine_similarity.
    """
    name = "cosine_similarity"
    (u, _), (v, _), dtype = _directions(name, predictions, targets, epsilon, axis, where)
    return jnp.sum(u * v, axis=axis).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(ranges={"epsilon": (0, np.inf)})
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """1 less the cosine of the angle between predictions and targets, from 0 to 2.

    Args:
      predictions: Vectors, of shape [..., features] and floating point dtype.
      targets: Vectors of a shape that broadcasts with that of `predictions`, of any real dtype.
      epsilon: The least squared length, >= 0: shorter vectors are divided by its root, not by their
        length.
      axis: The axis of the features, the axes, or None for all axes.
      where: Which features take part, booleans that broadcast with the vectors; all with None.

    Returns:
      The distances, of the broadcast shape without `axis`, in the dtype that predictions and
      targets promote to; 1 for vectors of zeros, and where no feature takes part.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist, `where` is not boolean or
        `epsilon` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import cosine_distance
      >>> cosine_distance(jnp.array([[0.0, 2.0], [0.0, 0.0]]), jnp.array([1.0, 0.0])).round(4)
      Array([1., 1.], dtype=float32)

    Reference:
      Wikipedia, Cosine similarity, https://en.wikipedia.org/wiki/Cosine_similarity.
    """
    name = "cosine_distance"
    (u, u_length), (v, v_length), dtype = _directions(
        name, predictions, targets, epsilon, axis, where
    )
    gap = jnp.sum(jnp.square(u - v), axis=axis, keepdims=True)
    lacking = (1 - jnp.square(u_length)) + (1 - jnp.square(v_length))
    return jnp.squeeze(0.5 * (gap + lacking), axis).astype(dtype)


_Direction = tuple[jax.Array, jax.Array]


def _directions(
    loss: str,
    predictions: ArrayLike,
    targets: ArrayLike,
    epsilon: ArrayLike,
    axis: Axis | None,
    where: ArrayLike | None,
) -> tuple[_Direction, _Direction, jnp.dtype]:
    """The directions of both arguments, with their lengths, and the dtype to return."""
    between(loss, 0, math.inf, epsilon=epsilon)
    predictions = floating(loss, "predictions", predictions)
    targets = real(loss, "targets", targets)
    dtype = jnp.result_type(predictions, targets)
    first, second = masked(loss, where, (0, 0), predictions=predictions, targets=targets)
    axes_of(loss, axis, "predictions", first)
    least = safe_sqrt(jnp.asarray(epsilon))
    return direction(first, axis, least), direction(second, axis, least), dtype
