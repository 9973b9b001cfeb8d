r"""Losses of real predictions: squares, and compromises with the absolute value.

With the error :math:`e = \hat y - y`, elementwise:

.. math::

    \mathrm{squared}(e) &= e^2, \qquad
    \mathrm{l2}(e) = \tfrac12 e^2, \qquad
    \mathrm{huber}_\delta(e) = c\,(e - \tfrac12 c)
    \quad\text{with } c = \mathrm{clip}(e, -\delta, \delta) \\
    \mathrm{logcosh}(e) &= \log \cosh e
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import prediction_error


@example(np.array([0.5, -1.0, 2.5], np.float32), np.array([0.2, 0.9, -1.5], np.float32))
def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """The square of the error, e**2.

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
      >>> from grad_losses import squared_error
      >>> squared_error(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0]))
      Array([1., 4.], dtype=float32)
    """
    error, dtype = prediction_error("squared_error", predictions, targets)
    return jnp.square(error).astype(dtype)


@example(np.array([0.5, -1.0, 2.5], np.float32), np.array([0.2, 0.9, -1.5], np.float32))
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """Half the square of the error, e**2 / 2, whose gradient is the error.

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
      >>> from grad_losses import l2_loss
      >>> l2_loss(jnp.array([1.0, 3.0]), jnp.array([0.0, 1.0]))
      Array([0.5, 2. ], dtype=float32)

    Reference:
      Bishop, Pattern recognition and machine learning, 2006, section 1.1.
    """
    error, dtype = prediction_error("l2_loss", predictions, targets)
    return (0.5 * jnp.square(error)).astype(dtype)


@example(np.array([0.5, -1.0, 2.5], np.float32), np.array([0.2, 0.9, -1.5], np.float32))
@promises(ranges={"delta": (0, np.inf)})
def huber_loss(
    predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: ArrayLike = 1.0
) -> jax.Array:
    """Huber's loss: e**2 / 2 where abs(e) <= delta, delta * (abs(e) - delta / 2) beyond.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of any real dtype, of a shape that broadcasts with that of `predictions`; zero with
        None.
      delta: The error, >= 0, from which on the loss is linear; a number or an array that
        broadcasts.

    Returns:
      The losses, of the broadcast shape, in the dtype that predictions and targets promote to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not broadcast, or `delta` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import huber_loss
      >>> huber_loss(jnp.array([0.5, 3.0]), delta=1.0)
      Array([0.125, 2.5  ], dtype=float32)

    Reference:
      Huber, Robust estimation of a location parameter, 1964.
    """
    if isinstance(delta, int | float) and not delta >= 0:
        raise ValueError(f"huber_loss: delta must be >= 0; got {delta!r}.")
    error, dtype = prediction_error("huber_loss", predictions, targets, broadcast=True)
    # With the sign, not abs(e), second derivatives are right at e = 0 too, and with `where`, not
    # clip, first ones at infinite errors.
    clipped = jnp.where(jnp.abs(error) <= delta, error, jnp.sign(error) * delta)
    return (clipped * (error - 0.5 * clipped)).astype(dtype)


@example(np.array([0.5, -1.0, 2.5], np.float32), np.array([0.2, 0.9, -1.5], np.float32))
@promises(infinite=("predictions",))
def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> jax.Array:
    """The smooth log(cosh(e)): near e**2 / 2 for small errors, near abs(e) - log(2) for large.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of any real dtype, of a shape that broadcasts with that of `predictions`; zero with
        None.

    Returns:
      The losses, of the broadcast shape, in the dtype that predictions and targets promote to.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import log_cosh
      >>> log_cosh(jnp.array([0.0, 0.5, 5.0])).round(3)
      Array([0.   , 0.12 , 4.307], dtype=float32)

    Reference:
      Chen et al., Log hyperbolic cosine loss improves variational auto-encoder, 2018.
    """
    error, dtype = prediction_error("log_cosh", predictions, targets, broadcast=True)
    is_small = jnp.abs(error) < 1
    small, large = jnp.where(is_small, error, 0), jnp.abs(jnp.where(is_small, 1, error))
    # cosh(e) is 1 + 2 sinh(e / 2)**2, which loses no digits near 0, and overflows elsewhere.
    near = jnp.log1p(2 * jnp.square(jnp.sinh(small / 2)))
    far = large + jnp.log1p(jnp.exp(-2 * large)) - math.log(2)
    return jnp.where(is_small, near, far).astype(dtype)
