r"""Lion: the sign of an interpolated momentum.

.. math::

    c_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    u_t &= \mathrm{sign}(c_t) \\
    m_t &= \beta_2 m_{t-1} + (1 - \beta_2) g_t

with decoupled weight decay, :math:`\theta_{t+1} = \theta_t - \alpha (u_t + \lambda \theta_t)`.

References:
  Chen et al., Symbolic discovery of optimization algorithms, 2023 (arXiv 2302.06675).
"""

from typing import Literal, NamedTuple, TypeAlias

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
    Updates,
    add_decayed_weights,
    chain,
    example,
    first_moment,
    rule,
    scale_by_learning_rate,
    transformation,
)


class ScaleByLionState(NamedTuple):
    """The number of updates, and the momentum."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates


Mode: TypeAlias = Literal["hard", "smooth", "refined"]


@rule
def scale_by_lion(
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType | None = None,
    *,
    mode: Mode = "hard",
    smooth_beta: NonNegative = 1.0,
) -> LeafRule:
    """Lion's direction, u = sign(b1 * m + (1 - b1) * g); see the module for the rest.

    Args:
      b1: Weight of the momentum in the direction, in [0, 1].
      b2: Decay of the momentum, in [0, 1].
      mu_dtype: The dtype of the momentum; the parameter's with None.
      mode: What becomes of the interpolated momentum c: ``"hard"``, sign(c); ``"smooth"``,
        tanh(smooth_beta * c); ``"refined"``, c clipped to [-1, 1].
      smooth_beta: The steepness of ``"smooth"``.

    Returns:
      A transformation whose state is a `ScaleByLionState`.

    Raises:
      ValueError: If there is no such mode.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_lion
      >>> tx = scale_by_lion()
      >>> tx.update(jnp.array([3.0, -0.01, 0.0]), tx.init(jnp.zeros(3)))[0]
      Array([ 1., -1.,  0.], dtype=float32)
    """

    def shape(c: jax.Array) -> jax.Array:
        if mode == "smooth":
            return jnp.tanh(smooth_beta * c)
        return jnp.clip(c, -1.0, 1.0) if mode == "refined" else jnp.sign(c)

    def step(g: jax.Array, mu: jax.Array) -> tuple[jax.Array, jax.Array]:
        return shape(b1 * mu + (1 - b1) * g), b2 * mu + (1 - b2) * g

    return LeafRule(step, ScaleByLionState, mu=first_moment(mu_dtype))


@example(1e-3)
@transformation
def lion(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.99,
    mu_dtype: DType | None = None,
    weight_decay: LearningRate = 1e-3,
    mask: MaskOrFn | None = None,
) -> GradientTransformationExtraArgs:
    """Lion: steps of one size, in the direction of the sign of a momentum.

    State: one number a parameter, 4 bytes for float32, half of Adam's. Learning rates are 3 to 10
    times smaller than Adam's, and weight decays as much larger.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_lion`, and so is `b2`.
      b2: Decay of the momentum.
      mu_dtype: The dtype of the momentum.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.

    Returns:
      A transformation whose state is the tuple of the states of Lion, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import lion
      >>> optimizer = lion(1e-3, weight_decay=0.0)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0]
      Array([-0.001,  0.001], dtype=float32)
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
