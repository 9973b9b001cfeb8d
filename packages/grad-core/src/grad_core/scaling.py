"""Scaling of updates: by a number, a schedule, a norm."""

from typing import Any, NamedTuple

import jax

from grad_core.conformance import example
from grad_core.hyperparameters import LearningRate, Real, StepSchedule
from grad_core.rules import LeafRule
from grad_core.transformations import rule
from grad_core.types import EmptyState

ScaleState = EmptyState


class ScaleByScheduleState(NamedTuple):
    """The number of updates so far."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count


@example(0.5)
@rule
def scale(step_size: Real) -> LeafRule:
    """Multiplies updates by a number: u = step_size * g.

    Args:
      step_size: The factor, of any sign.

    Returns:
      A transformation without state.

    Example:
      >>> from grad_core import scale
      >>> tx = scale(-0.5)
      >>> tx.update(2.0, tx.init(0.0))[0]
      Array(-1., dtype=float32)
    """
    return LeafRule(lambda g: step_size * g)


def _slowing(count: jax.Array) -> jax.Array:
    return 0.1 / (1 + count)


@example(_slowing)
@rule
def scale_by_schedule(step_size_fn: StepSchedule) -> LeafRule:
    """Multiplies updates by a schedule: u = step_size_fn(count) * g.

    Args:
      step_size_fn: A function of the number of updates before this one, from 0.

    Returns:
      A transformation whose state counts updates.

    Example:
      >>> from grad_core import scale_by_schedule
      >>> tx = scale_by_schedule(lambda count: 0.5**count)
      >>> state = tx.init(0.0)
      >>> for _ in range(3):
      ...     updates, state = tx.update(8.0, state)
      >>> updates
      Array(2., dtype=float32)
    """

    def once(count: jax.Array) -> dict[str, Any]:
        return {"step_size": step_size_fn(count)}

    return LeafRule(lambda g, step_size: step_size * g, ScaleByScheduleState, once=once)


@example(0.1)
@rule
def scale_by_learning_rate(
    learning_rate: LearningRate | None = None, *, flip_sign: bool = True
) -> LeafRule:
    """Turns a direction into a step: u = -learning_rate * g.

    Args:
      learning_rate: A number, an array of shape (), or a schedule; None leaves updates unchanged.
      flip_sign: Whether to negate, to descend; without, the step ascends.

    Returns:
      A transformation without state, or for a schedule one that counts updates.

    Example:
      >>> from grad_core import scale_by_learning_rate
      >>> tx = scale_by_learning_rate(0.5)
      >>> tx.update(2.0, tx.init(0.0))[0]
      Array(-1., dtype=float32)
    """
    sign = -1 if flip_sign else 1
    if learning_rate is None:
        return LeafRule(lambda g: g)
    if not callable(learning_rate):
        return LeafRule(lambda g: sign * learning_rate * g)

    def once(count: jax.Array) -> dict[str, Any]:
        return {"step_size": sign * learning_rate(count)}

    return LeafRule(lambda g, step_size: step_size * g, ScaleByScheduleState, once=once)
