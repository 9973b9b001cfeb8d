r"""Simplified AdEMAMix: one momentum, a sum that forgets, and beside it the gradient.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + g_t \\
    n_t &= \beta_2 n_{t-1} + (1 - \beta_2) |g_t|^2, \qquad \hat n_t = n_t / (1 - \beta_2^t) \\
    u_t &= (a g_t + m_t) / (\sqrt{\hat n_t + \bar\varepsilon} + \varepsilon)

and the step is :math:`-\alpha (u_t + \lambda \theta_t)`. The momentum is a sum, not a mean: for
steps of the length of Adam's, learning rates are :math:`1 - \beta_1` times smaller.

References:
  Morwani et al., Connections between schedule-free optimizers, AdEMAMix, and accelerated SGD
  variants, 2025 (arXiv 2502.02431).
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Real,
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


class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """The number of updates, the momentum, the second moment."""

    t: jax.Array
    m: Updates
    n: Updates


@example(b1=0.9)  # the default's sum of a hundred gradients makes long steps of short ones
@rule
def scale_by_simplified_ademamix(
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: Real = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Simplified AdEMAMix's direction, u = (alpha * g + m) / (sqrt(n_hat + eps_root) + eps).

    Args:
      b1: Decay of the momentum, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      alpha: The weight of the gradient beside the momentum.
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      mu_dtype: The dtype of the momentum; the parameter's with None.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleBySimplifiedAdEMAMixState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_simplified_ademamix
      >>> tx = scale_by_simplified_ademamix(alpha=0.5)
      >>> updates, _ = tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))
      >>> print(jnp.array_str(updates, precision=3))
      [ 1.5 -1.5]
    """

    def once(last_t: jax.Array) -> dict[str, Any]:
        t = safe_increment(last_t)
        return {"t": t, "c2": 1 / (1 - b2**t)}

    def step(
        g: jax.Array, m: jax.Array, n: jax.Array, c2: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        m = b1 * m + g
        n = b2 * n + (1 - b2) * abs_sq(g)
        return safe_divide(alpha * g + m, safe_sqrt(c2 * n + eps_root) + eps), m, n

    return LeafRule(
        step,
        ScaleBySimplifiedAdEMAMixState,
        once=once,
        t=np.int32(0),
        m=first_moment(mu_dtype),
        n=second_moment(nu_dtype),
    )


@example(1e-3)
@transformation
def simplified_ademamix(
    learning_rate: LearningRate,
    b1: Decay = 0.99,
    b2: Decay = 0.95,
    alpha: Real = 0.0,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Simplified AdEMAMix: AdamW along a forgetting sum of gradients, and the gradient itself.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_simplified_ademamix`, and so are the others.
      b2: Decay of the second moment.
      alpha: The weight of the gradient beside the momentum.
      eps: Added to the root.
      eps_root: Added under the root.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the momentum.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of simplified AdEMAMix, the decay and
      the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import simplified_ademamix
      >>> optimizer = simplified_ademamix(0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.5,  0.5], dtype=float32)
    """
    scaling = scale_by_simplified_ademamix(
        b1, b2, alpha, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    return chain(
        scaling,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
