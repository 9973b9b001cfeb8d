r"""Sign descent: steps of one size, by the sign of the gradient or of its average.

.. math::

    u_t = \mathrm{sign}(g_t)

and for Signum, with :math:`m_t = \beta m_{t-1} + (1 - \beta) g_t`,
:math:`u_t = \mathrm{sign}(m_t)`. The step is :math:`-\alpha u_t`.

References:
  Bernstein et al., signSGD: compressed optimisation for non-convex problems, 2018
  (arXiv 1802.04434).
"""

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LearningRate,
    chain,
    ema,
    example,
    scale_by_learning_rate,
    scale_by_sign,
    transformation,
)


@example(1e-3)
@transformation
def sign_sgd(learning_rate: LearningRate) -> GradientTransformationExtraArgs:
    """Descent by the sign of the gradient, u = -learning_rate * sign(g).

    State: none.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.

    Returns:
      A transformation whose state is the tuple of an empty one and the learning rate's.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import sign_sgd
      >>> optimizer = sign_sgd(0.1)
      >>> optimizer.update(jnp.array([3.0, -0.01]), optimizer.init(jnp.zeros(2)))[0]
      Array([-0.1,  0.1], dtype=float32)
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


@example(1e-3)
@transformation
def signum(
    learning_rate: LearningRate, beta: Decay = 0.9, accumulator_dtype: DType | None = None
) -> GradientTransformationExtraArgs:
    """Descent by the sign of the average gradient, u = -learning_rate * sign(m).

    State: one number a parameter, 4 bytes for float32, 2 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      beta: Decay of the average, in [0, 1]; with 0 this is `sign_sgd`.
      accumulator_dtype: The dtype of the average; the parameter's with None.

    Returns:
      A transformation whose state is the tuple of the average's, an empty one and the learning
      rate's.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import signum
      >>> optimizer = signum(0.1)
      >>> state = optimizer.init(jnp.zeros(()))
      >>> for gradient in (10.0, -1.0):  # the first outweighs the second
      ...     updates, state = optimizer.update(jnp.asarray(gradient), state)
      >>> updates
      Array(-0.1, dtype=float32)
    """
    return chain(
        ema(beta, debias=False, accumulator_dtype=accumulator_dtype),
        scale_by_sign(),
        scale_by_learning_rate(learning_rate),
    )
