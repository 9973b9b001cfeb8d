r"""Rprop: steps of a size of their own for each number, by the sign of the gradient alone.

Elementwise, with the step size s, at first the learning rate:

.. math::

    s_t &= \mathrm{clip}(\eta_+ s_{t-1}, s_{min}, s_{max}) & \text{where } g_t u_{t-1} > 0 \\
    s_t &= \mathrm{clip}(\eta_- s_{t-1}, s_{min}, s_{max}) & \text{where } g_t u_{t-1} < 0 \\
    u_t &= 0 & \text{where } g_t u_{t-1} < 0 \\
    u_t &= s_t \, \mathrm{sign}(g_t) & \text{elsewhere}

and :math:`\theta_{t+1} = \theta_t - u_t`. It is made for gradients without noise.

References:
  Riedmiller and Braun, A direct adaptive method for faster backpropagation learning: the RPROP
  algorithm, 1993.
  Igel and Hüsken, Improving the Rprop learning algorithm, 2000 (its iRprop-).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    DType,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Real,
    Updates,
    chain,
    example,
    exempt,
    first_moment,
    full_like,
    rule,
    scale,
    second_moment,
    transformation,
)


class ScaleByRpropState(NamedTuple):
    """The step sizes, and the last steps, without the descent's sign."""

    step_sizes: Updates
    prev_updates: Updates


_once_only = exempt(
    "schedules_stand_for_numbers",
    reason="the learning rate is the first step size only, so a schedule is called once, with 0",
)
_UPHILL = "its steps go along the gradient, for `scale(-1.0)` to turn, as in `rprop`"


@exempt("decreases_convex_loss", reason=_UPHILL)
@exempt("decreases_nonconvex_loss", reason=_UPHILL)
@exempt("decreases_stochastic_loss", reason=_UPHILL)
@_once_only
@example(1e-2)
@transformation
def scale_by_rprop(
    learning_rate: LearningRate,
    eta_minus: NonNegative = 0.5,
    eta_plus: NonNegative = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """Rprop's steps, u = s * sign(g), or 0 where the sign changed; see the module for the rest.

    Args:
      learning_rate: The first step size: a number, an array of shape (), or a schedule, whose
        value at 0 it is.
      eta_minus: What multiplies the step size where the gradient changed its sign.
      eta_plus: What multiplies it where it kept it.
      min_step_size: The least step size after such a change.
      max_step_size: The largest.
      mu_dtype: The dtype of the last steps; the parameter's with None.
      nu_dtype: The dtype of the step sizes; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByRpropState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_rprop
      >>> tx = scale_by_rprop(0.1)
      >>> state = tx.init(jnp.zeros(3))
      >>> _, state = tx.update(jnp.array([2.0, 2.0, 0.0]), state)
      >>> tx.update(jnp.array([9.0, -9.0, 9.0]), state)[0]
      Array([0.12, 0.  , 0.1 ], dtype=float32)
    """
    first: Any = (
        learning_rate(jnp.zeros([], jnp.int32)) if callable(learning_rate) else learning_rate
    )
    limits = (min_step_size, max_step_size)
    return _rprop(first, eta_minus, eta_plus, *limits, mu_dtype, nu_dtype)


@rule
def _rprop(
    learning_rate: Real,
    eta_minus: NonNegative,
    eta_plus: NonNegative,
    min_step_size: NonNegative,
    max_step_size: NonNegative,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """`scale_by_rprop` with a number for the first step size."""

    def step(
        g: jax.Array, step_sizes: jax.Array, prev_updates: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # By signs, since the product may underflow; complex numbers agree by the angle between.
        agreement = jnp.real(jnp.sign(g) * jnp.conj(jnp.sign(prev_updates)))
        eta = jnp.where(agreement > 0, eta_plus, eta_minus)
        changed = jnp.clip(step_sizes * eta, min_step_size, max_step_size)
        step_sizes = jnp.where(agreement == 0, step_sizes, changed)
        u = jnp.where(agreement < 0, 0, step_sizes * jnp.sign(g))
        return u, step_sizes, u

    zeros = second_moment(nu_dtype)
    return LeafRule(
        step,
        ScaleByRpropState,
        step_sizes=lambda p: full_like(zeros(p), learning_rate),
        prev_updates=first_moment(mu_dtype),
    )


@_once_only
@example(1e-2)
@transformation
def rprop(
    learning_rate: LearningRate,
    eta_minus: NonNegative = 0.5,
    eta_plus: NonNegative = 1.2,
    min_step_size: NonNegative = 1e-6,
    max_step_size: NonNegative = 50.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Rprop: step sizes that grow while the gradient keeps its sign, and shrink when it changes.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: As for `scale_by_rprop`, and so are the others: the first step size.
      eta_minus: What multiplies the step size where the gradient changed its sign.
      eta_plus: What multiplies it where it kept it.
      min_step_size: The least step size after such a change.
      max_step_size: The largest.
      mu_dtype: The dtype of the last steps.
      nu_dtype: The dtype of the step sizes.

    Returns:
      A transformation whose state is the tuple of a `ScaleByRpropState` and an empty one.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import rprop
      >>> optimizer = rprop(0.1)
      >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.array([0.0])))[0]
      Array([-0.1], dtype=float32)
    """
    limits = (min_step_size, max_step_size)
    scaling = scale_by_rprop(
        learning_rate, eta_minus, eta_plus, *limits, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    return chain(scaling, scale(-1.0))
