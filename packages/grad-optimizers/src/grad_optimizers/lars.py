r"""LARS: momentum, with steps as long as a share of each layer's weights.

For each leaf:

.. math::

    r_t &= g_t + \lambda \theta_t \\
    s_t &= -\alpha \eta \frac{\|\theta_t\|}{\|r_t\| + \varepsilon} r_t \\
    m_t &= s_t + \mu m_{t-1}, \qquad \theta_{t+1} = \theta_t + m_t

with :math:`s_t = -\alpha r_t` where one of the norms is 0, and for leaves without a trust ratio;
with Nesterov's momentum, :math:`\theta_{t+1} = \theta_t + s_t + \mu m_t`.

References:
  You et al., Large batch training of convolutional networks, 2017 (arXiv 1708.03888).
"""

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Real,
    add_decayed_weights,
    chain,
    example,
    masked,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    trace,
    transformation,
)


@example(1.0)
@transformation
def lars(
    learning_rate: LearningRate,
    weight_decay: LearningRate = 0.0,
    weight_decay_mask: MaskOrFn = True,
    trust_coefficient: Real = 0.001,
    eps: NonNegative = 0.0,
    trust_ratio_mask: MaskOrFn = True,
    momentum: Decay = 0.9,
    nesterov: bool = False,
    *,
    accumulator_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """LARS: momentum over steps of the norm learning_rate * trust_coefficient * |p|.

    State: one number a parameter, 4 bytes for float32, 2 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free. Its steps are
        `trust_coefficient` times shorter than those of other optimizers.
      weight_decay: The multiple of the parameters that is added to the gradient.
      weight_decay_mask: Which leaves to decay, as in `masked`; biases and norms are often left out.
      trust_coefficient: The share of a leaf's norm that a step at the learning rate 1 has.
      eps: Added to the norm of the direction.
      trust_ratio_mask: Which leaves to give steps of that norm, as in `masked`.
      momentum: The decay of the sum of past steps, in [0, 1].
      nesterov: Whether the momentum looks one step ahead.
      accumulator_dtype: The dtype of the sum; the parameter's with None.

    Returns:
      A transformation whose state is the tuple of the states of the decay, the trust ratio, the
      rate and the momentum.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import lars
      >>> optimizer = lars(1.0, trust_coefficient=0.01)
      >>> params = jnp.array([30.0, 40.0])  # of norm 50, so that the step is of norm 0.5
      >>> optimizer.update(jnp.array([0.0, 9.0]), optimizer.init(params), params)[0]
      Array([ 0. , -0.5], dtype=float32)
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(0.0, trust_coefficient, eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov, accumulator_dtype),
    )
