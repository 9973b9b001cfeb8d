"""Curves of schedules, drawn with matplotlib."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from grad_core import Numeric
from grad_core.errors import shown
from grad_core.schedules import ScheduleFn
from grad_schedules._boundaries import boundaries_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 2000


def plot(
    *schedules: Callable[[jax.Array], Numeric],
    steps: int,
    labels: Sequence[str] | None = None,
    boundaries: bool = True,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draws schedules from step 0 to step `steps`, each with its boundaries.

    Args:
      *schedules: Schedules, ours or your own.
      steps: The last step, >= 1.
      labels: The names in the legend; with None the calls that made the schedules.
      boundaries: Whether dotted lines mark where the parts of a schedule meet: the ends of
        warm-ups, joins, restarts.
      ax: The axes to draw into; new ones with None.

    Returns:
      The axes, to save (``ax.figure.savefig("schedule.png")``) or to draw on.

    Raises:
      ImportError: If matplotlib is not installed.
      ValueError: If `steps` < 1, there is nothing to draw, or as many labels as schedules are not.
      TypeError: If one of the schedules is none.

    Example:
      >>> import matplotlib
      >>> matplotlib.use("agg")
      >>> from grad_schedules import linear_schedule, plot, warmup_cosine_decay_schedule
      >>> cosine = warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=100)
      >>> ax = plot(cosine, linear_schedule(1.0, 0.0, 100), steps=120)
      >>> ax.get_legend_handles_labels()[1][1]
      'linear_schedule(init_value=1.0, end_value=0.0, transition_steps=100)'
    """
    _check(schedules, steps, labels)
    ax = ax if ax is not None else _new_axes()
    names = labels or [_name(schedule) for schedule in schedules]
    for schedule, name in zip(schedules, names, strict=True):
        marks = [step for step in boundaries_of(schedule) if 0 < step < steps]
        points = _points(steps, marks)
        (line,) = ax.plot(points, _values(schedule, points), label=name)
        for mark in sorted(set(marks)) if boundaries else []:
            ax.axvline(mark, color=line.get_color(), linestyle=":", linewidth=1, label="_boundary")
    ax.set_xlabel("step")
    ax.legend()
    return ax


def _new_axes() -> "Axes":
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plot: drawing schedules needs matplotlib, which is not installed; "
            "`pip install 'grad-schedules[plot]'` brings it."
        ) from error
    return plt.subplots()[1]


def _points(steps: int, marks: Sequence[Any]) -> np.ndarray[Any, Any]:
    """All steps, or as many as can be seen, with those on both sides of each boundary."""
    even = np.linspace(0, steps, min(steps, _MOST_POINTS) + 1).astype(int)
    near = [int(mark) + side for mark in marks for side in (-1, 0, 1)]
    return np.unique(np.clip([*even, *near], 0, steps))


def _values(schedule: Callable[[Any], Numeric], points: np.ndarray[Any, Any]) -> Any:
    if isinstance(schedule, ScheduleFn):
        return np.asarray(schedule(points))
    # What users write may branch on the step, or know one step only.
    return np.asarray([float(schedule(step)) for step in points])


def _name(schedule: object) -> str:
    return (
        repr(schedule) if hasattr(schedule, "call") else getattr(schedule, "__name__", "schedule")
    )


def _check(schedules: Sequence[object], steps: int, labels: Sequence[str] | None) -> None:
    if not schedules:
        raise ValueError("plot: give at least one schedule to draw.")
    for index, schedule in enumerate(schedules):
        if not callable(schedule):
            raise TypeError(f"plot: schedules[{index}] must be a schedule; got {shown(schedule)}.")
    if not steps >= 1:
        raise ValueError(f"plot: steps, the last step, must be >= 1; got {steps!r}.")
    if labels is not None and len(labels) != len(schedules):
        raise ValueError(
            f"plot: labels must be as many as the schedules, {len(schedules)}; got {labels!r}."
        )
