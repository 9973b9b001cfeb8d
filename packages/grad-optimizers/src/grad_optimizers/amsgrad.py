r"""AMSGrad: Adam whose second moment never shrinks.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
    w_t &= \max(w_{t-1}, \hat v_t) \\
    u_t &= \hat m_t / (\sqrt{w_t + \bar\varepsilon} + \varepsilon)

and the step is :math:`-\alpha u_t`. The paper has no bias corrections; each can be left out.

References:
  Reddi, Kale and Kumar, On the convergence of Adam and beyond, 2018 (arXiv 1904.09237).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Updates,
    abs_sq,
    chain,
    example,
    first_moment,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)


class ScaleByAmsgradState(NamedTuple):
    """The number of updates, the first and second moments, and the largest second moment."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates
    nu_max: Updates


@rule
def scale_by_amsgrad(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """AMSGrad's direction, u = m_hat / (sqrt(v_max + eps_root) + eps); see the module for the rest.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      bias_correction_mu: Whether to correct the first moment's start from zero.
      bias_correction_nu: Whether to correct the second moment's, before the maximum is taken.
      nu_dtype: The dtype of the second moment and its maximum; with None the parameter's, but at
        least float32.

    Returns:
      A transformation whose state is a `ScaleByAmsgradState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_amsgrad
      >>> tx = scale_by_amsgrad()
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        c1 = 1 / (1 - b1**t) if bias_correction_mu else 1.0
        c2 = 1 / (1 - b2**t) if bias_correction_nu else 1.0
        return {"c1": c1, "c2": c2}

    def step(
        g: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        nu_max: jax.Array,
        c1: jax.Array,
        c2: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        nu_max = jnp.maximum(nu_max, c2 * nu)
        return safe_divide(c1 * mu, safe_sqrt(nu_max + eps_root) + eps), mu, nu, nu_max

    second = second_moment(nu_dtype)
    return LeafRule(
        step, ScaleByAmsgradState, once=once, mu=first_moment(mu_dtype), nu=second, nu_max=second
    )


@example(1e-2)
@transformation
def amsgrad(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """AMSGrad: Adam whose steps do not grow when gradients shrink.

    State: three numbers a parameter, 12 bytes for float32, 10 for bfloat16 (6 with
    ``nu_dtype=jnp.bfloat16``).

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_amsgrad`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      bias_correction_mu: Whether to correct the first moment's start from zero.
      bias_correction_nu: Whether to correct the second moment's.
      nu_dtype: The dtype of the second moment and its maximum.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAmsgradState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import amsgrad
      >>> optimizer = amsgrad(0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.5,  0.5], dtype=float32)
    """
    return chain(
        scale_by_amsgrad(
            b1,
            b2,
            eps,
            eps_root,
            mu_dtype,
            bias_correction_mu,
            bias_correction_nu,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
