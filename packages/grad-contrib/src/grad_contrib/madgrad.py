r"""MADGRAD: dual averaging with the cube root of the sum of squares, and momentum.

For the gradient g_t of a parameter, elementwise, from its first value x_0:

.. math::

    \lambda_t &= (\alpha_t + \varepsilon) \sqrt{t} \\
    s_t &= s_{t-1} + \lambda_t g_t \\
    \nu_t &= \nu_{t-1} + |\lambda_t| |g_t|^2 \\
    z_t &= x_0 - s_t / (\sqrt[3]{\nu_t} + \varepsilon) \\
    \theta_{t+1} &= \mu \theta_t + (1 - \mu) z_t

With a negative learning rate it ascends. As all steps start from the first parameters, nothing else
should move them: what scales or clips its updates does not do what it seems to.

References:
  Defazio and Jelassi, Adaptivity without compromise: a momentumized, adaptive, dual averaged
  gradient method for stochastic optimization, 2021 (arXiv 2101.11075); that epsilon is added to the
  learning rate is its implementation's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_contrib._sums import rate_at, wide_zeros
from grad_core import (
    Decay,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Params,
    Updates,
    abs_sq,
    add_decayed_weights,
    chain,
    copy_of,
    example,
    rule,
    safe_divide,
    second_moment,
    transformation,
)


class MadgradState(NamedTuple):
    """The number of updates, the sums of squares and of gradients, the first parameters."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    grad_sum_sq: Updates
    s: Updates
    x0: Params


@example(1e-2)
@rule
def scale_by_madgrad(
    learning_rate: LearningRate, momentum: Decay = 0.9, eps: NonNegative = 1e-6
) -> LeafRule:
    """MADGRAD's whole step, (1 - momentum) * (z - p); see the module for the rest.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      momentum: The part of the parameter that is kept in each step, in [0, 1].
      eps: Added to the cube root, and to the learning rate.

    Returns:
      A transformation whose state is a `MadgradState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_madgrad
      >>> tx = scale_by_madgrad(0.125, momentum=0.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> tx.update(params, tx.init(params), params)[0].round(3)
      Array([-0.25,  0.25], dtype=float32)
    """

    def once(count: jax.Array, t: jax.Array) -> dict[str, Any]:
        return {"weight": (rate_at(learning_rate, count) + eps) * t**0.5}

    def step(
        g: jax.Array,
        p: jax.Array,
        grad_sum_sq: jax.Array,
        s: jax.Array,
        x0: jax.Array,
        weight: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        s = s + weight * g
        nu = grad_sum_sq + jnp.abs(weight) * abs_sq(g)
        z = x0 - safe_divide(s, _cube_root(nu) + eps)
        return (1 - momentum) * (z - p), nu, s, x0

    return LeafRule(
        step,
        MadgradState,
        once=once,
        grad_sum_sq=second_moment(),
        s=wide_zeros,
        x0=copy_of,
    )


def _cube_root(x: jax.Array) -> jax.Array:
    """The cube root, with the derivative 0, in place of infinity, at zero."""
    zero = (x == 0).astype(x.dtype)
    return jnp.cbrt(x + zero) * (1 - zero)


@example(1e-2)
@transformation
def madgrad(
    learning_rate: LearningRate,
    momentum: Decay = 0.9,
    weight_decay: LearningRate = 0.0,
    eps: NonNegative = 1e-6,
) -> GradientTransformationExtraArgs:
    """MADGRAD: steps from the first parameters along the sum of all gradients.

    State: three numbers a parameter, 12 bytes for float32, 10 for bfloat16, whose sums are kept in
    float32 too. Learning rates are of the order of SGD's.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      momentum: The part of the parameter that is kept in each step, in [0, 1].
      weight_decay: The multiple of the parameters that is added to the gradients.
      eps: Added to the cube root, and to the learning rate.

    Returns:
      A transformation whose state is the tuple of the decay's and a `MadgradState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import madgrad
      >>> optimizer = madgrad(0.125, momentum=0.5)
      >>> params = jnp.array([1.0, -1.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.125,  0.125], dtype=float32)
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
