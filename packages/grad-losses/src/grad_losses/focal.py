r"""The focal loss: a cross entropy in which what is easy counts less.

With the probability of error :math:`q = y \sigma(-z) + (1 - y) \sigma(z)` of a decision:

.. math::

    \mathrm{focal}_{\alpha,\gamma}(z, y) = \left(\alpha y + (1 - \alpha)(1 - y)\right) q^\gamma
        \left(-y \log \sigma(z) - (1 - y) \log \sigma(-z)\right)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, broadcast_shape, floating, real, widened
from grad_losses._logits import product


@example(
    np.array([[0.5, -1.0, 2.0], [1.0, -0.2, 0.3]], np.float32),
    np.array([[0.2, 0.5, 0.3], [0.4, 0.3, 0.6]], np.float32),
    alpha=0.25,
)
@promises(infinite=("logits",), ranges={"labels": (0, 1), "alpha": (0, 1), "gamma": (0, np.inf)})
def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike | None = None,
    gamma: ArrayLike = 2.0,
) -> jax.Array:
    """Cross entropy of yes-or-no decisions times a power of the probability of error, elementwise.

    Args:
      logits: The log odds of yes, of any shape and floating point dtype.
      labels: The probability of yes, from 0 to 1, of any real dtype, of a shape that broadcasts
        with that of `logits`.
      alpha: The weight of yes, from 0 to 1; that of no is 1 - alpha. Both weigh 1 with None. A
        number, or an array that broadcasts.
      gamma: The power, >= 0: with 0 nothing counts less. A number, or an array that broadcasts.

    Returns:
      The losses, of the broadcast shape and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point.
      ValueError: If the shapes do not broadcast, or `alpha` or `gamma` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import sigmoid_focal_loss
      >>> sigmoid_focal_loss(jnp.array([0.0, 4.0]), jnp.array([1.0, 1.0])).round(6)
      Array([1.73287e-01, 6.00000e-06], dtype=float32)

    Reference:
      Lin et al., Focal loss for dense object detection, 2017, https://arxiv.org/abs/1708.02002.
    """
    name = "sigmoid_focal_loss"
    between(name, 0, math.inf, gamma=gamma)
    logits, labels = floating(name, "logits", logits), real(name, "labels", labels)
    broadcast_shape(name, logits=logits, labels=labels)
    dtype = logits.dtype
    logits, labels = widened(logits, labels)

    yes, no = jax.nn.softplus(-logits), jax.nn.softplus(logits)
    cross_entropy = product(labels, yes) + product(1 - labels, no)
    focus = jnp.exp(gamma * _log_error(logits, labels))
    # Where the cross entropy is infinite, q is 1: a change of it would be inf * 0.
    focus = jnp.where(jnp.isinf(cross_entropy), jax.lax.stop_gradient(focus), focus)
    loss = focus * cross_entropy
    if alpha is not None:
        between(name, 0, 1, alpha=alpha)
        weight = jnp.asarray(alpha)
        loss = product(weight * labels + (1 - weight) * (1 - labels), loss)
    return loss.astype(dtype)


def _log_error(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """``log(q)``, also where q is too small a number, with its derivatives."""
    largest = float(jnp.finfo(logits.dtype).max)  # type: ignore[no-untyped-call]
    logits = jnp.clip(logits, -largest, largest)
    log_yes, log_no = -jax.nn.softplus(logits), -jax.nn.softplus(-logits)
    shift = jax.lax.stop_gradient(
        jnp.maximum(
            jnp.where(labels > 0, log_yes, -jnp.inf), jnp.where(labels < 1, log_no, -jnp.inf)
        )
    )

    def share(weight: jax.Array, log_chance: jax.Array) -> jax.Array:
        # At weight 0 the exponent can be large; infinity would make derivatives NaN.
        return weight * jnp.exp(jnp.minimum(log_chance - shift, 0.9 * math.log(largest)))

    return shift + jnp.log(share(labels, log_yes) + share(1 - labels, log_no))
