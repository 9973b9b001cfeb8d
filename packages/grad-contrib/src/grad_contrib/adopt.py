r"""ADOPT: Adam that divides each gradient by the second moment of those before it.

For the gradient g_t of a parameter, elementwise, with :math:`v_1 = |g_1|^2` and no first step;
for t > 1:

.. math::

    c_t &= \mathrm{clip}(g_t / \max(\sqrt{v_{t-1}}, \varepsilon), -(t - 1)^{1/4}, (t - 1)^{1/4}) \\
    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) c_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2

and the step is :math:`-\alpha m_t`, or :math:`-\alpha (\beta_1 m_t + (1 - \beta_1) c_t)` with
Nesterov's look-ahead. As the gradient is no part of what divides it, it converges for every
:math:`\beta_2`.

References:
  Taniguchi et al., ADOPT: modified Adam can converge with any beta_2 with the optimal rate, 2024
  (arXiv 2411.02853), algorithm 2.
"""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    StepSchedule,
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
from grad_optimizers import ScaleByAdamState


def fourth_root(step: jax.Array) -> jax.Array:
    """The bound of what is averaged: the fourth root of the number of steps before this one."""
    return jnp.asarray(step, jnp.result_type(float)) ** 0.25


@transformation
def scale_by_adopt(
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: StepSchedule = fourth_root,
    nu_dtype: DType | None = None,
) -> GradientTransformation:
    """ADOPT's direction, the mean of g / max(sqrt(v), eps), clipped; see the module for the rest.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      eps: The least value of the root.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nesterov: Whether to look one step ahead.
      use_clipping: Whether to clip what is averaged.
      clip_value_fn: A function from the number of updates before this one to the bound; the fourth
        root by default. Complex numbers are clipped by their modulus.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdamState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_adopt
      >>> tx = scale_by_adopt(b1=0.0)
      >>> state = tx.init(jnp.zeros(2))
      >>> _, state = tx.update(jnp.array([2.0, 2.0]), state)
      >>> tx.update(jnp.array([1.0, 9.0]), state)[0].round(3)
      Array([0.5, 1. ], dtype=float32)
    """
    ours = clip_value_fn is fourth_root  # which may run compiled, as users' functions may not
    bound = None if ours or not use_clipping else clip_value_fn
    return _scale_by_adopt(b1, b2, eps, mu_dtype, nesterov, use_clipping, bound, nu_dtype)


@rule
def _scale_by_adopt(
    b1: Decay,
    b2: Decay,
    eps: NonNegative,
    mu_dtype: DType | None,
    nesterov: bool,
    use_clipping: bool,
    clip_value_fn: StepSchedule | None,
    nu_dtype: DType | None,
) -> LeafRule:
    """`scale_by_adopt`, with None for its own bound."""

    def once(count: jax.Array) -> dict[str, Any]:
        scalars: dict[str, Any] = {"is_first": count == 0}
        if use_clipping:
            scalars["bound"] = (clip_value_fn or fourth_root)(count)
        return scalars

    def clipped(c: jax.Array, bound: jax.Array) -> jax.Array:
        if not jnp.iscomplexobj(c):
            return jnp.clip(c, -bound, bound)
        size = safe_sqrt(abs_sq(c))
        return c * jnp.where(size > bound, safe_divide(bound * jnp.ones_like(size), size), 1.0)

    def step(
        g: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        is_first: jax.Array,
        bound: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        c = safe_divide(g, jnp.maximum(safe_sqrt(nu), eps))
        c = c if bound is None else clipped(c, bound)
        c = jnp.where(is_first, 0.0, c)
        mu = b1 * mu + (1 - b1) * c
        u = b1 * mu + (1 - b1) * c if nesterov else mu
        nu = jnp.where(is_first, abs_sq(g), b2 * nu + (1 - b2) * abs_sq(g))
        return u, mu, nu

    return LeafRule(
        step, ScaleByAdamState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


@example(1e-2)
@transformation
def adopt(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.9999,
    eps: NonNegative = 1e-6,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: StepSchedule = fourth_root,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """ADOPT: Adam whose gradients are scaled first and averaged then; the first makes no step.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adopt`, and so are the others.
      b2: Decay of the second moment.
      eps: The least value of the root.
      mu_dtype: The dtype of the first moment.
      nesterov: Whether to look one step ahead.
      use_clipping: Whether to clip what is averaged.
      clip_value_fn: A function from the number of updates before this one to the bound.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import adopt
      >>> optimizer = adopt(0.1, b1=0.0)
      >>> state = optimizer.init(jnp.zeros(1))
      >>> for _ in range(2):
      ...     updates, state = optimizer.update(jnp.array([3.0]), state)
      >>> updates.round(3)
      Array([-0.1], dtype=float32)
    """
    direction = scale_by_adopt(
        b1,
        b2,
        eps,
        mu_dtype,
        nesterov=nesterov,
        use_clipping=use_clipping,
        clip_value_fn=clip_value_fn,
        nu_dtype=nu_dtype,
    )
    return chain(direction, scale_by_learning_rate(learning_rate))
