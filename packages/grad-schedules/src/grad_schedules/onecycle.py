r"""The 1cycle policy: up to a peak, and down to far below the start.

With :math:`a = \mathrm{peak} / \mathrm{div}`, the cosine form goes from a to the peak and on to
:math:`a / \mathrm{final\_div}`; the linear one returns to a first.

Reference:
  Smith and Topin, Super-convergence: very fast training of neural networks using large learning
  rates, 2017 (arXiv 1708.07120).
"""

from typing import Any

from grad_core import Fraction, Real, Schedule, example, promises
from grad_schedules._prepared import prepared
from grad_schedules._spans import check_positive, is_number, whole
from grad_schedules.piecewise import curves


def _end(peak_value: Any, div_factor: Any, final_div_factor: Any) -> Any:
    return peak_value / (div_factor * final_div_factor)


def _turns(transition_steps: Any, pct_start: Any, pct_final: Any = 1) -> tuple[Any, ...]:
    return whole(pct_start * transition_steps), whole(pct_final * transition_steps)


@example(20, 1.0)
@promises(
    boundaries=lambda transition_steps, pct_start: _turns(transition_steps, pct_start),
    is_continuous=True,
    is_monotone=True,
    end_value=_end,
)
@prepared
def cosine_onecycle_schedule(
    transition_steps: Real,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    div_factor: Real = 25.0,
    final_div_factor: Real = 1e4,
) -> Schedule:
    """Half a cosine up to the peak, and half a cosine down.

    s goes from peak / div at step 0 to the peak at step floor(pct_start * steps), and to
    peak / (div * final_div) at step `transition_steps`, where it stays.

    Args:
      transition_steps: The number of steps of the whole schedule, > 0; it is rounded down.
      peak_value: The greatest value.
      pct_start: The part of the steps that leads up to the peak, in [0, 1].
      div_factor: The peak over the value at step 0, > 0.
      final_div_factor: The value at step 0 over the last one, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: If a number is out of its range.

    Example:
      >>> from grad_schedules import cosine_onecycle_schedule
      >>> schedule = cosine_onecycle_schedule(transition_steps=10, peak_value=1.0)
      >>> [round(float(schedule(step)), 4) for step in (0, 3, 10)]
      [0.04, 1.0, 0.0]
    """
    _check("cosine_onecycle_schedule", transition_steps, div_factor, final_div_factor)
    low, end = peak_value / div_factor, _end(peak_value, div_factor, final_div_factor)
    return curves("cosine", _turns(transition_steps, pct_start), [low, peak_value, end])


@example(20, 1.0)
@promises(
    boundaries=lambda transition_steps, pct_start, pct_final: (
        *_turns(transition_steps, pct_start, pct_final),
        transition_steps,
    ),
    is_continuous=True,
    is_monotone=True,
    end_value=_end,
)
@prepared
def linear_onecycle_schedule(
    transition_steps: Real,
    peak_value: Real,
    pct_start: Fraction = 0.3,
    pct_final: Fraction = 0.85,
    div_factor: Real = 25.0,
    final_div_factor: Real = 1e4,
) -> Schedule:
    """A line up to the peak, a line down to the start, and a line to the last value.

    s goes from peak / div at step 0 to the peak at step floor(pct_start * steps), back to
    peak / div at step floor(pct_final * steps), and to peak / (div * final_div) at step
    `transition_steps`, where it stays.

    Args:
      transition_steps: The number of steps of the whole schedule, > 0.
      peak_value: The greatest value.
      pct_start: The part of the steps that leads up to the peak, in [0, 1].
      pct_final: The part of the steps after which the first value is reached again, in
        [pct_start, 1].
      div_factor: The peak over the value at step 0, > 0.
      final_div_factor: The value at step 0 over the last one, > 0.

    Returns:
      A schedule.

    Raises:
      ValueError: If a number is out of its range.

    Example:
      >>> from grad_schedules import linear_onecycle_schedule
      >>> schedule = linear_onecycle_schedule(transition_steps=20, peak_value=1.0)
      >>> [round(float(schedule(step)), 4) for step in (0, 3, 6, 17, 20)]
      [0.04, 0.52, 1.0, 0.04, 0.0]
    """
    _check("linear_onecycle_schedule", transition_steps, div_factor, final_div_factor)
    if is_number(pct_start) and is_number(pct_final) and not pct_start <= pct_final:
        raise ValueError(
            f"linear_onecycle_schedule: pct_final must be >= pct_start = {pct_start!r}; "
            f"got {pct_final!r}."
        )
    low, end = peak_value / div_factor, _end(peak_value, div_factor, final_div_factor)
    turns = _turns(transition_steps, pct_start, pct_final)
    return curves("linear", [*turns, transition_steps], [low, peak_value, low, end])


def _check(factory: str, transition_steps: Any, div_factor: Any, final_div_factor: Any) -> None:
    check_positive(factory, "transition_steps", transition_steps)
    check_positive(factory, "div_factor", div_factor)
    check_positive(factory, "final_div_factor", final_div_factor)
