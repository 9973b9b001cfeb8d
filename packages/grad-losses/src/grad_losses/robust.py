r"""Losses of real predictions that grow no faster than the error, so that outliers matter little.

With the error :math:`e = \hat y - y`, elementwise:

.. math::

    \mathrm{l1}(e) &= |e|, \qquad
    \mathrm{smooth}_\beta(e) =
        \begin{cases} e^2 / 2 \beta & |e| < \beta \\ |e| - \beta / 2 \end{cases}, \qquad
    \mathrm{charbonnier}_\varepsilon(e) = \sqrt{e^2 + \varepsilon^2} \\
    \mathrm{quantile}_\tau(e) &= \max(-\tau e, (1 - \tau) e)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, positive, prediction_error
from grad_losses._functions import absolute, hypotenuse

_PREDICTIONS = np.array([0.5, -1.0, 2.0], np.float32)
_TARGETS = np.array([0.2, 0.9, -1.5], np.float32)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",))
def l1_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """The absolute value of the error, abs(e), whose minimum over a sample is at its median.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype; zero with None.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that the arguments promote to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import l1_loss
      >>> l1_loss(jnp.array([1.0, -3.0]), jnp.array([0.0, 1.0]))
      Array([1., 4.], dtype=float32)

    Reference:
      Boyd and Vandenberghe, Convex optimization, 2004, section 6.1.2.
    """
    error, dtype = prediction_error("l1_loss", predictions, targets)
    return absolute(error).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",))
def smooth_l1_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, beta: ArrayLike = 1.0
) -> jax.Array:
    """abs(e) - beta / 2, but e**2 / (2 * beta) where abs(e) < beta: Huber's loss over beta.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype; zero with None.
      beta: The error, >= 0, from which on the loss is linear, of slope 1; with 0 it is
        `l1_loss`. A number, or an array that broadcasts.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, or `beta` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import smooth_l1_loss
      >>> smooth_l1_loss(jnp.array([1.0, 3.0]), beta=2.0)
      Array([0.25, 2.  ], dtype=float32)

    Reference:
      Girshick, Fast R-CNN, 2015, equation 3, https://arxiv.org/abs/1504.08083.
    """
    between("smooth_l1_loss", 0, math.inf, beta=beta)
    error, dtype = prediction_error("smooth_l1_loss", predictions, targets)
    is_small = jnp.abs(error) < beta
    small = jnp.where(is_small, error, 0)
    parabola = 0.5 * small * (small / jnp.where(is_small, beta, 1))
    return jnp.where(is_small, parabola, absolute(error) - 0.5 * beta).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",))
def charbonnier_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, eps: ArrayLike = 1e-3
) -> jax.Array:
    """A smooth absolute value of the error, sqrt(e**2 + eps**2).

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype; zero with None.
      eps: The loss, > 0, of no error; far larger errors cost what they do in `l1_loss`. A number,
        or an array that broadcasts.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, or `eps` is a number that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import charbonnier_loss
      >>> charbonnier_loss(jnp.array([0.0, 4.0]), eps=3.0)
      Array([3., 5.], dtype=float32)

    Reference:
      Charbonnier et al., Two deterministic half-quadratic regularization algorithms for computed
      imaging, 1994; in this form, Lai et al., Deep Laplacian pyramid networks for fast and accurate
      super-resolution, 2017, https://arxiv.org/abs/1704.03915.
    """
    positive("charbonnier_loss", eps=eps)
    error, dtype = prediction_error("charbonnier_loss", predictions, targets)
    return hypotenuse(error, eps).astype(dtype)


@example(_PREDICTIONS, _TARGETS)
@promises(infinite=("predictions",))
def quantile_loss(
    predictions: ArrayLike, targets: ArrayLike, quantile: ArrayLike = 0.5
) -> jax.Array:
    """The pinball loss, whose minimum over a sample is at its quantile.

    Its equation is quantile * -e where the prediction is too low (e < 0), and (1 - quantile) * e
    where it is too high.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype.
      quantile: From 0 to 1: 0.5, the median, gives half of `l1_loss`. A number, or an array that
        broadcasts, as with one quantile for each entry of the last axis.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, or `quantile` is a number outside of 0 to 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import quantile_loss
      >>> quantile_loss(jnp.array([1.0, 5.0]), jnp.array([3.0, 3.0]), quantile=0.75)
      Array([1.5, 0.5], dtype=float32)

    Reference:
      Koenker and Bassett, Regression quantiles, 1978.
    """
    between("quantile_loss", 0, 1, quantile=quantile)
    error, dtype = prediction_error("quantile_loss", predictions, targets)
    level = jnp.asarray(quantile, error.dtype)
    return (jnp.where(error < 0, -level, 1 - level) * error).astype(dtype)
