"""Schedules with a state of their own, which may depend on more than the step count."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from grad_core import Numeric, Schedule
from grad_core.numerics import safe_increment

__all__ = ["StatefulSchedule", "WrappedSchedule", "WrappedScheduleState"]


@runtime_checkable
class StatefulSchedule(Protocol):
    """A schedule that keeps a state and may look at extra arguments of ``update``, the loss say.

    For each update of an optimizer made by `inject_hyperparams`, it is called with its state, and
    then its state is updated; both get the extra arguments.
    """

    def init(self) -> Any:
        """The first state, a pytree of arrays."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """The state after an update."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> Numeric:
        """The value in a state, of shape ()."""
        ...


class WrappedScheduleState(NamedTuple):
    """The number of updates so far."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count


class WrappedSchedule:
    """A schedule as a `StatefulSchedule`: its state is the step count.

    Args:
      schedule_fn: A function of the step count.

    Example:
      >>> from grad_schedules import WrappedSchedule, linear_schedule
      >>> schedule = WrappedSchedule(linear_schedule(1.0, 0.0, 10))
      >>> state = schedule.update(schedule.init())
      >>> round(float(schedule(state)), 4)
      0.9
    """

    def __init__(self, schedule_fn: Schedule) -> None:
        self.schedule_fn = schedule_fn

    def init(self) -> WrappedScheduleState:
        """A count of 0."""
        return WrappedScheduleState(jnp.zeros([], jnp.int32))

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """The count plus one."""
        return WrappedScheduleState(safe_increment(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Numeric:
        return self.schedule_fn(state.count)

    def __repr__(self) -> str:
        return f"WrappedSchedule({self.schedule_fn!r})"
