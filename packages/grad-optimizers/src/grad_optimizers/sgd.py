r"""Stochastic gradient descent, with momentum.

.. math::

    t_k = g_k + \mu t_{k-1}, \qquad \theta_{k+1} = \theta_k - \alpha u_k

where :math:`u_k = g_k` without momentum, :math:`t_k` with momentum, and :math:`g_k + \mu t_k` with
Nesterov's.

References:
  Robbins and Monro, A stochastic approximation method, 1951.
  Sutskever et al., On the importance of initialization and momentum in deep learning, 2013.
"""

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LearningRate,
    chain,
    example,
    identity,
    scale_by_learning_rate,
    trace,
    transformation,
)


@example(1e-2)
@transformation
def sgd(
    learning_rate: LearningRate,
    momentum: Decay | None = None,
    nesterov: bool = False,
    accumulator_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Gradient descent, u = -learning_rate * g, with momentum if asked for.

    State: none without momentum; with it one number a parameter, 4 bytes for float32.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      momentum: The decay of the sum of past gradients, in [0, 1]; None for plain descent.
      nesterov: Whether the momentum looks one step ahead.
      accumulator_dtype: The dtype of the sum; the parameter's with None.

    Returns:
      A transformation whose state is the tuple of the momentum's and the learning rate's.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import sgd
      >>> optimizer = sgd(0.1, momentum=0.9)
      >>> optimizer.update(jnp.array([1.0]), optimizer.init(jnp.array([0.0])))[0]
      Array([-0.1], dtype=float32)
    """
    return chain(
        identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
