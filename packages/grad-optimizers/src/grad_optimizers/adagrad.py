r"""Adagrad: each element divided by the root of the sum of its squares.

.. math::

    s_t &= s_{t-1} + |g_t|^2 \\
    u_t &= g_t / \sqrt{s_t + \varepsilon}, \qquad u_t = 0 \text{ where } s_t = 0

from a positive first value :math:`s_0`; the step is :math:`-\alpha u_t`.

References:
  Duchi, Hazan and Singer, Adaptive subgradient methods for online learning and stochastic
  optimization, 2011.
"""

from typing import NamedTuple

import jax

from grad_core import (
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Updates,
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


class ScaleByRssState(NamedTuple):
    """The sum of the squares of the gradients."""

    sum_of_squares: Updates


@rule
def scale_by_rss(
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Divides by the root of the sum of squares, u = g / sqrt(s + eps), and 0 where s is 0.

    Args:
      initial_accumulator_value: The first value of the sum, which keeps first steps short.
      eps: Added under the root.
      nu_dtype: The dtype of the sum; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByRssState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_rss
      >>> tx = scale_by_rss(16.0, eps=0.0)
      >>> tx.update(jnp.array([3.0, 0.0]), tx.init(jnp.zeros(2)))[0]
      Array([0.6, 0. ], dtype=float32)
    """
    zeros = second_moment(nu_dtype)

    def step(g: jax.Array, sum_of_squares: jax.Array) -> tuple[jax.Array, jax.Array]:
        s = sum_of_squares + abs_sq(g)
        return safe_divide(g, safe_sqrt(s + eps)), s

    return LeafRule(
        step,
        ScaleByRssState,
        sum_of_squares=lambda p: full_like(zeros(p), initial_accumulator_value),
    )


@example(1e-1)
@transformation
def adagrad(
    learning_rate: LearningRate,
    initial_accumulator_value: NonNegative = 0.1,
    eps: NonNegative = 1e-7,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adagrad: steps that shorten as squares add up, for each element at its own pace.

    State: one number a parameter, 4 bytes for float32, and 4 for bfloat16 (2 with
    ``nu_dtype=jnp.bfloat16``, in which sums soon stop growing).

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      initial_accumulator_value: The first value of the sum of squares.
      eps: Added under the root.
      nu_dtype: The dtype of the sum.

    Returns:
      A transformation whose state is the tuple of a `ScaleByRssState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adagrad
      >>> optimizer = adagrad(0.5, initial_accumulator_value=0.0)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.5,  0.5], dtype=float32)
    """
    return chain(
        scale_by_rss(initial_accumulator_value, eps, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
