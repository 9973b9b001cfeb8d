r"""AdEMAMix: Adam with a second momentum, over thousands of gradients.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    \mu_t &= \beta_3 \mu_{t-1} + (1 - \beta_3) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
    u_t &= (\hat m_t + a \mu_t) / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

and the step is :math:`-\alpha (u_t + \lambda \theta_t)`. The slow momentum :math:`\mu` has no bias
correction. The weight a and the decay :math:`\beta_3` may be schedules; the paper raises both from
0 and :math:`\beta_1`, since at full strength from the start they may diverge.

References:
  Pagliardini et al., The AdEMAMix optimizer: better, faster, older, 2024 (arXiv 2409.03137).
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from grad_contrib._sums import rate_at, wide_zeros
from grad_core import (
    Decay,
    DType,
    Fraction,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Updates,
    abs_sq,
    add_decayed_weights,
    chain,
    example,
    first_moment,
    rule,
    safe_divide,
    safe_increment,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)


class ScaleByAdemamixState(NamedTuple):
    """The number of updates, twice; the fast and the slow momentum; the second moment."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    count_m2: jax.Array
    m1: Updates
    m2: Updates
    nu: Updates


@transformation
def scale_by_ademamix(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Fraction | LearningRate = 0.9999,
    alpha: LearningRate = 6.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """AdEMAMix's direction, u = (m_hat + alpha * mu) / (sqrt(v_hat + eps_root) + eps).

    Args:
      b1: Decay of the fast momentum, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      b3: Decay of the slow momentum, in [0, 1], or a schedule of it.
      alpha: The weight of the slow momentum, or a schedule of it.
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      mu_dtype: The dtype of both momenta. With None that of the fast one is the parameter's, and
        that of the slow one at least float32: in bfloat16 it would stop at 3% of its value.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdemamixState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_ademamix
      >>> tx = scale_by_ademamix(b3=0.9, alpha=1.0)
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(3)
      Array([ 1.1, -1.1], dtype=float32)
    """
    dtypes = mu_dtype, nu_dtype
    if callable(b3):
        return _scale_by_ademamix(b1, b2, 0.0, alpha, eps, eps_root, *dtypes, b3_schedule=b3)
    return _scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, *dtypes)


@rule
def _scale_by_ademamix(
    b1: Decay,
    b2: Decay,
    b3: Decay,
    alpha: LearningRate,
    eps: NonNegative,
    eps_root: NonNegative,
    mu_dtype: DType | None,
    nu_dtype: DType | None,
    *,
    b3_schedule: LearningRate | None = None,
) -> LeafRule:
    """`scale_by_ademamix` with the slow decay as a number, if there is no schedule of it."""

    def once(count: jax.Array, t: jax.Array, count_m2: jax.Array) -> dict[str, Any]:
        slow = b3 if b3_schedule is None else rate_at(b3_schedule, count)
        return {
            "c1": 1 / (1 - b1**t),
            "c2": 1 / (1 - b2**t),
            "kept": 1 * slow,
            "new": 1 - slow,
            "weight": rate_at(alpha, count),
            "count_m2": safe_increment(count_m2),
        }

    def step(
        g: jax.Array,
        m1: jax.Array,
        m2: jax.Array,
        nu: jax.Array,
        c1: jax.Array,
        c2: jax.Array,
        kept: jax.Array,
        new: jax.Array,
        weight: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        m1 = b1 * m1 + (1 - b1) * g
        m2 = kept * m2 + new * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        u = safe_divide(c1 * m1 + weight * m2, safe_sqrt(c2 * nu + eps_root) + eps)
        return u, m1, m2, nu

    return LeafRule(
        step,
        ScaleByAdemamixState,
        once=once,
        count_m2=np.int32(0),
        m1=first_moment(mu_dtype),
        m2=wide_zeros if mu_dtype is None else first_moment(mu_dtype),
        nu=second_moment(nu_dtype),
    )


@example(1e-2)
@transformation
def ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    b3: Fraction | LearningRate = 0.9999,
    alpha: LearningRate = 5.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """AdEMAMix: AdamW along a mixture of a fast and a slow momentum.

    State: three numbers a parameter, 12 bytes for float32, 10 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_ademamix`, and so are the others.
      b2: Decay of the second moment.
      b3: Decay of the slow momentum, or a schedule of it.
      alpha: The weight of the slow momentum, or a schedule of it.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of both momenta.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of AdEMAMix, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import ademamix
      >>> optimizer = ademamix(0.5, b3=0.9, alpha=1.0)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.55,  0.55], dtype=float32)
    """
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
