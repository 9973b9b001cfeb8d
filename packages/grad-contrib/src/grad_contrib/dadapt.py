r"""D-Adaptation: AdamW that estimates its own learning rate, the distance to the solution.

With the estimate :math:`d_t`, from a tiny :math:`d_0`, and :math:`\lambda_t = \gamma_t d_{t-1}
\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`, where the learning rate :math:`\gamma_t` is a factor near
1; the inner product and the 1-norm are over the whole tree:

.. math::

    r_t &= \sqrt{\beta_2} r_{t-1} + (1 - \sqrt{\beta_2}) \lambda_t
        \langle g_t, s_{t-1} / (\sqrt{v_{t-1}} + \varepsilon) \rangle \\
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \lambda_t g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2 \\
    s_t &= \sqrt{\beta_2} s_{t-1} + (1 - \sqrt{\beta_2}) \lambda_t g_t \\
    d_t &= \max\left(d_{t-1}, \frac{r_t}{(1 - \sqrt{\beta_2}) \|s_t\|_1}\right) \\
    \theta_{t+1} &= \theta_t - \frac{m_t}{\sqrt{v_t} + \varepsilon} - \lambda_t w \theta_t

As in the authors' implementation, the inner product is weighted by the second moment before this
gradient. While all gradients have been zero, updates are zero and the state stays as it is, the
count included.

References:
  Defazio and Mishchenko, Learning-rate-free learning by D-adaptation, 2023 (arXiv 2301.07733),
  algorithm 5.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_contrib._arguments import pair_of_decays
from grad_contrib._sums import dot, rate_at, rows, total, wide_zeros
from grad_core import (
    Decay,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Real,
    Scalar,
    SharedNumber,
    Updates,
    abs_sq,
    example,
    rule,
    safe_divide,
    safe_increment,
    safe_sqrt,
    second_moment,
    transformation,
)


class DAdaptAdamWState(NamedTuple):
    """Moments m and v, the sum s, the estimate d, the sum r, the number of updates."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuple.count


@example(estim_lr0=0.05)  # the default's first steps are too short to see
@transformation
def dadapt_adamw(
    learning_rate: LearningRate = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    eps: NonNegative = 1e-8,
    estim_lr0: NonNegative = 1e-6,
    weight_decay: Real = 0.0,
) -> GradientTransformationExtraArgs:
    """D-Adaptation: AdamW whose learning rate is an estimate of the distance to the solution.

    State: three numbers a parameter, 12 bytes, for bfloat16 too: at first they are as small as
    `estim_lr0`.

    Args:
      learning_rate: What multiplies the estimate, 1 or a schedule that falls from it: a number, an
        array of shape () or a schedule; its sign is free.
      betas: The decays of the first and the second moment, in [0, 1].
      eps: Added to the root.
      estim_lr0: The first estimate, to be smaller than any sensible learning rate.
      weight_decay: The multiple of the parameters that is added; the whole step size multiplies it.

    Returns:
      A transformation whose state is a `DAdaptAdamWState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_contrib import dadapt_adamw
      >>> from grad_core import apply_updates
      >>> optimizer = dadapt_adamw()
      >>> params = jnp.array([10.0, -20.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(100):
      ...     grads = jax.grad(lambda p: jnp.sum(jnp.abs(p - 1.0)))(params)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     params = apply_updates(params, updates)
      >>> bool(1.0 < state.estim_lr < 50.0)
      True
    """
    b1, b2 = pair_of_decays("dadapt_adamw", betas)
    return _dadapt(  # type: ignore[return-value]
        learning_rate, b1, b2, b2**0.5, eps, estim_lr0, weight_decay
    )


@rule
def _dadapt(
    learning_rate: LearningRate,
    b1: Decay,
    b2: Decay,
    root_b2: Decay,
    eps: NonNegative,
    estim_lr0: NonNegative,
    weight_decay: Real,
) -> LeafRule:
    """The whole step, -m / (sqrt(v) + eps) - lambda * weight_decay * p."""

    def once(
        updates: Updates,
        exp_avg_sq: Updates,
        grad_sum: Updates,
        estim_lr: jax.Array,
        numerator_weighted: jax.Array,
        last_count: jax.Array,
    ) -> dict[str, Any]:
        count, d = last_count, estim_lr
        t = safe_increment(count)
        bias_correction = (1 - b2**t) ** 0.5 / (1 - b1**t)
        size = d * rate_at(learning_rate, count) * bias_correction
        along, length = [], []
        for g, s, v in rows(updates, grad_sum, exp_avg_sq):
            along.append(dot(g, safe_divide(s, safe_sqrt(v) + eps)))
            length.append(jnp.sum(jnp.abs(root_b2 * s + (1 - root_b2) * size * g)))
        r = root_b2 * numerator_weighted + (1 - root_b2) * size * total(along)
        moves = total(length) > 0
        return {
            "size": jnp.where(moves, size, 0.0),
            "estim_lr": jnp.maximum(d, safe_divide(r, (1 - root_b2) * total(length))),
            "numerator_weighted": r,
            "count": jnp.where(moves, t, count),
        }

    def step(
        g: jax.Array,
        p: jax.Array,
        exp_avg: jax.Array,
        exp_avg_sq: jax.Array,
        grad_sum: jax.Array,
        size: jax.Array,
    ) -> tuple[jax.Array, ...]:
        m = b1 * exp_avg + (1 - b1) * size * g
        v = b2 * exp_avg_sq + (1 - b2) * abs_sq(g)
        s = root_b2 * grad_sum + (1 - root_b2) * size * g
        u = safe_divide(m, safe_sqrt(v) + eps) + size * weight_decay * p
        return -u, m, v, s

    return LeafRule(
        step,
        DAdaptAdamWState,
        once=once,
        exp_avg=wide_zeros,
        exp_avg_sq=second_moment(),
        grad_sum=wide_zeros,
        estim_lr=SharedNumber(lambda params: estim_lr0),
        numerator_weighted=SharedNumber(lambda params: 0.0),
        count=np.int32(0),
    )
