r"""Cosine decay, alone and after a linear warm-up.

With the fraction r of the decay that is left, :math:`r_t = 1 - \mathrm{clip}(t / T, 0, 1)`:

.. math::

    c(t) = \tfrac12 (1 + \cos(\pi (1 - r_t))) = \sin^2(\tfrac{\pi}{2} r_t)

The second form has no cancellation towards the end of the decay, where c vanishes.

Reference:
  Loshchilov and Hutter, SGDR: stochastic gradient descent with warm restarts, 2016
  (arXiv 1608.03983, equation 5).
"""

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_schedules._spans import check_longer, check_positive, cosine, fractions, power, warmup


@example(1.0, 10)
@promises(
    boundaries=lambda decay_steps: (decay_steps,),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda init_value, alpha: init_value * alpha,
)
@schedule
def cosine_decay_schedule(
    init_value: Real,
    decay_steps: Real,
    alpha: Real = 0.0,
    exponent: NonNegative = 1.0,
) -> Schedule:
    """Cosine decay, s(t) = init * ((1 - alpha) * c(t)**exponent + alpha); see the module for c.

    Args:
      init_value: The value at step 0.
      decay_steps: The number of steps T > 0 of the decay; the value stays the same from there on.
        (A traced number cannot be refused: the schedule stays at `init_value` with T <= 0.)
      alpha: The last value as a multiple of `init_value`.
      exponent: The power >= 0 of the cosine factor.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_steps` <= 0 or `exponent` < 0.

    Example:
      >>> from grad_schedules import cosine_decay_schedule
      >>> decay = cosine_decay_schedule(init_value=1.0, decay_steps=10, alpha=0.1)
      >>> [round(float(decay(step)), 4) for step in (0, 5, 10, 11)]
      [1.0, 0.55, 0.1, 0.1]
    """
    check_positive("cosine_decay_schedule", "decay_steps", decay_steps)

    def at(count: Numeric) -> Numeric:
        kept = _cosine(count, 0, decay_steps, exponent)
        return init_value * (kept + alpha * (1 - kept))

    return at


@example(0.0, 1.0, 5, 20)
@promises(
    boundaries=lambda warmup_steps, decay_steps: (warmup_steps, decay_steps),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def warmup_cosine_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: NonNegative,
    decay_steps: Real,
    end_value: Real = 0.0,
    exponent: NonNegative = 1.0,
) -> Schedule:
    """A linear warm-up to the peak, then cosine decay to the end value.

    s(t) = init + (peak - init) * t / warmup_steps for t < warmup_steps, then
    end + (peak - end) * c(t - warmup_steps)**exponent; see the module for c.

    Args:
      init_value: The value at step 0.
      peak_value: The value at step `warmup_steps`.
      warmup_steps: The number of steps of the warm-up, >= 0.
      decay_steps: The number of steps of the whole schedule, the warm-up included; more than
        `warmup_steps`. (Traced numbers cannot be refused: without steps to decay the schedule
        stays at its peak.)
      end_value: The value from step `decay_steps` on.
      exponent: The power >= 0 of the cosine factor.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_steps` <= `warmup_steps`, `warmup_steps` < 0 or `exponent` < 0.

    Example:
      >>> from grad_schedules import warmup_cosine_decay_schedule
      >>> schedule = warmup_cosine_decay_schedule(
      ...     init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=6, end_value=0.5
      ... )
      >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 4, 6, 7)]
      [0.0, 0.5, 1.0, 0.75, 0.5, 0.5]
    """
    check_longer("warmup_cosine_decay_schedule", decay_steps, warmup_steps)

    def at(count: Numeric) -> Numeric:
        rise = warmup(count, init_value, peak_value, warmup_steps)
        kept = _cosine(count, warmup_steps, decay_steps - warmup_steps, exponent)
        decay = peak_value * kept + end_value * (1 - kept)
        return jnp.where(jnp.less(count, warmup_steps), rise, decay)

    return at


def _cosine(count: Numeric, begin: Numeric, length: Numeric, exponent: Numeric) -> jax.Array:
    """The cosine factor to the power `exponent`: 1 up to `begin`, 0 from ``begin + length`` on."""
    _, left = fractions(count, begin, length)
    return power(cosine(left), exponent)
