r"""NAdam, Adam with Nesterov's look-ahead, and NAdamW with decoupled weight decay.

With Adam's moments m_t and v_t of the gradient g_t, elementwise:

.. math::

    \hat m_t &= \beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t) \\
    u_t &= \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

NAdam steps by :math:`-\alpha u_t`, NAdamW by :math:`-\alpha (u_t + \lambda \theta_t)`. The moments
and the rest are told in `grad_optimizers.adam`.

References:
  Dozat, Incorporating Nesterov momentum into Adam, 2016.
  Loshchilov and Hutter, Decoupled weight decay regularization, 2017 (arXiv 1711.05101).
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
    scale_by_learning_rate,
    transformation,
)
from grad_optimizers.adam import scale_by_adam


@example(1e-2)
@transformation
def nadam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adam that looks one step ahead: the momentum of the next step, with this step's gradient.

    State: as for `adam`, two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      nesterov: Whether to look one step ahead; without, this is Adam.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import nadam
      >>> optimizer = nadam(0.1)
      >>> params = jnp.array([2.0, -3.0])
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> print(f"{updates[0]:.4f} {updates[1]:.4f}")
      -0.1474 0.1474
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@example(1e-2)
@transformation
def nadamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: LearningRate = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = True,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """NAdam with decoupled weight decay: the step is -learning_rate * (u + weight_decay * p).

    State: as for `adam`, two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      nesterov: Whether to look one step ahead; without, this is AdamW.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of Adam, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import nadamw
      >>> optimizer = nadamw(0.1, weight_decay=0.1, mask=r".*kernel")
      >>> params = {"kernel": jnp.ones(1), "bias": jnp.ones(1)}
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> print(f"{updates['kernel'][0]:.4f} {updates['bias'][0]:.4f}")
      -0.1574 -0.1474
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
