r"""Polyak's step size: as far as the loss still is from its least value.

For the loss f_t with the gradient g_t, its norm taken over the whole tree:

.. math::

    \gamma(g) &= \min\left(\frac{f_t - f_{min}}{\|g\|^2 + \varepsilon}, \gamma_{max}\right) \\
    \theta_{t+1} &= \theta_t - \gamma(c g_t) \, c g_t

With the scaling c, far from the bound, steps are 1 / c times Polyak's, as with the constant c of
the stochastic method. :math:`\gamma` is 0 where its divisor is. The variant ``"sps+"`` has
:math:`\max(f_t - f_{min}, 0)` for :math:`f_t - f_{min}`.

References:
  Polyak, Introduction to optimization, 1987, section 5.3.
  Loizou et al., Stochastic Polyak step-size for SGD: an adaptive learning rate for fast
  convergence, 2020 (arXiv 2002.10542).
  Garrigos et al., Function value learning: adaptive learning rates based on the Polyak stepsize
  and function splitting in ERM, 2023 (arXiv 2307.14528), for ``"sps+"``.
"""

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Numeric,
    Real,
    Updates,
    chain,
    global_norm,
    needs_extra_args,
    rule,
    safe_divide,
    safe_norm,
    safe_sqrt,
    scale_by_learning_rate,
    transformation,
)

Variant: TypeAlias = Literal["sps", "sps+"]


@needs_extra_args(value=2.0)
@rule
def scale_by_polyak(
    f_min: Real = 0.0,
    max_learning_rate: Real = 1.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> LeafRule:
    """Multiplies by Polyak's step size: u = min((value - f_min) / (|g|^2 + eps), max) * g.

    Its ``update`` takes the loss as the extra argument ``value``, of shape ().

    Args:
      f_min: The least value of the loss; 0 for models that fit all data.
      max_learning_rate: The largest step size.
      eps: Added to the squared norm.
      variant: ``"sps"``, or ``"sps+"`` for a step size of 0 where the loss is below `f_min`; there
        ``"sps"`` has a negative one.

    Returns:
      A transformation without state.

    Raises:
      ValueError: If there is no such variant.
      MissingArgumentError: By ``update``, without ``value``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_polyak
      >>> tx = scale_by_polyak()
      >>> updates, _ = tx.update(jnp.array([3.0, 4.0]), tx.init(jnp.zeros(2)), value=5.0)
      >>> print(jnp.array_str(updates, precision=4))
      [0.6 0.8]
    """

    def once(updates: Updates, value: Numeric) -> dict[str, Any]:
        norm = global_norm(updates)
        # The root of |g|^2 + eps, which divides twice, since the square may overflow.
        root = safe_norm(jnp.stack([norm, safe_sqrt(jnp.asarray(eps, norm.dtype))]), 0.0)
        gap = jnp.asarray(value, norm.dtype) - f_min
        if variant == "sps+":
            gap = jnp.maximum(gap, 0)
        step_size = safe_divide(safe_divide(gap, root), root)
        return {"step_size": jnp.minimum(step_size, max_learning_rate)}

    def step(g: jax.Array, step_size: jax.Array) -> jax.Array:
        return step_size * g

    return LeafRule(step, once=once)


@needs_extra_args(value=2.0)
@transformation
def polyak_sgd(
    max_learning_rate: Real = 1.0,
    scaling: LearningRate = 1.0,
    f_min: Real = 0.0,
    eps: NonNegative = 0.0,
    variant: Variant = "sps",
) -> GradientTransformationExtraArgs:
    """Gradient descent with Polyak's step size for scaled gradients; see the module.

    Its ``update`` takes the loss as the extra argument ``value``. State: none.

    Args:
      max_learning_rate: As for `scale_by_polyak`, and so are the others but `scaling`.
      scaling: What gradients are multiplied by first: a number, an array of shape () or a schedule.
      f_min: The least value of the loss.
      eps: Added to the squared norm.
      variant: ``"sps"`` or ``"sps+"``.

    Returns:
      A transformation whose state is the tuple of the scaling's and an empty one.

    Raises:
      ValueError: If there is no such variant.
      MissingArgumentError: By ``update``, without ``value``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core import apply_updates
      >>> from grad_optimizers import polyak_sgd
      >>> optimizer = polyak_sgd()
      >>> params = jnp.array([3.0, 4.0])
      >>> value, grads = jax.value_and_grad(lambda p: jnp.sum(p**2))(params)
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(grads, state, params, value=value)
      >>> apply_updates(params, updates)
      Array([1.5, 2. ], dtype=float32)
    """
    return chain(
        scale_by_learning_rate(scaling), scale_by_polyak(f_min, max_learning_rate, eps, variant)
    )
