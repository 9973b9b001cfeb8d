r"""Kullback-Leibler divergences between distributions, or unnormalized densities, p and q.

.. math::

    \mathrm{KL}(p, q) &= \sum_k p_k (\log p_k - \log q_k), \\
    \mathrm{generalized}(p, q) &= \sum_k p_k (\log p_k - \log q_k) + q_k - p_k

Here p are the targets, and log q the log predictions. Products are understood as limits: where p is
0, p log p and p log q are too, even if q is 0 there. The derivative of p log p, which is infinite
where p is 0, counts as 0 there, so that gradients stay finite.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import axes_of, floating, masked, real
from grad_losses._logits import Axis, product

_LOG_PREDICTIONS = np.log(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], np.float32))
_TARGETS = np.array([[0.1, 0.7, 0.2], [0.3, 0.25, 0.45]], np.float32)
_ranges = promises(
    infinite=("log_predictions",),
    ranges={"log_predictions": (-np.inf, 0), "targets": (0, np.inf)},
)


@example(_LOG_PREDICTIONS, _TARGETS)
@_ranges
def kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Kullback-Leibler divergence of predictions from targets, sum(p * (log(p) - log(q))).

    Args:
      log_predictions: The logarithms of predicted probabilities, log(q), as `jax.nn.log_softmax`
        gives them, of shape [..., outcomes] and floating point dtype.
      targets: The true probabilities, p, of any real dtype, of a shape that broadcasts with that of
        `log_predictions`.
      axis: The axis of the outcomes, the axes, or None for all axes.
      where: Which outcomes take part, booleans that broadcast with the others; all with None.

    Returns:
      The divergences, of the broadcast shape without `axis`, in the dtype that log predictions and
      targets promote to; infinite where something possible is predicted to be impossible.

    Raises:
      TypeError: If `log_predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import kl_divergence
      >>> kl_divergence(jnp.log(jnp.array([0.5, 0.5, 0.0])), jnp.array([1.0, 0.0, 0.0])).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Kullback and Leibler, On information and sufficiency, 1951.
    """
    log_q, p, dtype = _densities("kl_divergence", log_predictions, targets, axis, where)
    return jnp.sum(_relative_entropy(log_q, p), axis=axis).astype(dtype)


@example(_LOG_PREDICTIONS, np.log(_TARGETS))
@promises(
    infinite=("log_predictions", "log_targets"),
    ranges={"log_predictions": (-np.inf, 0), "log_targets": (-np.inf, 0)},
)
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike,
    log_targets: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The Kullback-Leibler divergence as in `kl_divergence`, of targets given as logarithms.

    Args:
      log_predictions: The logarithms of predicted probabilities, log(q), of shape [..., outcomes]
        and floating point dtype.
      log_targets: The logarithms of the true probabilities, log(p), of any real dtype, of a shape
        that broadcasts with that of `log_predictions`.
      axis: The axis of the outcomes, the axes, or None for all axes.
      where: Which outcomes take part, booleans that broadcast with the others; all with None.

    Returns:
      The divergences, of the broadcast shape without `axis`, in the dtype that both promote to.

    Raises:
      TypeError: If `log_predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import kl_divergence_with_log_targets
      >>> log_predictions = jnp.log(jnp.array([0.5, 0.5, 0.0]))
      >>> kl_divergence_with_log_targets(
      ...     log_predictions, jnp.array([0, -jnp.inf, -jnp.inf])
      ... ).round(4)
      Array(0.6931, dtype=float32)

    Reference:
      Kullback and Leibler, On information and sufficiency, 1951.
    """
    name = "kl_divergence_with_log_targets"
    log_q, log_p, dtype = _densities(
        name, log_predictions, log_targets, axis, where, targets="log_targets", absent=-math.inf
    )
    cost = jnp.where(jnp.isneginf(log_p), 0, log_p) - log_q
    return jnp.sum(product(jnp.exp(log_p), cost), axis=axis).astype(dtype)


@example(_LOG_PREDICTIONS, _TARGETS)
@_ranges
def generalized_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The divergence of unnormalized densities, sum(p * (log(p) - log(q)) + q - p), never negative.

    It is convex in p and q together, 0 only where they are the same, and `kl_divergence` where both
    sum to 1.

    Args:
      log_predictions: The logarithms of predicted densities, log(q), of shape [..., outcomes] and
        floating point dtype.
      targets: The true densities, p >= 0, of any real dtype, of a shape that broadcasts with that
        of `log_predictions`.
      axis: The axis of the outcomes, the axes, or None for all axes.
      where: Which outcomes take part, booleans that broadcast with the others; all with None.

    Returns:
      The divergences, of the broadcast shape without `axis`, in the dtype that log predictions and
      targets promote to.

    Raises:
      TypeError: If `log_predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import generalized_kl_divergence
      >>> generalized_kl_divergence(jnp.log(jnp.array([2.0, 0.5])), jnp.array([2.0, 0.0]))
      Array(0.5, dtype=float32)

    Reference:
      Csiszár, Why least squares and maximum entropy?, 1991, equation 2.4.
    """
    return _generalized("generalized_kl_divergence", log_predictions, targets, axis, where)


@example(_LOG_PREDICTIONS, _TARGETS)
@_ranges
def convex_kl_divergence(
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis | None = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The same as `generalized_kl_divergence`, under its older name.

    Args:
      log_predictions: The logarithms of predicted densities, of shape [..., outcomes] and floating
        point dtype.
      targets: The true densities, >= 0, of any real dtype, of a shape that broadcasts with that of
        `log_predictions`.
      axis: The axis of the outcomes, the axes, or None for all axes.
      where: Which outcomes take part, booleans that broadcast with the others; all with None.

    Returns:
      The divergences, of the broadcast shape without `axis`, in the dtype that log predictions and
      targets promote to.

    Raises:
      TypeError: If `log_predictions` is not floating point.
      ValueError: If shapes do not broadcast, `axis` does not exist or `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import convex_kl_divergence
      >>> convex_kl_divergence(jnp.log(jnp.array([2.0, 0.5])), jnp.array([2.0, 0.0]))
      Array(0.5, dtype=float32)

    Reference:
      Csiszár, Why least squares and maximum entropy?, 1991, equation 2.4.
    """
    return _generalized("convex_kl_divergence", log_predictions, targets, axis, where)


def _generalized(
    loss: str,
    log_predictions: ArrayLike,
    targets: ArrayLike,
    axis: Axis | None,
    where: ArrayLike | None,
) -> jax.Array:
    log_q, p, dtype = _densities(loss, log_predictions, targets, axis, where)
    return jnp.sum(_relative_entropy(log_q, p) + jnp.exp(log_q) - p, axis=axis).astype(dtype)


def _relative_entropy(log_q: jax.Array, p: jax.Array) -> jax.Array:
    """``p * (log(p) - log(q))``, and 0 where p is."""
    return product(p, jnp.log(jnp.where(p == 0, 1, p)) - log_q)


def _densities(
    loss: str,
    log_predictions: ArrayLike,
    values: ArrayLike,
    axis: Axis | None,
    where: ArrayLike | None,
    targets: str = "targets",
    absent: float = 0.0,
) -> tuple[jax.Array, jax.Array, jnp.dtype]:
    """Both arguments to compute with, of one shape, and the dtype to return.

    Outcomes that take no part are not predicted, and have the target `absent`.
    """
    first = floating(loss, "log_predictions", log_predictions)
    second = real(loss, targets, values)
    arrays = {"log_predictions": first, targets: second}
    log_q, p = masked(loss, where, (-math.inf, absent), **arrays)
    axes_of(loss, axis, "log_predictions", log_q)
    return log_q, p, jnp.result_type(first, second)
