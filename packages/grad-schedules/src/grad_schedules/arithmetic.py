"""Schedules made of others: scaled, clipped, shifted; `join_schedules` puts them in a row.

A function of your own may take part. The result is then called as your function would be, outside
compiled code, with a concrete step count if there is one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import LearningRate, Numeric, Real, Schedule, example, promises
from grad_schedules._boundaries import boundaries_of
from grad_schedules._prepared import check_schedule, formula, prepared
from grad_schedules._spans import exact, is_number, steps_from
from grad_schedules.polynomial import linear_schedule


def _of_both(schedule: object, factor: object) -> tuple[Any, ...]:
    return boundaries_of(schedule) + boundaries_of(factor)


@example(linear_schedule(1.0, 0.1, 10), 0.5)
@promises(boundaries=_of_both)
@prepared
def scaled(schedule: Callable[[jax.Array], Numeric], factor: LearningRate) -> Schedule:
    """A schedule times a factor: s(t) = factor * schedule(t).

    Args:
      schedule: A schedule.
      factor: A number, or a schedule as well: s(t) = factor(t) * schedule(t).

    Returns:
      A schedule.

    Raises:
      TypeError: If `schedule` is none.

    Example:
      >>> from grad_schedules import linear_schedule, scaled
      >>> float(scaled(linear_schedule(1.0, 0.0, 10), 0.1)(5))
      0.05...
    """
    check_schedule("scaled", "schedule", schedule)
    return formula(_product if callable(factor) else _scaled, schedule, factor)


def _scaled(schedule: Schedule, factor: Numeric, count: Numeric) -> Numeric:
    return jnp.multiply(factor, schedule(count))


def _product(schedule: Schedule, factor: Schedule, count: Numeric) -> Numeric:
    return jnp.multiply(factor(count), schedule(count))


@example(linear_schedule(1.0, 0.1, 10), 0.25, 0.75)
@promises(boundaries=boundaries_of)
@prepared
def clipped(
    schedule: Callable[[jax.Array], Numeric], low: Real | None = None, high: Real | None = None
) -> Schedule:
    """A schedule kept between bounds: s(t) = min(max(schedule(t), low), high).

    Args:
      schedule: A schedule.
      low: The least value; no bound with None.
      high: The greatest value; no bound with None.

    Returns:
      A schedule.

    Raises:
      ValueError: If `low` > `high`.
      TypeError: If `schedule` is none.

    Example:
      >>> from grad_schedules import clipped, linear_schedule
      >>> schedule = clipped(linear_schedule(1.0, 0.0, 10), low=0.25)
      >>> [float(schedule(step)) for step in (0, 5, 9)]
      [1.0, 0.5, 0.25]
    """
    check_schedule("clipped", "schedule", schedule)
    if is_number(low) and is_number(high) and not low <= high:  # type: ignore[operator]
        raise ValueError(f"clipped: low must be <= high = {high!r}; got {low!r}.")
    return formula(_clipped, schedule, low, high)


def _clipped(
    schedule: Schedule, low: Numeric | None, high: Numeric | None, count: Numeric
) -> Numeric:
    return jnp.clip(schedule(count), low, high)


@example(linear_schedule(1.0, 0.1, 10), 5)
@promises(
    boundaries=lambda schedule, steps: [steps + each for each in (0, *boundaries_of(schedule))]
)
@prepared
def shifted(schedule: Callable[[jax.Array], Numeric], steps: Real) -> Schedule:
    """A schedule that begins later: s(t) = schedule(max(t - steps, 0)).

    Args:
      schedule: A schedule.
      steps: The number of steps that it keeps its first value before it begins. Negative, its
        first steps are left out, as when training is resumed with a count from 0.

    Returns:
      A schedule.

    Raises:
      TypeError: If `schedule` is none.

    Example:
      >>> from grad_schedules import linear_schedule, shifted
      >>> schedule = shifted(linear_schedule(1.0, 0.0, 4), steps=2)
      >>> [float(schedule(step)) for step in range(7)]
      [1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    check_schedule("shifted", "schedule", schedule)
    return formula(_shifted, schedule, exact(steps))


def _shifted(schedule: Schedule, steps: Numeric, count: Numeric) -> Numeric:
    return schedule(steps_from(steps, count))
