r"""LAMB: Adam's direction, with steps as long as a share of each layer's weights.

With Adam's direction :math:`u_t` (see `grad_optimizers.adam`), for each leaf:

.. math::

    r_t &= u_t + \lambda \theta_t \\
    \theta_{t+1} &= \theta_t - \alpha \frac{\|\theta_t\|}{\|r_t\|} r_t

and where one of the norms is 0, :math:`\theta_{t+1} = \theta_t - \alpha r_t`.

References:
  You et al., Large batch optimization for deep learning: training BERT in 76 minutes, 2019
  (arXiv 1904.00962).
"""

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LearningRate,
    MaskOrFn,
    NonNegative,
    add_decayed_weights,
    chain,
    example,
    exempt,
    scale_by_learning_rate,
    scale_by_trust_ratio,
    transformation,
)
from grad_optimizers.adam import scale_by_adam


@example(1e-2)
@exempt(
    "needs_little_memory_on_tpu",
    reason="no elementwise rule: a leaf's direction is whole in memory before its norm is known",
)
@transformation
def lamb(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """LAMB: Adam with steps of the norm learning_rate * |p| for each leaf p, for large batches.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adam`, and so are the others up to `eps_root`.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      weight_decay: The multiple of the parameters that is added to Adam's direction.
      mask: Which leaves to decay, as in `masked`; all with None.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is the tuple of the states of Adam, the decay, the trust ratio
      and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import lamb
      >>> optimizer = lamb(0.1)
      >>> params = jnp.array([3.0, 4.0])  # of norm 5, so that the step is of norm 0.5
      >>> updates, _ = optimizer.update(jnp.array([0.0, 9.0]), optimizer.init(params), params)
      >>> updates
      Array([-0. , -0.5], dtype=float32)
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )
