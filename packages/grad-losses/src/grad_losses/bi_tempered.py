r"""The bi-tempered loss: a cross entropy whose logarithm is bounded, of a softmax with heavy tails.

.. math::

    \log_t x &= \frac{x^{1 - t} - 1}{1 - t}, \qquad
    \exp_t x = \left[1 + (1 - t) x\right]^{1 / (1 - t)} \\
    p_j &= \exp_{t_2}(z_j - \lambda) \quad\text{with } \lambda \text{ such that } \sum p_j = 1 \\
    L &= -\log_{t_1} p_y - \frac{1 - \sum_j p_j^{2 - t_1}}{2 - t_1}
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between
from grad_losses._functions import growth
from grad_losses._labels import logits_and_labels
from grad_losses._logits import Axis, less_peak, peak, pick, product

_STEPS = 8
"""Of Newton's method: five suffice in float32 for logits up to 1e4 and t2 up to 10."""


@example(np.array([[0.5, -1.0, 2.0], [1.0, 0.2, 0.3]], np.float32), np.array([1, 0]))
@promises(infinite=("logits",), ranges={"t1": (0, 1), "t2": (1, math.inf)})
def bi_tempered_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    t1: ArrayLike = 0.8,
    t2: ArrayLike = 1.2,
    axis: Axis = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """A bounded loss of a heavy-tailed softmax; the cross entropy where both temperatures are 1.

    With t1 < 1 outliers far on the wrong side cost at most 1 / (1 - t1); with t2 > 1 wrong
    labels near the boundary pull less.

    Args:
      logits: Of shape [..., classes] and floating point dtype.
      labels: The class of each example, integers of shape [...]. Negative ones count from the end;
        those that are no class give NaN.
      t1: The temperature of the logarithm, in [0, 1].
      t2: That of the softmax, >= 1; a constant in derivatives.
      axis: The axis of the classes. With several, labels count their places in row-major order.
      where: Which classes take part, booleans that broadcast with `logits`; all with None. Examples
        of which no class takes part cost 0.

    Returns:
      The losses, of shape [...] and the dtype of `logits`.

    Raises:
      TypeError: If `logits` is not floating point or `labels` not integer.
      ValueError: If shapes do not fit, `axis` does not exist, `where` is not boolean, or `t1` or
        `t2` is a number out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import bi_tempered_loss
      >>> logits = jnp.array([[2.0, 0.0], [-1e9, 0.0]])
      >>> bi_tempered_loss(logits, jnp.array([0, 0]), t1=0.5, t2=1.0).round(2)
      Array([0.03, 2.  ], dtype=float32)

    Reference:
      Amid et al., Robust bi-tempered logistic loss based on Bregman divergences, 2019,
      https://arxiv.org/abs/1906.03361.
    """
    name = "bi_tempered_loss"
    between(name, 0, 1, t1=t1)
    between(name, 1, math.inf, t2=t2)
    given = logits_and_labels(name, logits, labels, axis, where)
    scores = given.logits
    t1 = jnp.asarray(t1, scores.dtype)
    excess = jax.lax.stop_gradient(jnp.asarray(t2, scores.dtype)) - 1
    scores = less_peak(scores, peak(scores, -1))
    scores = jnp.where(jnp.any(jnp.isfinite(scores), axis=-1, keepdims=True), scores, 0)
    log_p = _log_exp_t(scores - _normalizer(scores, excess), excess)
    powers = jnp.sum(jnp.exp((2 - t1) * log_p), axis=-1)
    return given.settled(-growth(pick(log_p, given.labels), 1 - t1) - (1 - powers) / (2 - t1))


def _log_exp_t(x: jax.Array, excess: jax.Array) -> jax.Array:
    """``log(exp_t(x))`` for x <= 0 and the excess t - 1 >= 0."""
    quotient = jnp.log1p(product(excess, -x)) / jnp.where(excess == 0, 1, excess)
    return jnp.where(excess == 0, x, -quotient)


@jax.custom_jvp
def _normalizer(scores: jax.Array, excess: jax.Array) -> jax.Array:
    """The shift lambda of scores <= 0, the largest 0, keeping the axis."""
    # Newton's method for S^(-excess) = 1, where S is the sum: it is concave in the shift, so that
    # steps from 0 never go too far, and where the scores are equal or t = 1, the first is exact.

    def step(_: int, shift: jax.Array) -> jax.Array:
        log_p = _log_exp_t(scores - shift, excess)
        log_sum = jnp.log(jnp.sum(jnp.exp(log_p), axis=-1, keepdims=True))
        slope = jnp.sum(jnp.exp((1 + excess) * (log_p - log_sum)), axis=-1, keepdims=True)
        return shift - growth(-log_sum, excess) / slope

    shift: jax.Array = jax.lax.fori_loop(0, _STEPS, step, jnp.zeros_like(peak(scores, -1)))
    return shift


@_normalizer.defjvp
def _normalizer_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The derivative of the implicit function: exp_t' is exp_t^t."""
    scores, excess = primals
    shift = _normalizer(scores, excess)
    escort = jnp.exp((1 + excess) * _log_exp_t(scores - shift, excess))
    mean = jnp.sum(escort * tangents[0], axis=-1, keepdims=True)
    return shift, mean / jnp.sum(escort, axis=-1, keepdims=True)
