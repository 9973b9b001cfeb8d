r"""Losses of real predictions: squares, and Huber's compromise with the absolute value.

With the error :math:`e = \hat y - y`, elementwise:

.. math::

    \mathrm{squared}(e) = e^2, \qquad
    \mathrm{l2}(e) = \tfrac12 e^2, \qquad
    \mathrm{huber}_\delta(e) = c\,(e - \tfrac12 c)
    \quad\text{with } c = \mathrm{clip}(e, -\delta, \delta)
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_losses._checks import broadcast_shape, floating, same_shape, widened


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
    error, dtype = _error("squared_error", predictions, targets)
    return jnp.square(error).astype(dtype)


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
    error, dtype = _error("l2_loss", predictions, targets)
    return (0.5 * jnp.square(error)).astype(dtype)


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
    error, dtype = _error("huber_loss", predictions, targets, broadcast=True)
    # With the sign, not abs(e), second derivatives are right at e = 0 too, and with `where`, not
    # clip, first ones at infinite errors.
    clipped = jnp.where(jnp.abs(error) <= delta, error, jnp.sign(error) * delta)
    return (clipped * (error - 0.5 * clipped)).astype(dtype)


def _error(
    loss: str, predictions: ArrayLike, targets: ArrayLike | None, broadcast: bool = False
) -> tuple[jax.Array, jnp.dtype]:
    """The error to compute with, and the dtype to return the loss in."""
    predictions = floating(loss, "predictions", predictions)
    if targets is None:
        return widened(predictions)[0], predictions.dtype
    targets = jnp.asarray(targets)
    check = broadcast_shape if broadcast else same_shape
    check(loss, predictions=predictions, targets=targets)
    dtype = jnp.result_type(predictions, targets)
    predictions, targets = widened(predictions, targets)
    return predictions - targets, dtype
