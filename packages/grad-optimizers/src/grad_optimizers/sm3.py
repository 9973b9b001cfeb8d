r"""SM3: Adagrad in the memory of the axes.

A leaf of shape (n_1, ..., n_d) keeps d vectors; axis k's, :math:`\mu^k`, bounds the sums of squares
of its slices. For the gradient g_t at the index :math:`i = (i_1, ..., i_d)`:

.. math::

    \nu_t(i) &= \beta_2 \min_k \mu_{t-1}^k(i_k) + (1 - \beta_2) |g_t(i)|^2 \\
    \mu_t^k(j) &= \max_{i : i_k = j} \nu_t(i) \\
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) \, g_t / \sqrt{\nu_t + \varepsilon}

where for :math:`\beta_2 = 1`, a sum in place of an average, the weight of :math:`|g_t|^2` is 1. The
step is :math:`-\alpha m_t`.

References:
  Anil et al., Memory-efficient adaptive optimization, 2019 (arXiv 1901.11150), SM3-II.
"""

import functools
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


class ScaleBySM3State(NamedTuple):
    """For each leaf, the list of its axes' accumulators in `mu`, and the momentum in `nu`."""

    mu: Updates
    nu: Updates


@rule
def scale_by_sm3(
    b1: Decay = 0.9,
    b2: Decay = 1.0,
    eps: NonNegative = 1e-8,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """SM3's direction, the momentum of g / sqrt(v + eps); see the module for the rest.

    Args:
      b1: Decay of the momentum, in [0, 1].
      b2: Decay of the accumulators, in [0, 1]; with 1 they are sums.
      eps: Added under the root, where that is not 0.
      mu_dtype: The dtype of the momentum (the first moment, in the field `nu`); the parameter's
        with None.
      nu_dtype: The dtype of the accumulators (the second moment, in the field `mu`); with None
        the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleBySM3State`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_sm3
      >>> tx = scale_by_sm3(b1=0.0)
      >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)
    """

    def first_accumulators(p: Any) -> list[jax.Array]:
        zeros = second_moment(nu_dtype)(p)
        axes = range(zeros.ndim)
        return [jnp.sum(zeros, [a for a in axes if a != k]) for k in axes] or [zeros]

    def step(
        g: jax.Array, mu: list[jax.Array], nu: jax.Array
    ) -> tuple[jax.Array, list[jax.Array], jax.Array]:
        axes = range(g.ndim)
        along = [jnp.expand_dims(x, [a for a in axes if a != k]) for k, x in enumerate(mu)]
        new: Any = 1 - b2
        new = jnp.where(new == 0, 1.0, new)
        v = b2 * functools.reduce(jnp.minimum, along) + new * abs_sq(g)
        mu = [jnp.max(v, [a for a in axes if a != k], initial=0.0) for k in axes] or [v]
        m = b1 * nu + (1 - b1) * safe_divide(g, safe_sqrt(v + eps))
        return m, mu, m

    return LeafRule(step, ScaleBySM3State, mu=first_accumulators, nu=first_moment(mu_dtype))


@example(1e-2)
@transformation
def sm3(
    learning_rate: LearningRate,
    momentum: Decay = 0.9,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """SM3: Adagrad whose second moments take one number for each row and column.

    State: one number a parameter, 4 bytes for float32, 2 for bfloat16; and 4 bytes for each index
    of each axis.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      momentum: The decay of the momentum, in [0, 1].
      mu_dtype: As for `scale_by_sm3`, and so is the other.
      nu_dtype: The dtype of the accumulators.

    Returns:
      A transformation whose state is the tuple of a `ScaleBySM3State` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import sm3
      >>> optimizer = sm3(0.1, momentum=0.5)
      >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.array([0.0])))[0].round(4)
      Array([-0.05], dtype=float32)
    """
    return chain(
        scale_by_sm3(momentum, mu_dtype=mu_dtype, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
