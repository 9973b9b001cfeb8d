"""Decay with the inverse square root of the step.

Reference:
  Vaswani et al., Attention is all you need, 2017 (arXiv 1706.03762, equation 3).
"""

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_schedules._spans import check_positive, steps_since, warmup


@example(0.0, 1.0, 5)
@promises(boundaries=lambda warmup_steps: (warmup_steps,), is_continuous=True, is_monotone=True)
@schedule
def warmup_inverse_sqrt_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: NonNegative,
    timescale: Real | None = None,
) -> Schedule:
    """A linear warm-up to the peak, then decay with the inverse square root of the step.

    s(t) = init + (peak - init) * t / warmup_steps for t < warmup_steps, then
    peak * sqrt(T / (T + t - warmup_steps)), which is peak * sqrt(warmup_steps / t) for
    T = warmup_steps.

    Args:
      init_value: The value at step 0.
      peak_value: The value at step `warmup_steps`.
      warmup_steps: The number of steps of the warm-up, >= 0.
      timescale: The number of steps T > 0, counted from the end of the warm-up, until T / 2 T of
        the peak's square is left; with None `warmup_steps`, or 1 where that is 0.

    Returns:
      A schedule.

    Raises:
      ValueError: If `warmup_steps` < 0 or `timescale` <= 0.

    Example:
      >>> from grad_schedules import warmup_inverse_sqrt_schedule
      >>> schedule = warmup_inverse_sqrt_schedule(init_value=0.0, peak_value=1.0, warmup_steps=4)
      >>> [round(float(schedule(step)), 4) for step in (0, 2, 4, 16, 64)]
      [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    check_positive("warmup_inverse_sqrt_schedule", "timescale", timescale)

    def at(count: Numeric) -> Numeric:
        rise = warmup(count, init_value, peak_value, warmup_steps)
        scale = jnp.maximum(warmup_steps, 1) if timescale is None else timescale
        fall = peak_value * jax.lax.rsqrt(1 + steps_since(warmup_steps, count) / scale)
        return jnp.where(jnp.less(count, warmup_steps), rise, fall)

    return at
