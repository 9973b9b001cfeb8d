"""REX, a decay that is slow at first: reflected exponential.

Reference:
  Chen et al., REX: revisiting budgeted training with an improved schedule, 2021
  (arXiv 2107.04197).
"""

from grad_core import Numeric, Real, Schedule, example, promises, schedule
from grad_schedules._spans import check_positive, fractions


@example(1.0, 10, 0.1)
@promises(
    boundaries=lambda decay_steps: (decay_steps,),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def rex_schedule(init_value: Real, decay_steps: Real, end_value: Real = 0.0) -> Schedule:
    """REX decay, s(t) = end + (init - end) * (1 - p) / (1 - p / 2), p = min(t / decay_steps, 1).

    Args:
      init_value: The value at step 0.
      decay_steps: The number of steps of the whole schedule, > 0.
      end_value: The value from step `decay_steps` on.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_steps` <= 0.

    Example:
      >>> from grad_schedules import rex_schedule
      >>> schedule = rex_schedule(init_value=1.0, decay_steps=10)
      >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 11)]
      [1.0, 0.6667, 0.0, 0.0]
    """
    check_positive("rex_schedule", "decay_steps", decay_steps)

    def at(count: Numeric) -> Numeric:
        passed, left = fractions(count, 0, decay_steps)
        return init_value * (2 * left / (1 + left)) + end_value * (passed / (1 + left))

    return at
