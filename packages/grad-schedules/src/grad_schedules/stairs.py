"""Values that drop by a factor, every so many steps or at given ones, with or without a warm-up.

Every step is counted from step 0 of the schedule, the warm-up included: drops at 30, 60 and 80
epochs stay there when a warm-up is added.

Reference:
  Goyal et al., Accurate, large minibatch SGD: training ImageNet in 1 hour, 2017
  (arXiv 1706.02677).
"""

from collections.abc import Sequence

import jax

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_core.hyperparameters import PreciseDecay
from grad_schedules._prepared import formula, prepared
from grad_schedules._spans import (
    check_positive,
    check_steps,
    stacked,
    stacked_steps,
    steps_since,
    warmup,
)
from grad_schedules.exponential import Rate, rate_power
from grad_schedules.piecewise import at_stairs


@example(1.0, 10, 0.1, warmup_steps=5)
@promises(
    boundaries=lambda transition_steps, warmup_steps: (
        warmup_steps,
        transition_steps,
        2 * transition_steps,
    ),
    is_monotone=True,
)
@schedule
def step_schedule(
    peak_value: Real,
    transition_steps: Real,
    decay_rate: Rate,
    warmup_steps: NonNegative = 0,
    init_value: Real = 0.0,
) -> Schedule:
    """A value that drops by a factor every so many steps.

    s(t) = w(t) * rate**floor(t / transition_steps), where the warm-up w goes in a line from init at
    step 0 to peak at step `warmup_steps`.

    Args:
      peak_value: The value before the first drop.
      transition_steps: The number of steps from one drop to the next, > 0.
      decay_rate: The factor, >= 0.
      warmup_steps: The number of steps of the warm-up, >= 0; none with 0.
      init_value: The value at step 0 if there is a warm-up.

    Returns:
      A schedule.

    Raises:
      ValueError: If `transition_steps` <= 0, or `decay_rate` or `warmup_steps` is negative.

    Example:
      >>> from grad_schedules import step_schedule
      >>> schedule = step_schedule(1.0, transition_steps=10, decay_rate=0.5, warmup_steps=2)
      >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 9, 10, 20)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.25]
    """
    check_positive("step_schedule", "transition_steps", transition_steps)
    rate = PreciseDecay.of(decay_rate)

    def at(count: Numeric) -> Numeric:
        drops = steps_since(0, count) // transition_steps
        return warmup(count, init_value, peak_value, warmup_steps) * rate_power(rate, drops)

    return at


@example(1.0, (10, 15), 0.1, warmup_steps=5)
@promises(boundaries=lambda boundaries, warmup_steps: (warmup_steps, *boundaries), is_monotone=True)
@prepared
def multistep_schedule(
    peak_value: Real,
    boundaries: Sequence[int],
    decay_rate: NonNegative,
    warmup_steps: NonNegative = 0,
    init_value: Real = 0.0,
) -> Schedule:
    """A value that drops by a factor at each of the given steps.

    s(t) = w(t) * rate**n, where n boundaries are <= t, and the warm-up w goes in a line from init
    at step 0 to peak at step `warmup_steps`.

    Args:
      peak_value: The value before the first drop.
      boundaries: The steps at which it drops.
      decay_rate: The factor, >= 0.
      warmup_steps: The number of steps of the warm-up, >= 0; none with 0.
      init_value: The value at step 0 if there is a warm-up.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_rate` or `warmup_steps` is negative.
      TypeError: If a boundary is no number.

    Example:
      >>> from grad_schedules import multistep_schedule
      >>> schedule = multistep_schedule(1.0, boundaries=[4, 6], decay_rate=0.1, warmup_steps=2)
      >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 3, 4, 5, 6)]
      [0.0, 0.5, 1.0, 1.0, 0.1, 0.1, 0.01]
    """
    check_steps("multistep_schedule", "boundaries", boundaries)
    factors = [decay_rate**drops for drops in range(len(boundaries) + 1)]
    operands = stacked_steps(boundaries), stacked(factors)
    return formula(_at_steps, *operands, init_value, peak_value, warmup_steps)


def _at_steps(
    boundaries: jax.Array,
    factors: jax.Array,
    init_value: Numeric,
    peak_value: Numeric,
    warmup_steps: Numeric,
    count: Numeric,
) -> Numeric:
    rise = warmup(count, init_value, peak_value, warmup_steps)
    return rise * at_stairs(boundaries, factors, count)
