r"""Negative log likelihoods of targets y under a distribution whose parameters are predicted.

.. math::

    \mathrm{gaussian}(\mu, \sigma^2) &= \tfrac12 \log \sigma^2 + \frac{(y - \mu)^2}{2 \sigma^2}
        \;\left[+ \tfrac12 \log 2 \pi\right] \\
    \mathrm{laplace}(\mu, b) &= \log b + \frac{|y - \mu|}{b} \;\left[+ \log 2\right] \\
    \mathrm{poisson}(\lambda) &= \lambda - y \log \lambda
        \;\left[+ y \log y - y + \tfrac12 \log 2 \pi y \text{ where } y > 1\right]

What stands in brackets depends on no prediction, and is left out unless `full` asks for it.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import (
    ShapeError,
    between,
    broadcast_shape,
    floating,
    real,
    same_shape,
    widened,
)
from grad_losses._functions import absolute
from grad_losses._logits import product

_MEANS = np.array([[0.5, -1.0], [2.0, 0.3]], np.float32)
_TARGETS = np.array([[0.2, 0.4], [-1.5, 0.9]], np.float32)
_SCALES = np.array([[0.3, 1.5], [2.0, 0.7]], np.float32)
_COUNTS = np.array([[0, 3], [1, 2]])


@example(_MEANS, _TARGETS, _SCALES)
@promises(ranges={"variances": (0, math.inf)})
def gaussian_nll_loss(
    means: ArrayLike,
    targets: ArrayLike,
    variances: ArrayLike,
    *,
    log_input: bool = False,
    full: bool = False,
    eps: ArrayLike = 1e-6,
) -> jax.Array:
    """Negative log likelihood of a normal distribution whose mean and variance are predicted.

    Args:
      means: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype.
      variances: Of floating point dtype, of that shape or one that broadcasts to it, such as
        [..., 1] for one variance for all.
      log_input: Whether `variances` are their natural logarithms, which may be any numbers.
      full: Whether to add log(2 pi) / 2, which makes it the likelihood of a density.
      eps: The least variance, >= 0: smaller ones count as this one, but have its gradient, so that
        they can grow again. A number, or an array that broadcasts.

    Returns:
      The losses, of the shape of `means`, in the dtype that the arguments promote to.

    Raises:
      TypeError: If `means` or `variances` are not floating point.
      ValueError: If the shapes do not fit, or `eps` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import gaussian_nll_loss
      >>> gaussian_nll_loss(jnp.array([1.0, 1.0]), jnp.array([1.0, 3.0]), jnp.array([1.0, 4.0]))
      Array([0.       , 1.1931472], dtype=float32)

    Reference:
      Nix and Weigend, Estimating the mean and variance of the target probability distribution,
      1994.
    """
    name = "gaussian_nll_loss"
    between(name, 0, math.inf, eps=eps)
    error, variances, dtype = _error_and_scale(name, means, targets, variances=variances)
    log_variance, score = _log_and_score(error, variances, -0.5, eps, log_input)
    loss = 0.5 * (log_variance + jnp.square(score))
    return (loss + 0.5 * math.log(2 * math.pi) * full).astype(dtype)


@example(_MEANS, _TARGETS, _SCALES)
@promises(ranges={"scales": (0, math.inf)})
def laplace_nll_loss(
    means: ArrayLike,
    targets: ArrayLike,
    scales: ArrayLike,
    *,
    log_input: bool = False,
    full: bool = False,
    eps: ArrayLike = 1e-6,
) -> jax.Array:
    """Negative log likelihood of a Laplace distribution whose mean and scale are predicted.

    Args:
      means: Of any shape and floating point dtype.
      targets: Of the same shape, of any real dtype.
      scales: The mean absolute errors, of floating point dtype, of that shape or one that
        broadcasts to it, such as [..., 1] for one scale for all.
      log_input: Whether `scales` are their natural logarithms, which may be any numbers.
      full: Whether to add log(2), which makes it the likelihood of a density.
      eps: The least scale, >= 0: smaller ones count as this one, but have its gradient, so that
        they can grow again. A number, or an array that broadcasts.

    Returns:
      The losses, of the shape of `means`, in the dtype that the arguments promote to.

    Raises:
      TypeError: If `means` or `scales` are not floating point.
      ValueError: If the shapes do not fit, or `eps` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import laplace_nll_loss
      >>> laplace_nll_loss(jnp.array([1.0, 1.0]), jnp.array([1.0, 3.0]), jnp.array([1.0, 4.0]))
      Array([0.       , 1.8862944], dtype=float32)

    Reference:
      Kendall and Gal, What uncertainties do we need in Bayesian deep learning for computer vision?,
      2017, https://arxiv.org/abs/1703.04977.
    """
    name = "laplace_nll_loss"
    between(name, 0, math.inf, eps=eps)
    error, scales, dtype = _error_and_scale(name, means, targets, scales=scales)
    log_scale, score = _log_and_score(error, scales, -1.0, eps, log_input)
    return (log_scale + absolute(score) + math.log(2) * full).astype(dtype)


@example(_MEANS, _COUNTS)
def poisson_nll_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: ArrayLike = 1e-8,
) -> jax.Array:
    """Negative log likelihood of counts under a Poisson distribution whose rate is predicted.

    Args:
      predictions: The natural logarithms of the rates, of any shape and floating point dtype.
      targets: The counts, >= 0, of the same shape, of any real dtype.
      log_input: With False, `predictions` are the rates, >= 0, themselves; negative ones give NaN.
      full: Whether to add Stirling's approximation of log(targets!), for counts above 1.
      eps: What is added to rates, >= 0, before their logarithm is taken. A number, or an array that
        broadcasts.

    Returns:
      The losses, of the shape of `predictions`, in the dtype that predictions and targets promote
      to. A rate of 0 costs nothing where the count is 0.

    Raises:
      TypeError: If `predictions` is not floating point.
      ValueError: If the shapes differ, or `eps` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import poisson_nll_loss
      >>> poisson_nll_loss(jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([5, 2, 0])).round(4)
      Array([1.    , 0.7183, 0.    ], dtype=float32)

    Reference:
      McCullagh and Nelder, Generalized linear models, 1989, chapter 6.
    """
    name = "poisson_nll_loss"
    between(name, 0, math.inf, eps=eps)
    predictions, targets = (
        floating(name, "predictions", predictions),
        real(name, "targets", targets),
    )
    same_shape(name, predictions=predictions, targets=targets)
    dtype = jnp.result_type(predictions, targets)
    predictions, targets = widened(predictions, targets)
    if log_input:
        rates, log_rates = jnp.exp(predictions), predictions
    else:
        sums = predictions + eps
        rates, log_rates = predictions, jnp.log(jnp.where((targets == 0) & (sums == 0), 1, sums))
    loss = rates + product(targets, -log_rates)
    if full:
        many = jnp.where(targets > 1, targets, 1)
        stirling = many * jnp.log(many) - many + 0.5 * jnp.log(2 * math.pi * many)
        loss += jnp.where(targets > 1, stirling, 0)
    return loss.astype(dtype)


def _error_and_scale(
    loss: str, means: ArrayLike, targets: ArrayLike, **scale: ArrayLike
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """The error, and the argument in `scale`, to compute with; the dtype to return the loss in."""
    ((name, scales),) = scale.items()
    means, scales = floating(loss, "means", means), floating(loss, name, scales)
    targets = real(loss, "targets", targets)
    same_shape(loss, means=means, targets=targets)
    if broadcast_shape(loss, means=means, **{name: scales}) != means.shape:
        raise ShapeError(
            f"{loss}: {name} of shape {scales.shape} must be such that they broadcast to the shape "
            f"of means, {means.shape}. Broadcast means and targets first."
        )
    dtype = jnp.result_type(means, targets, scales)
    means, targets, scales = widened(means, targets, scales)
    return means - targets, scales, dtype


def _log_and_score(
    error: jax.Array, x: jax.Array, exponent: float, eps: ArrayLike, log_input: bool
) -> tuple[jax.Array, jax.Array]:
    """``log(x)`` and ``error * x**exponent``, for x of at least eps, which may be given as log."""
    least = jnp.asarray(eps, x.dtype)
    if log_input:
        log_x = _at_least(x, jnp.log(least))
        power = jnp.exp(exponent * jax.lax.stop_gradient(log_x))
    else:
        x = _at_least(x, least)
        log_x, power = jnp.log(x), jax.lax.stop_gradient(x) ** exponent
    # 1, with the derivatives of the power: those of the power itself would overflow in products.
    change = jnp.exp(exponent * (log_x - jax.lax.stop_gradient(log_x)))
    return log_x, error * power * change


@jax.custom_jvp
def _at_least(x: jax.Array, low: jax.Array) -> jax.Array:
    """``maximum(x, low)`` with derivative 1 throughout."""
    return jnp.maximum(x, low)


@_at_least.defjvp
def _at_least_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    x, low = primals
    return _at_least(x, low), jnp.broadcast_to(
        tangents[0], jnp.broadcast_shapes(x.shape, low.shape)
    )
