r"""Polynomial and linear transitions between two values.

With the fraction of the transition that is left at step t,

.. math::

    r_t = 1 - \mathrm{clip}((t - t_0) / T, 0, 1),

a polynomial schedule of power p goes from a at step :math:`t_0` to b at step :math:`t_0 + T`:

.. math::

    s(t) = b + (a - b)\, r_t^p

Both ends are met exactly. It is computed as :math:`a r^p + b (1 - r^p)`, the second factor without
cancellation, so that the first steps of a long warm-up from 0 are as precise as the last.

Reference:
  Bergsma et al., Straight to zero: why linearly decaying the learning rate to zero works best for
  LLMs, 2025 (arXiv 2502.15938), for `warmup_linear_decay_schedule`.
"""

from typing import Any

import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_schedules import _spans


def _ends(transition_steps: Any, transition_begin: Any) -> tuple[Any, Any]:
    begin = max(transition_begin, 0)
    return begin, begin + max(transition_steps, 0)


@example(1.0, 0.1, 2.0, 10)
@promises(
    boundaries=_ends, is_continuous=True, is_monotone=True, end_value=lambda end_value: end_value
)
@schedule
def polynomial_schedule(
    init_value: Real,
    end_value: Real,
    power: NonNegative,
    transition_steps: Real,
    transition_begin: Real = 0,
) -> Schedule:
    """A polynomial transition, s(t) = end + (init - end) * r(t)**power; see the module for r.

    Args:
      init_value: The value up to `transition_begin`.
      end_value: The value from step ``transition_begin + transition_steps`` on.
      power: The power, >= 0; 1 is linear.
      transition_steps: The number of steps from one value to the other. With none (<= 0) the
        schedule stays at `init_value`.
      transition_begin: The step that the transition starts at; negative is 0.

    Returns:
      A schedule.

    Raises:
      ValueError: If `power` is negative.

    Example:
      >>> from grad_schedules import polynomial_schedule
      >>> decay = polynomial_schedule(init_value=1.0, end_value=0.0, power=2, transition_steps=10)
      >>> float(decay(0)), float(decay(5)), float(decay(10)), float(decay(11))
      (1.0, 0.25, 0.0, 0.0)
    """

    def at(count: Numeric) -> Numeric:
        passed, left = _spans.fractions(count, transition_begin, transition_steps)
        kept, lost = _spans.power_and_complement(passed, left, power)
        return init_value * kept + end_value * lost

    return at


@example(1.0, 0.1, 10)
@promises(
    boundaries=_ends, is_continuous=True, is_monotone=True, end_value=lambda end_value: end_value
)
@schedule
def linear_schedule(
    init_value: Real,
    end_value: Real,
    transition_steps: Real,
    transition_begin: Real = 0,
) -> Schedule:
    """A linear transition, s(t) = init + (end - init) * clip((t - begin) / steps, 0, 1).

    Args:
      init_value: As for `polynomial_schedule`, and so are the others.
      end_value: The value when the transition is over.
      transition_steps: The number of steps it takes.
      transition_begin: The step it starts at.

    Returns:
      A schedule.

    Example:
      >>> from grad_schedules import linear_schedule
      >>> warmup = linear_schedule(init_value=0.0, end_value=1.0, transition_steps=4)
      >>> [float(warmup(step)) for step in range(6)]
      [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """

    def at(count: Numeric) -> Numeric:
        passed, left = _spans.fractions(count, transition_begin, transition_steps)
        return init_value * left + end_value * passed

    return at


@example(0.0, 1.0, 10)
@promises(
    boundaries=lambda warmup_steps: (warmup_steps,),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda peak_value: peak_value,
)
@schedule
def warmup_constant_schedule(init_value: Real, peak_value: Real, warmup_steps: Real) -> Schedule:
    """A linear warm-up, then the peak: s(t) = init + (peak - init) * clip(t / warmup_steps, 0, 1).

    Args:
      init_value: The value at step 0.
      peak_value: The value from step `warmup_steps` on.
      warmup_steps: The number of steps to the peak. With none (<= 0) the schedule stays at
        `init_value`, as `linear_schedule` does.

    Returns:
      A schedule.

    Example:
      >>> from grad_schedules import warmup_constant_schedule
      >>> schedule = warmup_constant_schedule(init_value=0.0, peak_value=1.0, warmup_steps=2)
      >>> [float(schedule(step)) for step in range(4)]
      [0.0, 0.5, 1.0, 1.0]
    """
    return linear_schedule(init_value, peak_value, warmup_steps)


@example(0.0, 1.0, 5, 20)
@promises(
    boundaries=lambda warmup_steps, decay_steps: (warmup_steps, decay_steps),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def warmup_linear_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: NonNegative,
    decay_steps: Real,
    end_value: Real = 0.0,
) -> Schedule:
    """A linear warm-up to the peak, then a line to the end value, by default to zero.

    s(t) = init + (peak - init) * t / warmup_steps for t < warmup_steps, then
    peak + (end - peak) * min((t - warmup_steps) / (decay_steps - warmup_steps), 1).

    Args:
      init_value: The value at step 0.
      peak_value: The value at step `warmup_steps`.
      warmup_steps: The number of steps of the warm-up, >= 0.
      decay_steps: The number of steps of the whole schedule, the warm-up included; more than
        `warmup_steps`.
      end_value: The value from step `decay_steps` on.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_steps` <= `warmup_steps` or `warmup_steps` < 0.

    Example:
      >>> from grad_schedules import warmup_linear_decay_schedule
      >>> schedule = warmup_linear_decay_schedule(0.0, 1.0, warmup_steps=2, decay_steps=6)
      >>> [float(schedule(step)) for step in (0, 1, 2, 4, 6, 7)]
      [0.0, 0.5, 1.0, 0.5, 0.0, 0.0]
    """
    _spans.check_longer("warmup_linear_decay_schedule", decay_steps, warmup_steps)

    def at(count: Numeric) -> Numeric:
        rise = _spans.warmup(count, init_value, peak_value, warmup_steps)
        passed, left = _spans.fractions(count, warmup_steps, decay_steps - warmup_steps)
        return jnp.where(
            jnp.less(count, warmup_steps), rise, peak_value * left + end_value * passed
        )

    return at
