r"""Adan: Adam with a momentum of gradient differences, for Nesterov's look-ahead.

For the gradient g_t of a parameter, elementwise, with :math:`d_t = g_t - g_{t-1}` and
:math:`d_1 = 0`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t \\
    n_t &= \beta_3 n_{t-1} + (1 - \beta_3) |g_t + (1 - \beta_2) d_t|^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t), \quad \hat v_t = v_t / (1 - \beta_2^t), \quad
    \hat n_t = n_t / (1 - \beta_3^t) \\
    u_t &= (\hat m_t + (1 - \beta_2) \hat v_t) / (\sqrt{\hat n_t + \bar\varepsilon} + \varepsilon)

and the step is :math:`-\alpha (u_t + \lambda \theta_t)`.

The decays here are one minus those of the paper, but the weight of the differences is, as in the
released library, still written :math:`1 - \beta_2`. With 0.92 it is 0.08, where the paper's is
0.92.

References:
  Xie et al., Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models, 2022
  (arXiv 2208.06677).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    Decay,
    DType,
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


class ScaleByAdanState(NamedTuple):
    """The means of gradients, differences and squares; the last gradient; the number of updates."""

    m: Updates
    v: Updates
    n: Updates
    g: Updates
    t: jax.Array


@rule
def scale_by_adan(
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Adan's direction, u = (m_hat + (1 - b2) * v_hat) / (sqrt(n_hat + eps_root) + eps).

    Args:
      b1: Decay of the mean of the gradients, in [0, 1].
      b2: Decay of the mean of their differences, in [0, 1].
      b3: Decay of the second moment, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      mu_dtype: The dtype of the means of gradients and differences, and of the last gradient; the
        parameter's with None.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdanState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_adan
      >>> tx = scale_by_adan()
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(3)
      Array([ 1., -1.], dtype=float32)
    """

    def once(last_t: jax.Array) -> dict[str, Any]:
        t = safe_increment(last_t)
        c1, c2, c3 = 1 / (1 - b1**t), 1 / (1 - b2**t), 1 / (1 - b3**t)
        return {"t": t, "is_first": last_t == 0, "c1": c1, "c2": c2, "c3": c3}

    def step(
        g: jax.Array,
        m: jax.Array,
        v: jax.Array,
        n: jax.Array,
        last_g: jax.Array,
        c1: jax.Array,
        c2: jax.Array,
        c3: jax.Array,
        is_first: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
        d = jnp.where(is_first, 0.0, g - last_g)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * d
        n = b3 * n + (1 - b3) * abs_sq(g + (1 - b2) * d)
        ahead = c1 * m + c2 * (1 - b2) * v
        return safe_divide(ahead, safe_sqrt(c3 * n + eps_root) + eps), m, v, n, g

    moment = first_moment(mu_dtype)
    return LeafRule(
        step,
        ScaleByAdanState,
        once=once,
        m=moment,
        v=moment,
        n=second_moment(nu_dtype),
        g=moment,
        t=np.int32(0),
    )


@example(1e-2)
@transformation
def adan(
    learning_rate: LearningRate,
    b1: Decay = 0.98,
    b2: Decay = 0.92,
    b3: Decay = 0.99,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 1e-8,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adan: Adam with a look-ahead by the momentum of gradient differences.

    State: four numbers a parameter, 16 bytes for float32, 10 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adan`, and so are the others.
      b2: Decay of the mean of the differences.
      b3: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the means of gradients and differences, and of the last gradient.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of Adan, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adan
      >>> optimizer = adan(0.5, weight_decay=0.25)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.75 ,  0.875], dtype=float32)
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
