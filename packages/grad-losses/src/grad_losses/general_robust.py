r"""Barron's general robust loss, of which many others are special cases.

With the error :math:`e = \hat y - y`, the shape :math:`\alpha` and the scale :math:`c`:

.. math::

    \rho(e) = \frac{b}{\alpha} \left[\left(\frac{(e / c)^2}{b} + 1\right)^{\alpha / 2} - 1\right]
    \quad\text{with } b = |\alpha - 2|

Where a denominator is 0 it is the limit, and near there it is computed without cancellation.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, positive, prediction_error
from grad_losses._functions import growth


@example(np.array([0.5, -1.0, 2.0], np.float32), np.array([0.2, 0.9, -1.5], np.float32))
@promises(infinite=("predictions",))
def general_robust_loss(
    predictions: ArrayLike,
    targets: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
    scale: ArrayLike = 1.0,
) -> jax.Array:
    """Barron's loss, whose shape alpha says how much large errors cost.

    alpha = 2 is half the squared error, 1 is a smooth absolute value, 0 is Cauchy's loss,
    log(e**2 / 2 + 1), -2 is Geman and McClure's, and -inf Welsch's, 1 - exp(-e**2 / 2). All of them
    are (e / scale)**2 / 2 for errors far below the scale.

    Args:
      predictions: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype; zero with None.
      alpha: The shape, any number from -inf to inf, or an array that broadcasts. It may be learned:
        the loss grows with it, so together with something that holds against it.
      scale: The size, > 0, from which on errors are large. A number, or an array that broadcasts.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to. The derivative by alpha is infinite at 2, where a large one stands for it.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, `alpha` is NaN or `scale` a number that is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import general_robust_loss
      >>> general_robust_loss(3.0, alpha=jnp.array([2, 1, 0, -jnp.inf])).round(1)
      Array([4.5, 2.2, 1.7, 1. ], dtype=float32)

    Reference:
      Barron, A general and adaptive robust loss function, 2019,
      https://arxiv.org/abs/1701.03077.
    """
    name = "general_robust_loss"
    positive(name, scale=scale)
    between(name, -math.inf, math.inf, alpha=alpha)
    error, dtype = prediction_error(name, predictions, targets)
    eps = float(np.finfo(error.dtype).eps)
    # Farther from 0 it is the limit, up to rounding; 2 counts as a number next to it.
    alpha = jnp.clip(jnp.asarray(alpha, error.dtype), -(eps**-2), eps**-2)
    distance = jnp.maximum(jnp.abs(alpha - 2), eps / 2)
    is_infinite = jnp.isinf(error)
    loss = _finite_loss(jnp.where(is_infinite, 0, error) / scale, alpha, distance)
    # What infinite errors cost, with the right gradients for alpha <= 1; beyond they are infinite.
    bound = jnp.where(alpha < 0, distance / -jnp.where(alpha < 0, alpha, -1), jnp.inf)
    bound = jnp.where(alpha < 1, bound, jnp.abs(error) / jax.lax.stop_gradient(scale))
    return jnp.where(is_infinite, bound, loss).astype(dtype)


def _finite_loss(ratio: jax.Array, alpha: jax.Array, distance: jax.Array) -> jax.Array:
    """The loss of a finite e / c; ``distance`` is b."""
    log_base = _log1p_square(ratio / jnp.sqrt(distance))
    # Near alpha = 2, where b vanishes, derivatives of the module's form cancel, but of this they do
    # not: (x^2 + (b + x^2) ((x^2 / b + 1)^(alpha / 2 - 1) - 1)) / alpha.
    change = (0.5 * alpha - 1) * log_base
    is_near = (alpha > 1) & (jnp.abs(change) < 0.5)
    square = jnp.square(jnp.where(is_near, ratio, 0))
    near = square + (distance + square) * jnp.expm1(jnp.where(is_near, change, 0))
    far = distance * growth(jnp.where(is_near, 0, 0.5 * log_base), alpha)
    return jnp.where(is_near, near / jnp.where(is_near, alpha, 1), far)


def _log1p_square(x: jax.Array) -> jax.Array:
    """``log(1 + x**2)``, without overflow."""
    is_large = jnp.abs(x) > 1e9
    small, large = jnp.where(is_large, 0, x), jnp.where(is_large, jnp.abs(x), 1)
    return jnp.where(is_large, 2 * jnp.log(large), jnp.log1p(jnp.square(small)))
