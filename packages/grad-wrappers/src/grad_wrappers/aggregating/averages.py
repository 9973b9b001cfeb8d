"""Means over the elements of a batch, and over batches."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    GradientTransformation,
    LeafRule,
    OptState,
    Params,
    TreeRule,
    Updates,
    chain,
    example,
    rule,
    transformation,
)
from grad_wrappers.aggregating.elements import (
    AggregatedUpdates,
    Aggregator,
    MaybeAxis,
    PerElementUpdates,
    axes_of,
    check_axes,
    check_steps,
    mean_over,
    wide_zeros,
)


class AccumulateAvgUpdatesState(NamedTuple):
    """How many updates are in the mean, whether the last update was a mean, and the mean."""

    micro_step: jax.Array
    ready: jax.Array
    avg_grad: Updates


@rule
def _mean_of_elements(axes: tuple[int, ...]) -> TreeRule:
    def update(
        updates: PerElementUpdates, state: OptState, params: Params
    ) -> tuple[AggregatedUpdates, OptState]:
        check_axes(updates, axes)
        return jax.tree.map(lambda g: mean_over(g, axes).astype(g.dtype), updates), state

    return TreeRule(update)


@transformation
def average_per_element_updates(per_elt_axis: int | Sequence[int] = 0) -> Aggregator:
    """The mean over the elements of a batch.

    Args:
      per_elt_axis: The axis of elements, or several, in each array of the updates.

    Returns:
      An aggregator without state.

    Raises:
      TypeError: If the axis is no integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.aggregating import average_per_element_updates
      >>> mean = average_per_element_updates()
      >>> mean.update(jnp.array([1.0, 2.0, 6.0]), mean.init(0.0))[0]
      Array(3., dtype=float32)
    """
    return Aggregator(*_mean_of_elements(axes_of("average_per_element_updates", per_elt_axis)))


@example(2)
@rule
def accumulate_avg_updates(accumulation_steps: int) -> LeafRule:
    """The mean of every k updates; the updates between are zero.

    m' = m + (g - m) / t for the t-th of k updates, and when t = k the update is m', and m' = 0.
    What follows is to run only then: `process` sees to it.

    Args:
      accumulation_steps: k, at least 1. With 1, updates are left as they are.

    Returns:
      A transformation whose state is the mean of the updates so far.

    Raises:
      ValueError: If k < 1.

    Example:
      >>> from grad_wrappers.aggregating import accumulate_avg_updates
      >>> tx = accumulate_avg_updates(2)
      >>> state = tx.init(0.0)
      >>> for g in (1.0, 3.0):
      ...     updates, state = tx.update(g, state)
      ...     print(updates)
      0.0
      2.0
    """
    check_steps("accumulate_avg_updates", accumulation_steps)
    if accumulation_steps == 1:
        return LeafRule(lambda g: g)

    def once(micro_step: jax.Array) -> dict[str, Any]:
        t = micro_step + 1
        ready = t >= accumulation_steps
        return {"step": t, "is_last": ready, "ready": ready, "micro_step": jnp.where(ready, 0, t)}

    def step(
        g: jax.Array, avg_grad: jax.Array, step: jax.Array, is_last: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        mean = avg_grad + (g - avg_grad) / step
        return jnp.where(is_last, mean, 0), jnp.where(is_last, 0, mean)

    return LeafRule(
        step,
        AccumulateAvgUpdatesState,
        once=once,
        micro_step=np.int32(0),
        ready=np.bool_(False),
        avg_grad=wide_zeros,
    )


@transformation
def average_incrementally_updates(
    per_elt_axis: MaybeAxis, accumulation_steps: int
) -> Aggregator | GradientTransformation:
    """The mean over the elements of every k batches.

    Args:
      per_elt_axis: The axis of elements; None for updates that are means already.
      accumulation_steps: k, at least 1.

    Returns:
      An aggregator, or with an axis of None the gradient transformation `accumulate_avg_updates`.

    Raises:
      ValueError: If k < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.aggregating import average_incrementally_updates
      >>> tx = average_incrementally_updates(0, 2)
      >>> state = tx.init(0.0)
      >>> for g in (jnp.array([1.0, 3.0]), jnp.array([4.0, 8.0])):
      ...     updates, state = tx.update(g, state)
      >>> updates
      Array(4., dtype=float32)
    """
    check_steps("average_incrementally_updates", accumulation_steps)
    accumulated = accumulate_avg_updates(accumulation_steps)
    if per_elt_axis is None:
        return accumulated
    return Aggregator(*chain(average_per_element_updates(per_elt_axis), accumulated))
