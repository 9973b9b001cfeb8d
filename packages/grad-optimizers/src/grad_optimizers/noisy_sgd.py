r"""Gradient descent with Gaussian noise that fades.

.. math::

    u_t = g_t + \sqrt{\eta / t^\gamma} \, n_t, \qquad n_t \sim \mathcal N(0, 1), \qquad
    \theta_{t+1} = \theta_t - \alpha u_t

References:
  Neelakantan et al., Adding gradient noise improves learning for very deep networks, 2015
  (arXiv 1511.06807).
"""

from grad_core import (
    GradientTransformationExtraArgs,
    LearningRate,
    NonNegative,
    Real,
    add_noise,
    chain,
    example,
    exempt,
    scale_by_learning_rate,
    transformation,
)
from grad_core.adding import RandomKey


@exempt("agrees_with_float32", reason="in each dtype the generator gives other numbers")
@example(1e-2, key=0)
@transformation
def noisy_sgd(
    learning_rate: LearningRate,
    eta: NonNegative = 0.01,
    gamma: Real = 0.55,
    key: RandomKey | None = None,
    *,
    seed: int | None = None,
) -> GradientTransformationExtraArgs:
    """Gradient descent with noise, u = -learning_rate * (g + sqrt(eta / t^gamma) * n).

    State: none but a count and a random key.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      eta: As for `add_noise`, and so are the others: the variance of the first noise.
      gamma: The exponent of its decay.
      key: A random key or an integer seed.
      seed: The old name of `key`, deprecated.

    Returns:
      A transformation whose state is the tuple of the noise's and the learning rate's.

    Raises:
      ValueError: If both `key` and `seed` are given.
      TypeError: If `key` is neither a random key nor an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import noisy_sgd
      >>> optimizer = noisy_sgd(0.1, eta=0.0, key=0)
      >>> optimizer.update(jnp.array([1.0]), optimizer.init(jnp.array([0.0])))[0]
      Array([-0.1], dtype=float32)
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))
