"""Clipping of updates: by value, by block, by global norm, by unit."""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core.conformance import example
from grad_core.hyperparameters import NonNegative
from grad_core.linear_algebra import global_norm
from grad_core.rules import LeafRule
from grad_core.transformations import rule
from grad_core.types import EmptyState, Updates

ClipState = EmptyState
ClipByGlobalNormState = EmptyState
AdaptiveGradClipState = EmptyState


@example(1.0)
@rule
def clip_by_global_norm(max_norm: NonNegative) -> LeafRule:
    """Scales all updates by one factor so that their global norm is at most `max_norm`.

    u = g * min(1, max_norm / |g|), where |g|^2 sums over all leaves. The norm is accumulated in at
    least float32 and neither overflows nor underflows; the factor is computed once.

    Args:
      max_norm: The largest norm that passes unchanged.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import clip_by_global_norm
      >>> tx = clip_by_global_norm(1.0)
      >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init({"w": jnp.zeros(2)}))[0]
      {'w': Array([0.6, 0.8], dtype=float32)}

    Reference:
      Pascanu et al., On the difficulty of training recurrent neural networks, 2012.
    """

    def once(updates: Updates) -> dict[str, Any]:
        norm = global_norm(updates)
        exceeds = norm > max_norm
        return {"factor": jnp.where(exceeds, max_norm / jnp.where(exceeds, norm, 1.0), 1.0)}

    def step(g: jax.Array, factor: jax.Array) -> jax.Array:
        return g * factor

    return LeafRule(step, once=once)
