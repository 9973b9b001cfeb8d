r"""Losses of positive quantities, which compare predictions with targets as ratios.

.. math::

    \mathrm{percentage}(\hat y, y) = \frac{|\hat y - y|}{|y|}, \qquad
    \mathrm{log}(\hat y, y) = (\log(1 + \hat y) - \log(1 + y))^2
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import floating, positive, prediction_error, real, same_shape, widened
from grad_losses._functions import absolute

_PREDICTIONS = np.array([0.5, 1.0, 2.0], np.float32)
_TARGETS = np.array([0.2, 0.9, 4.5], np.float32)


@example(_PREDICTIONS, _TARGETS)
def absolute_percentage_error_loss(
    predictions: ArrayLike, targets: ArrayLike, *, eps: ArrayLike = 1e-7
) -> jax.Array:
    """The absolute error as a fraction of the target, abs(e) / max(abs(targets), eps).

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype.
      eps: What is divided by at least, > 0. A number, or an array that broadcasts.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to: 1 is an error of the size of the target, that is, of 100 percent.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, or `eps` is a number that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import absolute_percentage_error_loss
      >>> absolute_percentage_error_loss(jnp.array([3.0, 9.0]), jnp.array([4.0, -3.0]))
      Array([0.25, 4.  ], dtype=float32)

    Reference:
      de Myttenaere et al., Mean absolute percentage error for regression models, 2016,
      https://arxiv.org/abs/1605.02541.
    """
    name = "absolute_percentage_error_loss"
    positive(name, eps=eps)
    error, dtype = prediction_error(name, predictions, targets)
    size = jnp.maximum(jnp.abs(jnp.asarray(targets, error.dtype)), eps)
    return (absolute(error) / size).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(ranges={"predictions": (0, math.inf), "targets": (0, math.inf)})
def squared_log_error_loss(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """The squared error of logarithms, (log(1 + predictions) - log(1 + targets))**2.

    Args:
      predictions: Of any shape and floating point dtype, > -1: counts, or other sizes of which
        ratios matter.
      targets: Of the same shape, of any real dtype, > -1.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that the arguments promote to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import squared_log_error_loss
      >>> squared_log_error_loss(jnp.array([0.0, 99.0]), jnp.array([0.0, 9.0])).round(4)
      Array([0.    , 5.3019], dtype=float32)

    Reference:
      Tofallis, A better measure of relative prediction accuracy, 2015.
    """
    name = "squared_log_error_loss"
    predictions, targets = (
        floating(name, "predictions", predictions),
        real(name, "targets", targets),
    )
    same_shape(name, predictions=predictions, targets=targets)
    dtype = jnp.result_type(predictions, targets)
    predictions, targets = widened(predictions, targets)
    # Near each other logarithms cancel, but not that of the larger over the smaller, as 1 plus a
    # difference; far from each other that has squares in its derivatives, which overflow.
    gap, low = predictions - targets, 1 + jnp.minimum(predictions, targets)
    is_near = jnp.abs(gap) < low
    excess = jnp.where(is_near, jnp.where(gap < 0, -gap, gap), 0) / jnp.where(is_near, low, 1)
    far = jnp.log1p(predictions) - jnp.log1p(targets)
    return jnp.square(jnp.where(is_near, jnp.log1p(excess), far)).astype(dtype)
