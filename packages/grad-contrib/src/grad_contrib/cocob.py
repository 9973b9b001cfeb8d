r"""COCOB: stochastic optimization as betting on coins, without a learning rate.

For the gradient g_t of a parameter, elementwise, from its first value :math:`\theta_1`; the first
L is :math:`\varepsilon`, all else starts from 0:

.. math::

    L_t &= \max(L_{t-1}, |g_t|) \\
    G_t &= G_{t-1} + |g_t| \\
    R_t &= \max(R_{t-1} - g_t (\theta_t - \theta_1), 0) \\
    S_t &= S_{t-1} - g_t \\
    \theta_{t+1} &= \theta_1 + \frac{S_t}{L_t \max(G_t + L_t, a L_t)} (L_t + R_t)

R is the reward won so far, of which a fraction is bet on the next gradient. As all steps start from
the first parameters, nothing else should move them.

References:
  Orabona and Tommasi, Training deep networks without learning rates through coin betting, 2017
  (arXiv 1705.07795), algorithm 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from grad_contrib._sums import wide_zeros
from grad_core import (
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Params,
    Updates,
    abs_sq,
    add_decayed_weights,
    chain,
    copy_of,
    exempt,
    full_like,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)


class COCOBState(NamedTuple):
    """The first parameters, the sum S, the scale L, the sum G of absolute values, the reward."""

    init_particles: Params
    cumulative_gradients: Updates
    scale: Updates
    subgradients: Updates
    reward: Updates


_DOWNHILL = "its steps are whole and descend as they are: subtracted, they ascend"


@exempt("decreases_convex_loss", reason=_DOWNHILL)
@exempt("decreases_nonconvex_loss", reason=_DOWNHILL)
@exempt("decreases_stochastic_loss", reason=_DOWNHILL)
@rule
def scale_by_cocob(alpha: NonNegative = 100.0, eps: NonNegative = 1e-8) -> LeafRule:
    """COCOB's whole step, which descends; see the module.

    Args:
      alpha: How many times the largest gradient the sum of them counts for at least; the larger,
        the shorter the first steps.
      eps: The first value of the scale.

    Returns:
      A transformation whose state is a `COCOBState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import scale_by_cocob
      >>> tx = scale_by_cocob(alpha=4.0)
      >>> params = jnp.array([1.0, -1.0])
      >>> tx.update(params, tx.init(params), params)[0]
      Array([-0.25,  0.25], dtype=float32)
    """

    def step(
        g: jax.Array,
        p: jax.Array,
        init_particles: jax.Array,
        cumulative_gradients: jax.Array,
        scale: jax.Array,
        subgradients: jax.Array,
        reward: jax.Array,
    ) -> tuple[jax.Array, ...]:
        size = safe_sqrt(abs_sq(g)) if jnp.iscomplexobj(g) else jnp.abs(g)
        way = p - init_particles
        scale = jnp.maximum(scale, size)
        subgradients = subgradients + size
        reward = jnp.maximum(reward - jnp.real(jnp.conj(g) * way), 0.0)
        cumulative_gradients = cumulative_gradients - g
        limit = jnp.maximum(subgradients + scale, alpha * scale)
        bet = safe_divide(cumulative_gradients, limit) * (1 + safe_divide(reward, scale))
        return bet - way, init_particles, cumulative_gradients, scale, subgradients, reward

    zeros = second_moment()
    return LeafRule(
        step,
        COCOBState,
        init_particles=copy_of,
        cumulative_gradients=wide_zeros,
        scale=lambda p: full_like(zeros(p), eps),
        subgradients=zeros,
        reward=zeros,
    )


@transformation
def cocob(
    learning_rate: LearningRate = 1.0,
    alpha: NonNegative = 100.0,
    eps: NonNegative = 1e-8,
    weight_decay: LearningRate = 0.0,
    mask: MaskOrFn | None = None,
) -> GradientTransformationExtraArgs:
    """COCOB: betting on coins; see the module.

    State: five numbers a parameter, 20 bytes for float32, 18 for bfloat16.

    Args:
      learning_rate: What multiplies the gradients, which hardly matters while it is constant: a
        number, an array of shape () or a schedule; with a negative one it ascends.
      alpha: As for `scale_by_cocob`, and so is `eps`.
      eps: The first value of the scale.
      weight_decay: The multiple of the parameters that is added to the gradients.
      mask: Which leaves to decay, as in `masked`; all with None.

    Returns:
      A transformation whose state is the tuple of the states of the decay, the rate, and a
      `COCOBState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import cocob
      >>> optimizer = cocob(alpha=4.0)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0]
      Array([-0.25,  0.25], dtype=float32)
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )
