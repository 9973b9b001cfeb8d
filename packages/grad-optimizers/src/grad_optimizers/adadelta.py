r"""Adadelta: steps in the units of the parameter, with no learning rate to choose.

For the gradient g_t of a parameter, elementwise, from :math:`e^g_0 = e^x_0 = 0`:

.. math::

    e^g_t &= \rho\, e^g_{t-1} + (1 - \rho) |g_t|^2 \\
    u_t &= g_t \sqrt{e^x_{t-1} + \varepsilon} / \sqrt{e^g_t + \varepsilon} \\
    e^x_t &= \rho\, e^x_{t-1} + (1 - \rho) |u_t|^2

The step is :math:`-\alpha u_t`, with :math:`\alpha = 1` in the paper. Weight decay adds
:math:`\lambda \theta_t` to the gradient.

References:
  Zeiler, Adadelta: an adaptive learning rate method, 2012 (arXiv 1212.5701).
"""

from typing import NamedTuple

import jax

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Updates,
    abs_sq,
    add_decayed_weights,
    chain,
    example,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)


class ScaleByAdaDeltaState(NamedTuple):
    """The mean squares of the gradients, and of the updates."""

    e_g: Updates
    e_x: Updates


@rule
def scale_by_adadelta(
    rho: Decay = 0.9, eps: NonNegative = 1e-6, *, nu_dtype: DType | None = None
) -> LeafRule:
    """Adadelta's direction, u = g * sqrt(e_x + eps) / sqrt(e_g + eps); see the module for the rest.

    Args:
      rho: Decay of both mean squares, in [0, 1].
      eps: Added under both roots; it sets the size of the first steps.
      nu_dtype: The dtype of both mean squares; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdaDeltaState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_adadelta
      >>> tx = scale_by_adadelta(rho=0.0, eps=400.0)
      >>> tx.update(jnp.array([15.0, 0.0]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([12.,  0.], dtype=float32)
    """

    def step(
        g: jax.Array, e_g: jax.Array, e_x: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        new = (1 - rho) * abs_sq(g)
        # eps first: XLA would write the sum that is kept before the rest, and read all again.
        u = safe_divide(g, safe_sqrt(rho * e_g + (new + eps))) * safe_sqrt(e_x + eps)
        return u, rho * e_g + new, rho * e_x + (1 - rho) * abs_sq(u)

    moment = second_moment(nu_dtype)
    return LeafRule(step, ScaleByAdaDeltaState, e_g=moment, e_x=moment)


@example(1.0)  # with None, updates ascend
@transformation
def adadelta(
    learning_rate: LearningRate | None = None,
    rho: Decay = 0.9,
    eps: NonNegative = 1e-6,
    weight_decay: LearningRate = 0.0,
    weight_decay_mask: MaskOrFn | None = None,
    *,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adadelta: the gradient, scaled from its own size to the size of past updates.

    State: two numbers a parameter, 8 bytes for float32, and 8 for bfloat16 (4 with
    ``nu_dtype=jnp.bfloat16``, at the price of mean squares that stop at half their value).

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free. None leaves
        the direction as it is, which ascends: for descent pass 1.
      rho: As for `scale_by_adadelta`, and so is `eps`.
      eps: Added under both roots.
      weight_decay: The multiple of the parameters that is added to the gradients (L2
        regularisation).
      weight_decay_mask: Which leaves to decay, as in `masked`; all with None.
      nu_dtype: The dtype of both mean squares.

    Returns:
      A transformation whose state is the tuple of the states of the decay, Adadelta and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adadelta
      >>> optimizer = adadelta(1.0, rho=0.0, eps=400.0)
      >>> params = jnp.array([15.0, -15.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-12.,  12.], dtype=float32)
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )
