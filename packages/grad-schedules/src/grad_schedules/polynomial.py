r"""Polynomial and linear transitions between two values.

With the fraction of the transition that is left at step t,

.. math::

    r_t = 1 - \mathrm{clip}((t - t_0) / T, 0, 1),

a polynomial schedule of power p goes from a at step :math:`t_0` to b at step :math:`t_0 + T`:

.. math::

    s(t) = b + (a - b)\, r_t^p

Both ends are met exactly. It is computed as :math:`a r^p + b (1 - r^p)`, the second factor without
cancellation, so that the first steps of a long warm-up from 0 are as precise as the last.
"""

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, schedule
from grad_schedules import _spans


@example(1.0, 0.1, 2.0, 10)
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
        kept, lost = _power_and_complement(passed, left, power)
        return init_value * kept + end_value * lost

    return at


@example(1.0, 0.1, 10)
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


def _power_and_complement(
    passed: jax.Array, left: jax.Array, exponent: Numeric
) -> tuple[jax.Array, jax.Array]:
    """``left**exponent`` and ``1 - left**exponent``, both precise also when small."""
    kept = _spans.power(left, exponent)
    is_early = passed < 0.5
    # Late in the transition log1p would run into -inf, and the difference is precise.
    early = -jnp.expm1(exponent * jnp.log1p(-jnp.where(is_early, passed, 0.0)))
    return kept, jnp.where(is_early, early, 1 - kept)
