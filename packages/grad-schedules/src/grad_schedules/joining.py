"""Schedules one after another, each counting from where it takes over."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import Numeric, Schedule, example, promises
from grad_core.errors import shown
from grad_schedules._boundaries import within
from grad_schedules._prepared import check_schedule, formula, prepared
from grad_schedules._spans import check_steps, exact, is_number, steps_from, widened
from grad_schedules.cosine import warmup_cosine_decay_schedule
from grad_schedules.polynomial import linear_schedule


def _meeting_points(schedules: Sequence[object], boundaries: Sequence[Any]) -> tuple[Any, ...]:
    spans = zip(schedules, [0, *boundaries], [*boundaries, None], strict=True)
    return tuple(step for span in spans for step in within(*span) if step > 0)


@example((linear_schedule(0.0, 1.0, 5), linear_schedule(1.0, 0.1, 10, 3)), (5,))
@promises(boundaries=_meeting_points)
@prepared
def join_schedules(
    schedules: Sequence[Callable[[jax.Array], Numeric]], boundaries: Sequence[int]
) -> Schedule:
    """Several schedules, one after another.

    s(t) = s_i(t - b_i) for b_i <= t < b_(i+1): each schedule counts from its own step 0.

    Args:
      schedules: At least one schedule. With a function of your own among them, the whole is called
        as your own function would be, outside compiled code, and each part is called with steps
        that lie in it, at most at its end.
      boundaries: The steps at which the second schedule and those after it take over, in
        ascending order.

    Returns:
      A schedule.

    Raises:
      ValueError: If there are not as many boundaries as schedules, less one, or they descend.
      TypeError: If one of the schedules is none, or one of the boundaries no number.

    Example:
      >>> from grad_schedules import cosine_decay_schedule, join_schedules, linear_schedule
      >>> warmup, decay = linear_schedule(0.0, 1.0, 2), cosine_decay_schedule(1.0, 4)
      >>> schedule = join_schedules([warmup, decay], boundaries=[2])
      >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 4, 6)]
      [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if not isinstance(schedules, tuple):
        raise TypeError(
            f"join_schedules: schedules must be a list or tuple; got {shown(schedules)}."
        )
    check_steps("join_schedules", "boundaries", boundaries)
    for index, each in enumerate(schedules):
        check_schedule("join_schedules", f"schedules[{index}]", each)
    if not schedules or len(boundaries) != len(schedules) - 1:
        raise ValueError(
            "join_schedules: schedules must be one more than boundaries; got "
            f"{len(schedules)} schedules and boundaries {boundaries!r}."
        )
    for before, after in itertools.pairwise(boundaries):
        if is_number(before) and is_number(after) and not before <= after:
            raise ValueError(f"join_schedules: boundaries must ascend; got {boundaries!r}.")
    return joined(schedules, boundaries)


def joined(schedules: Iterable[Any], boundaries: Iterable[Any]) -> Schedule:
    """The formula of schedules that follow one another."""
    return formula(_at, tuple(schedules), tuple(exact(step) for step in boundaries))


def _at(schedules: Sequence[Schedule], boundaries: Sequence[Numeric], count: Numeric) -> Numeric:
    count = widened(count)
    ends = [*boundaries, None]
    value = schedules[0](_up_to(ends[0], count))
    for schedule, begin, end in zip(schedules[1:], boundaries, ends[1:], strict=True):
        # Outside its span a schedule is not asked: growth would overflow, and gradients be NaN.
        later = schedule(steps_from(begin, _up_to(end, count)))
        value = jnp.where(jnp.less(count, begin), value, later)
    return value


def _up_to(end: Numeric | None, count: jax.Array) -> jax.Array:
    return count if end is None else jnp.minimum(count, end)


_CYCLE = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 10}


def _restarts(cosine_kwargs: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    steps, begin = [], 0
    for each in cosine_kwargs:
        steps += [begin + each["warmup_steps"], begin + each["decay_steps"]]
        begin = steps[-1]
    return tuple(steps)


@example(({**_CYCLE, "end_value": 0.1}, {**_CYCLE, "init_value": 0.1, "peak_value": 0.5}))
@promises(
    boundaries=_restarts,
    is_monotone=True,
    end_value=lambda cosine_kwargs: cosine_kwargs[-1].get("end_value", 0.0),
)
@prepared
def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Warm-ups and cosine decays, one after another: SGD with warm restarts.

    s(t) = s_i(t - b_i) from b_i on, where s_i is a `warmup_cosine_decay_schedule` and b_i the sum
    of the `decay_steps` of those before.

    Args:
      cosine_kwargs: For each cycle, the arguments of `warmup_cosine_decay_schedule` by name.

    Returns:
      A schedule.

    Raises:
      ValueError: If there is no cycle, or a number in one is out of its range.
      TypeError: If an argument is missing or unknown.

    Example:
      >>> from grad_schedules import sgdr_schedule
      >>> cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 1, "decay_steps": 3}
      >>> schedule = sgdr_schedule([cycle, {**cycle, "peak_value": 0.5}])
      >>> [round(float(schedule(step)), 4) for step in range(7)]
      [0.0, 1.0, 0.5, 0.0, 0.5, 0.25, 0.0]

    Reference:
      Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2016
      (arXiv 1608.03983).
    """
    cycles = [_cycle(index, kwargs) for index, kwargs in enumerate(cosine_kwargs)]
    if not cycles:
        raise ValueError("sgdr_schedule: cosine_kwargs must hold at least one cycle; got none.")
    lengths = [kwargs["decay_steps"] for kwargs in cosine_kwargs]
    return joined(cycles, itertools.accumulate(lengths[:-1]))


def _cycle(index: int, kwargs: Mapping[str, Any]) -> Schedule:
    try:
        return warmup_cosine_decay_schedule(**kwargs)
    except (TypeError, ValueError) as error:
        raise type(error)(f"sgdr_schedule: in cosine_kwargs[{index}], {error}") from None
