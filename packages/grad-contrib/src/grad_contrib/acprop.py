r"""ACProp: the gradient over the root of its variance, as known before this gradient.

For the gradient g_t of a parameter, elementwise:

.. math::

    u_t &= g_t / (\sqrt{s_{t-1} / (1 - \beta_2^{t-1})} + \varepsilon) \\
    s_t &= \beta_2 s_{t-1} + (1 - \beta_2) |g_t - m_{t-1}|^2 + \bar\varepsilon \\
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t

where for t = 1, without a variance, the root counts as 1, and the step is :math:`-\alpha (u_t +
\lambda \theta_t)`. The paper writes :math:`|g_t - m_t|^2`, which is :math:`\beta_1^2` times that:
the steps here are :math:`\beta_1` times as long. A gradient that follows zeros alone is divided by
the root of :math:`\bar\varepsilon` alone: for float16 choose a larger one.

References:
  Zhuang et al., Momentum centering and asynchronous update for adaptive gradient methods, 2021
  (arXiv 2110.05454).
"""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    abs_sq,
    add_decayed_weights,
    chain,
    example,
    exempt,
    first_moment,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)
from grad_optimizers import ScaleByBeliefState

_TINY_ROOT = "a gradient after zeros alone, over the root of eps_root alone, is beyond float16"
_beyond_float16 = exempt("zero_gradients_are_finite[float16]", reason=_TINY_ROOT)
_beyond_float16_too = exempt("extreme_gradients_are_finite[float16]", reason=_TINY_ROOT)


@_beyond_float16
@_beyond_float16_too
@rule
def scale_by_acprop(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """ACProp's direction, g over the root of the variance before it; see the module for the rest.

    Args:
      b1: Decay of the mean of the gradients, in [0, 1].
      b2: Decay of their variance, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added to the variance at each step.
      mu_dtype: The dtype of the mean; the parameter's with None.
      nu_dtype: The dtype of the variance; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByBeliefState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_acprop
      >>> tx = scale_by_acprop()
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([2.0, 2.0]), state)
      >>> tx.update(jnp.array([1.0, -4.0]), state)[0].round(3)
      Array([ 0.5, -2. ], dtype=float32)
    """

    def once(count: jax.Array) -> dict[str, Any]:
        return {"is_first": count == 0, "c2": 1 / (1 - b2 ** jnp.maximum(count, 1))}

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, is_first: jax.Array, c2: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        root = jnp.where(is_first, 1.0, safe_sqrt(c2 * nu))
        new_nu = b2 * nu + (1 - b2) * abs_sq(g - mu) + eps_root
        return safe_divide(g, root + eps), b1 * mu + (1 - b1) * g, new_nu

    return LeafRule(
        step, ScaleByBeliefState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


@_beyond_float16
@_beyond_float16_too
@example(1e-2)
@transformation
def acprop(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """ACProp: gradient descent, scaled by the deviation of the gradients before.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16. The first step is the
    gradient itself: begin with small learning rates, or clip.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_acprop`, and so are the others.
      b2: Decay of the variance.
      eps: Added to the root.
      eps_root: Added to the variance.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the mean.
      nu_dtype: The dtype of the variance.

    Returns:
      A transformation whose state is the tuple of the states of ACProp, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import acprop
      >>> optimizer = acprop(0.1)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.2,  0.3], dtype=float32)
    """
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
