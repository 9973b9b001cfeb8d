r"""Optimistic gradient descent: each gradient also predicts the next.

.. math::

    u_t = \alpha g_t + \beta (g_t - g_{t-1}), \qquad g_0 = g_1

and :math:`\theta_{t+1} = \theta_t - \eta u_t`. In games, where descent circles, it converges.
Optimistic Adam puts Adam's directions (see `grad_optimizers.adam`) for the gradients; its first
form has the learning rate for :math:`\alpha` and steps by :math:`-u_t`.

References:
  Mokhtari et al., A unified analysis of extra-gradient and optimistic gradient methods for saddle
  point problems: proximal point approach, 2019 (arXiv 1901.08511).
  Daskalakis et al., Training GANs with optimism, 2017 (arXiv 1711.00141).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Real,
    Updates,
    chain,
    example,
    first_moment,
    rule,
    scale,
    scale_by_learning_rate,
    transformation,
)
from grad_optimizers.adam import scale_by_adam


class ScaleByOptimisticGradientState(NamedTuple):
    """Whether there was no update yet, and the gradient of the last one."""

    is_initial_step: jax.Array
    previous_gradient: Updates


class ScheduledOptimisticGradientState(NamedTuple):
    """The number of updates, for a scheduled alpha, and the gradient of the last one."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    previous_gradient: Updates


@rule
def scale_by_optimistic_gradient(
    alpha: Real = 1.0, beta: Real = 1.0, *, accumulator_dtype: DType | None = None
) -> LeafRule:
    """Adds to a gradient how it changed: u = alpha * g + beta * (g - previous g).

    Args:
      alpha: The weight of the gradient, of any sign.
      beta: The weight of its change; the first gradient counts as unchanged.
      accumulator_dtype: The dtype of the previous gradient; the parameter's with None.

    Returns:
      A transformation whose state is a `ScaleByOptimisticGradientState`.

    Example:
      >>> from grad_optimizers import scale_by_optimistic_gradient
      >>> tx = scale_by_optimistic_gradient()
      >>> state = tx.init(0.0)
      >>> for gradient in (1.0, 3.0):
      ...     updates, state = tx.update(gradient, state)
      >>> updates
      Array(5., dtype=float32)
    """
    return _optimistic_rule(alpha, beta, accumulator_dtype)


def _optimistic_rule(alpha: Real, beta: Real, accumulator_dtype: DType | None) -> LeafRule:
    def once(is_initial_step: jax.Array) -> dict[str, Any]:
        b = jnp.where(is_initial_step, 0.0, beta)
        return {"a": alpha, "b": b, "is_initial_step": False}

    return LeafRule(
        _optimistic_step,
        ScaleByOptimisticGradientState,
        once=once,
        is_initial_step=np.bool_(True),
        previous_gradient=first_moment(accumulator_dtype),
    )


def _optimistic_step(
    g: jax.Array, previous_gradient: jax.Array, a: jax.Array, b: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return a * g + b * (g - previous_gradient), g


@rule
def _optimism(
    learning_rate: LearningRate, optimism: LearningRate, accumulator_dtype: DType | None
) -> LeafRule:
    """`scale_by_optimistic_gradient`, with weights that may be schedules."""
    if not (callable(learning_rate) or callable(optimism)):
        return _optimistic_rule(learning_rate, optimism, accumulator_dtype)

    def once(count: jax.Array) -> dict[str, Any]:
        a, b = (x(count) if callable(x) else x for x in (learning_rate, optimism))
        return {"a": a, "b": jnp.where(count == 0, 0.0, b)}

    return LeafRule(
        _optimistic_step,
        ScheduledOptimisticGradientState,
        once=once,
        previous_gradient=first_moment(accumulator_dtype),
    )


@example(1e-2)
@transformation
def optimistic_gradient_descent(
    learning_rate: LearningRate,
    alpha: Real = 1.0,
    beta: Real = 1.0,
    *,
    accumulator_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Optimistic descent: steps of -learning_rate * (alpha * g + beta * (g - previous g)).

    State: one number a parameter, 4 bytes for float32, 2 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      alpha: As for `scale_by_optimistic_gradient`, and so are the others.
      beta: The weight of the gradient's change.
      accumulator_dtype: The dtype of the previous gradient.

    Returns:
      A transformation whose state is the tuple of a `ScaleByOptimisticGradientState` and the
      learning rate's state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import optimistic_gradient_descent
      >>> optimizer = optimistic_gradient_descent(0.1)
      >>> optimizer.update(jnp.array([1.0]), optimizer.init(jnp.array([0.0])))[0]
      Array([-0.1], dtype=float32)
    """
    return chain(
        scale_by_optimistic_gradient(alpha, beta, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )


@example(1e-2)
@transformation
def optimistic_adam(
    learning_rate: LearningRate,
    optimism: LearningRate | None = None,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = True,
    accumulator_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Optimistic Adam: steps of -(learning_rate * u + optimism * (u - previous u)).

    State: three numbers a parameter, 12 bytes for float32, 8 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      optimism: The weight of the change of Adam's direction u; the learning rate with None.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      nesterov: Whether to look one step ahead.
      accumulator_dtype: The dtype of the previous direction; the parameter's with None.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of Adam, the optimism and the sign;
      with schedules that of the optimism is a `ScheduledOptimisticGradientState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import optimistic_adam
      >>> optimizer = optimistic_adam(0.1, nesterov=False)
      >>> updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.array([0.0])))
      >>> print(jnp.array_str(updates, precision=4))
      [-0.1]
    """
    optimism = learning_rate if optimism is None else optimism
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        _optimism(learning_rate, optimism, accumulator_dtype),
        scale(-1.0),
    )


@example(1e-2)
@transformation
def optimistic_adam_v2(
    learning_rate: LearningRate,
    *,
    alpha: Real = 1.0,
    beta: Real = 1.0,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    nesterov: bool = True,
    accumulator_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Optimistic Adam: steps of -learning_rate * (alpha * u + beta * (u - previous u)).

    State: three numbers a parameter, 12 bytes for float32, 8 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      alpha: The weight of Adam's direction u, of any sign.
      beta: The weight of its change.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      nesterov: Whether to look one step ahead.
      accumulator_dtype: The dtype of the previous direction; the parameter's with None.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of Adam, the optimism and the rate.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import optimistic_adam_v2
      >>> optimizer = optimistic_adam_v2(0.1, alpha=2.0, nesterov=False)
      >>> updates, _ = optimizer.update(jnp.array([3.0]), optimizer.init(jnp.array([0.0])))
      >>> print(jnp.array_str(updates, precision=4))
      [-0.2]
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_optimistic_gradient(alpha, beta, accumulator_dtype=accumulator_dtype),
        scale_by_learning_rate(learning_rate),
    )
