r"""AdaMax, Adam with the largest gradient in place of the root mean square, and AdaMaxW.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \max(\beta_2 v_{t-1},\, |g_t| + \varepsilon) \\
    u_t &= m_t / ((1 - \beta_1^t)\, v_t)

AdaMax steps by :math:`-\alpha u_t`, AdaMaxW by :math:`-\alpha (u_t + \lambda \theta_t)`.

References:
  Kingma and Ba, Adam: a method for stochastic optimization, 2014, section 7.1 (arXiv 1412.6980).
  Loshchilov and Hutter, Decoupled weight decay regularization, 2017 (arXiv 1711.05101).
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
    add_decayed_weights,
    chain,
    example,
    first_moment,
    rule,
    safe_divide,
    scale_by_learning_rate,
    second_moment,
    transformation,
)
from grad_optimizers.adam import ScaleByAdamState


@rule
def scale_by_adamax(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """AdaMax's direction, u = m_hat / v; see the module for the rest.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: Decay of the largest gradient, in [0, 1].
      eps: Added to each |g|, against division by zero.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nu_dtype: The dtype of the largest gradient; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdamState`; its `nu` is v.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_adamax
      >>> tx = scale_by_adamax()
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        return {"c1": 1 / (1 - b1**t)}

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, c1: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        nu = jnp.maximum(b2 * nu, jnp.abs(g) + eps)
        return safe_divide(c1 * mu, nu), mu, nu

    return LeafRule(
        step, ScaleByAdamState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


@example(1e-2)
@transformation
def adamax(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """AdaMax: descent along the first moment, scaled by the largest gradient of late.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adamax`, and so are the others.
      b2: Decay of the largest gradient.
      eps: Added to each |g|.
      mu_dtype: The dtype of the first moment.
      nu_dtype: The dtype of the largest gradient.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adamax
      >>> optimizer = adamax(0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.5,  0.5], dtype=float32)
    """
    return chain(
        scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@example(1e-2)
@transformation
def adamaxw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    weight_decay: LearningRate = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """AdaMax with decoupled weight decay: the step is -learning_rate * (u + weight_decay * p).

    State: as for `adamax`, two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adamax`, and so are the others.
      b2: Decay of the largest gradient.
      eps: Added to each |g|.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the first moment.
      nu_dtype: The dtype of the largest gradient.

    Returns:
      A transformation whose state is the tuple of the states of AdaMax, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adamaxw
      >>> optimizer = adamaxw(0.5, weight_decay=0.25)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.75 ,  0.875], dtype=float32)
    """
    return chain(
        scale_by_adamax(b1, b2, eps, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
