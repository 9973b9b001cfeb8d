"""Looking up the learning rate of an optimizer, for logging."""

from collections.abc import Hashable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from grad_core.nodes import node_of
from grad_core.types import GradientTransformation, OptState

LearningRates: TypeAlias = jax.Array | dict[Hashable, jax.Array]
"""A learning rate, or, where parameters are partitioned, one for each label."""


def current_learning_rate(optimizer: GradientTransformation, state: OptState) -> LearningRates:
    """The learning rate that the next ``update`` with this state uses.

    Numbers and schedules come from the optimizer, the count from its state, through any nesting of
    chains, masks and partitions; of several in one chain, the product.

    Args:
      optimizer: A transformation made by the factories of this library.
      state: Its state.

    Returns:
      An array of shape (); for a `partition` whose transformations have learning rates, a dict of
      them by label.

    Raises:
      ValueError: If the optimizer has no learning rate that can be looked up.

    Example:
      >>> import grad_core
      >>> halving = lambda count: 0.5**count
      >>> optimizer = grad_core.chain(
      ...     grad_core.clip(1.0), grad_core.scale_by_learning_rate(halving)
      ... )
      >>> state = optimizer.init(0.0)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(1.0, state)
      >>> grad_core.current_learning_rate(optimizer, state)
      Array(0.125, dtype=float32, weak_type=True)
    """
    rate: Any = node_of(optimizer, "current_learning_rate").learning_rate(state)
    if rate is None:
        raise ValueError(
            f"current_learning_rate: {optimizer!r} has none that can be looked up; it is an "
            "argument learning_rate of one of this library's transformations."
        )
    rates: LearningRates = jax.tree.map(jnp.asarray, rate)
    return rates
