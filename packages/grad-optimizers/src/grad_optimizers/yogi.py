r"""Yogi: Adam whose second moment moves by steps of controlled size.

For the gradient g_t of a parameter, elementwise, from small positive :math:`m_0 = v_0`:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= v_{t-1} - (1 - \beta_2) \,\mathrm{sign}(v_{t-1} - |g_t|^2)\, |g_t|^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
    u_t &= \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

and the step is :math:`-\alpha u_t`.

References:
  Zaheer et al., Adaptive methods for nonconvex optimization, 2018.
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
    NonNegative,
    abs_sq,
    chain,
    example,
    full_like,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)
from grad_optimizers.adam import ScaleByAdamState


@rule
def scale_by_yogi(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    eps_root: NonNegative = 0.0,
    initial_accumulator_value: NonNegative = 1e-6,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Yogi's direction, u = m_hat / (sqrt(v_hat + eps_root) + eps); see the module for the rest.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: How slowly the second moment moves, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      initial_accumulator_value: The first value of both moments.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdamState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_yogi
      >>> tx = scale_by_yogi(initial_accumulator_value=0.0, eps=0.0)
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        return {"c1": 1 / (1 - b1**t), "c2": 1 / (1 - b2**t)}

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, c1: jax.Array, c2: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        square = abs_sq(g)
        largest = jnp.finfo(square.dtype).max  # type: ignore[no-untyped-call]
        square = jnp.minimum(square, largest)  # inf - inf would be NaN
        mu = b1 * mu + (1 - b1) * g
        nu = nu - (1 - b2) * jnp.sign(nu - square) * square
        return safe_divide(c1 * mu, safe_sqrt(c2 * nu + eps_root) + eps), mu, nu

    zeros = second_moment(nu_dtype)
    return LeafRule(
        step,
        ScaleByAdamState,
        once=once,
        mu=lambda p: full_like(p, initial_accumulator_value, mu_dtype),
        nu=lambda p: full_like(zeros(p), initial_accumulator_value),
    )


@example(1e-2)
@transformation
def yogi(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-3,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Yogi: Adam whose steps grow slowly again after large gradients.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_yogi`, and so are the others.
      b2: How slowly the second moment moves.
      eps: Added to the root.
      mu_dtype: The dtype of the first moment.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import yogi
      >>> optimizer = yogi(0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(2)
      Array([-0.5,  0.5], dtype=float32)
    """
    return chain(
        scale_by_yogi(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
