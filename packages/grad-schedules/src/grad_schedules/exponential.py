"""Exponential decay, continuous or in stairs."""

from typing import Annotated, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_core.hyperparameters import PreciseDecay, Range
from grad_schedules._spans import steps_since, warmup

Rate: TypeAlias = Annotated[Numeric, Range(low=0.0, is_decay=True)]
"""A factor per transition. It decays as a `PreciseDecay` does: its logarithm is known to the last
digit, and powers with thousands of steps do not suffer from the rounding of 0.999 to float32."""


def rate_power(rate: PreciseDecay, exponent: Numeric) -> jax.Array:
    """``rate**exponent`` for both >= 0, where 0**0 = 1."""
    assert rate.log is not None  # only what a rule sees on a leaf has none
    return jnp.exp(exponent * jnp.maximum(rate.log, -1e4))  # not 0 * -inf


@example(1.0, 10, 0.5)
@promises(boundaries=lambda transition_begin: (max(transition_begin, 0),), is_monotone=True)
@schedule
def exponential_decay(
    init_value: Real,
    transition_steps: Real,
    decay_rate: Rate,
    transition_begin: Real = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> Schedule:
    """Exponential decay or growth, s(t) = init * rate**(max(t - begin, 0) / steps).

    Args:
      init_value: The value up to `transition_begin`.
      transition_steps: The number of steps in which the value is multiplied by `decay_rate` once.
        With none (<= 0) the schedule stays at `init_value`.
      decay_rate: The factor, >= 0. With 0 the schedule stays at `init_value`.
      transition_begin: The step that the decay starts at; negative is 0.
      staircase: Whether the exponent is rounded down to an integer.
      end_value: The least value if `decay_rate` < 1, otherwise the greatest; no bound with None.

    Returns:
      A schedule.

    Raises:
      ValueError: If `decay_rate` is negative.

    Example:
      >>> from grad_schedules import exponential_decay
      >>> decay = exponential_decay(1.0, transition_steps=10, decay_rate=0.5, end_value=0.2)
      >>> [round(float(decay(step)), 4) for step in (0, 5, 10, 20, 30)]
      [1.0, 0.7071, 0.5, 0.25, 0.2]
    """
    rate = PreciseDecay.of(decay_rate)
    log_rate = rate.log
    assert log_rate is not None  # only what a rule sees on a leaf has none

    def at(count: Numeric) -> Numeric:
        is_constant = jnp.less_equal(transition_steps, 0) | jnp.equal(rate.value, 0)
        log = jnp.where(is_constant, 0.0, log_rate)
        elapsed = steps_since(transition_begin, count)
        steps = jnp.where(is_constant, 1, transition_steps)
        exponent = elapsed // steps if staircase else elapsed / steps
        if end_value is None:
            return init_value * jnp.exp(exponent * log)

        unbounded = jax.lax.stop_gradient(init_value * jnp.exp(exponent * log))
        is_decay = jnp.less(rate.value, 1)
        is_past = jnp.where(is_decay, unbounded < end_value, unbounded > end_value) & ~is_constant
        # Growth overflows past the bound; its gradient is only finite if it is not computed there.
        bounded = init_value * jnp.exp(jnp.where(is_past, 0, exponent) * log)
        return jnp.where(is_past, end_value, bounded)

    return at


@example(0.0, 1.0, 5, 10, 0.5)
@promises(
    boundaries=lambda warmup_steps, transition_begin: (
        warmup_steps,
        warmup_steps + max(transition_begin, 0),
    ),
    is_monotone=True,
)
@schedule
def warmup_exponential_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: NonNegative,
    transition_steps: Real,
    decay_rate: Rate,
    transition_begin: Real = 0,
    staircase: bool = False,
    end_value: Real | None = None,
) -> Schedule:
    """A linear warm-up to the peak, then `exponential_decay` from it.

    s(t) = init + (peak - init) * t / warmup_steps for t < warmup_steps, then
    peak * rate**(max(t - warmup_steps - begin, 0) / steps).

    Args:
      init_value: The value at step 0.
      peak_value: The value at step `warmup_steps`.
      warmup_steps: The number of steps of the warm-up, >= 0.
      transition_steps: As for `exponential_decay`, and so are the others.
      decay_rate: The factor per transition, >= 0.
      transition_begin: The number of steps between the warm-up and the decay.
      staircase: Whether the exponent is rounded down to an integer.
      end_value: The bound of the decay, or of the growth.

    Returns:
      A schedule.

    Raises:
      ValueError: If `warmup_steps` or `decay_rate` is negative.

    Example:
      >>> from grad_schedules import warmup_exponential_decay_schedule
      >>> schedule = warmup_exponential_decay_schedule(
      ...     init_value=0.0, peak_value=1.0, warmup_steps=2, transition_steps=4, decay_rate=0.5
      ... )
      >>> [round(float(schedule(step)), 4) for step in (0, 1, 2, 6, 10)]
      [0.0, 0.5, 1.0, 0.5, 0.25]
    """
    decay = exponential_decay(
        peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value
    )

    def at(count: Numeric) -> Numeric:
        rise = warmup(count, init_value, peak_value, warmup_steps)
        return jnp.where(
            jnp.less(count, warmup_steps), rise, decay(steps_since(warmup_steps, count))
        )

    return at
