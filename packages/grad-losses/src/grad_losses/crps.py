r"""The continuous ranked probability score: how far a predicted distribution is from what happened.

With the predicted cumulative distribution F, and y the target:

.. math::

    \mathrm{CRPS}(F, y) = \int (F(t) - [t \geq y])^2\, dt
    = \mathrm{E} |X - y| - \tfrac12 \mathrm{E} |X - X'|

It is in units of the target, is the absolute error for predictions that are certain, and smallest
in expectation for the distribution that targets come from.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import ShapeError, axes_of, broadcast_shape, floating, real, widened

FAR = 40.0
"""From so many standard deviations on, what a normal distribution has beyond is 0 in float64."""


@promises(ranges={"scales": (0, math.inf)})
@example(
    np.array([0.5, -1.0, 2.0], np.float32),
    np.array([0.8, 1.5, 0.3], np.float32),
    np.array([0.2, 0.9, 1.6], np.float32),
)
def crps_normal(means: ArrayLike, scales: ArrayLike, targets: ArrayLike) -> jax.Array:
    r"""The CRPS of normal distributions.

    With z = (target - mean) / scale, it is scale * (z * (2 * Phi(z) - 1) + 2 * phi(z) -
    1 / sqrt(pi)).

    Args:
      means: The means, of any shape and floating point dtype.
      scales: The standard deviations, >= 0, of any real dtype, of a shape that broadcasts. For 0,
        the score is the absolute error.
      targets: What happened, of any real dtype, of a shape that broadcasts.

    Returns:
      The scores, of the broadcast shape, in the dtype that the arguments promote to.

    Raises:
      TypeError: If `means` is not floating point, or another argument not real.
      ValueError: If the shapes do not broadcast.

    Example:
      >>> from grad_losses import crps_normal
      >>> print(f"{crps_normal(1.0, 1.0, 1.0):.4f}")  # (sqrt(2) - 1) / sqrt(pi)
      0.2337

    Reference:
      Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007,
      equation 21.
    """
    name = "crps_normal"
    mean, scale = floating(name, "means", means), real(name, "scales", scales)
    target = real(name, "targets", targets)
    broadcast_shape(name, means=mean, scales=scale, targets=target)
    dtype = jnp.result_type(mean, scale, target)
    mean, scale, target = widened(mean, scale, target)
    error = target - mean
    is_near = jnp.abs(error) <= FAR * scale
    is_spread = is_near & (scale > 0)
    # In units of the scale: derivatives of z have squares of it, which may vanish or overflow.
    unit = jax.lax.stop_gradient(jnp.where(is_spread, scale, 1))
    z = (jnp.where(is_spread, error, 0) / unit) / jnp.where(is_spread, scale / unit, 1)
    density = jnp.exp(-jnp.square(z) / 2) / math.sqrt(2 * math.pi)
    near = z * jax.lax.erf(z / math.sqrt(2)) + 2 * density
    score = jnp.where(is_near, scale * near, jnp.abs(error)) - scale / math.sqrt(math.pi)
    return score.astype(dtype)


@example(
    np.array([[0.5, -1.0, 2.0, 0.9], [1.0, 0.4, 0.3, -0.8]], np.float32),
    np.array([0.2, 1.6], np.float32),
)
def crps_ensemble(
    predictions: ArrayLike, targets: ArrayLike, *, axis: int = -1, fair: bool = False
) -> jax.Array:
    """The CRPS of ensembles, which takes the time of sorting them.

    Args:
      predictions: The members of the ensembles, of floating point dtype and a shape with `axis`.
      targets: What happened, of the same shape without `axis` and any real dtype.
      axis: The axis of the members.
      fair: Whether to estimate the score of the distribution that the members are drawn from,
        without bias, rather than to score the members as a distribution. The estimate may be
        negative; it divides the spread of M members by M * (M - 1) instead of M**2.

    Returns:
      The scores, of the shape of `targets`, in the dtype that predictions and targets promote to.

    Raises:
      TypeError: If `predictions` is not floating point, or `targets` not real.
      ValueError: If shapes do not fit, `axis` does not exist, or there are too few members: one at
        least, and two if `fair`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import crps_ensemble
      >>> crps_ensemble(jnp.array([[1.0, 3.0], [4.0, 4.0]]), jnp.array([2.0, 7.0]))
      Array([0.5, 3. ], dtype=float32)

    Reference:
      Hersbach, Decomposition of the continuous ranked probability score, 2000; Ferro, Fair scores
      for ensemble forecasts, 2014.
    """
    name = "crps_ensemble"
    members, target = floating(name, "predictions", predictions), real(name, "targets", targets)
    (place,) = axes_of(name, (axis,), "predictions", members)
    members = jnp.moveaxis(members, place, -1)
    number = members.shape[-1]
    if target.shape != members.shape[:-1]:
        raise ShapeError(
            f"{name}: targets of shape {target.shape} must have the shape of predictions without "
            f"the axis of the members, {members.shape[:-1]}."
        )
    if number < 1 + fair:
        raise ShapeError(
            f"{name}: predictions must have {1 + fair} members at least; got {number}, the shape "
            f"being {jnp.shape(predictions)}."
        )
    dtype = jnp.result_type(members, target)
    members, target = widened(members, target)
    errors = members - target[..., None]
    # The integral, piece by piece between the errors and 0: sums of what is >= 0 lose no digits.
    ends = jnp.concatenate([errors, jnp.zeros_like(errors[..., :1])], axis=-1)
    order = jnp.argsort(jax.lax.stop_gradient(ends), axis=-1)
    ends = jnp.take_along_axis(ends, order, axis=-1)
    is_above = (ends[..., :-1] >= 0).astype(errors.dtype)
    share = (jnp.arange(1, number + 1) - is_above) / number
    height = jnp.square(share - is_above)
    if fair:
        height = height - share * (1 - share) / (number - 1)
    return jnp.sum(jnp.diff(ends, axis=-1) * height, axis=-1).astype(dtype)
