"""Values that swing between two bounds.

Reference:
  Smith, Cyclical learning rates for training neural networks, 2015 (arXiv 1506.01186).
"""

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_core.hyperparameters import PreciseDecay
from grad_schedules._spans import check_positive, is_number, steps_since
from grad_schedules.exponential import Rate, rate_power

_MODES = ("triangular", "triangular2", "exp_range")


def _turns(cycle_steps: float, warmup_steps: float | None) -> tuple[float, ...]:
    rise = cycle_steps / 2 if warmup_steps is None else warmup_steps
    return rise, cycle_steps, cycle_steps + rise, 2 * cycle_steps


@example(0.1, 1.0, 10)
@promises(boundaries=_turns, is_continuous=True)
@schedule
def cyclic_schedule(
    init_value: Real,
    peak_value: Real,
    cycle_steps: Real,
    mode: str = "triangular",
    decay_rate: Rate = 1.0,
    warmup_steps: NonNegative | None = None,
) -> Schedule:
    """A line up to the peak and a line down, again and again.

    s(t) = init + (peak - init) * a(t) * x(t), where x rises from 0 to 1 in the first `warmup_steps`
    steps of each cycle and falls back to 0 in the rest of it, and the height a is 1
    (``"triangular"``), 2**-k in cycle k = 0, 1, ... (``"triangular2"``), or decay_rate**t
    (``"exp_range"``).

    Args:
      init_value: The value at the ends of a cycle.
      peak_value: The value at the first peak, for the first two modes.
      cycle_steps: The number of steps of a cycle, > 0.
      mode: ``"triangular"``, ``"triangular2"`` or ``"exp_range"``.
      decay_rate: The factor per step, >= 0, of ``"exp_range"``.
      warmup_steps: The number of steps that rise in each cycle, in [0, cycle_steps]; with None half
        of them.

    Returns:
      A schedule.

    Raises:
      ValueError: If there is no such mode, or a number is out of its range.

    Example:
      >>> from grad_schedules import cyclic_schedule
      >>> schedule = cyclic_schedule(0.0, 1.0, cycle_steps=4, mode="triangular2")
      >>> [round(float(schedule(step)), 4) for step in range(9)]
      [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5, 0.25, 0.0]
    """
    _check(cycle_steps, mode, warmup_steps)
    rate = PreciseDecay.of(decay_rate)

    def at(count: Numeric) -> Numeric:
        count = steps_since(0, count)
        rise = cycle_steps / 2 if warmup_steps is None else warmup_steps
        cycle, step = jnp.divmod(count, cycle_steps)
        height = {
            "triangular": lambda: jnp.ones(()),
            "triangular2": lambda: jnp.exp2(-cycle),
            "exp_range": lambda: rate_power(rate, count),
        }[mode]()
        raised = height * _triangle(step, rise, cycle_steps)
        return init_value * (1 - raised) + peak_value * raised

    return at


def _triangle(step: jax.Array, rise: Numeric, length: Numeric) -> jax.Array:
    """From 0 at step 0 to 1 at `rise`, and back to 0 at `length`."""
    is_rising = step < rise
    up = step / jnp.where(is_rising, rise, 1)
    down = (length - step) / jnp.where(is_rising, 1, length - rise)
    return jnp.where(is_rising, up, down)


def _check(cycle_steps: Numeric, mode: str, warmup_steps: Numeric | None) -> None:
    if mode not in _MODES:
        raise ValueError(f"cyclic_schedule: mode must be one of {_MODES}; got {mode!r}.")
    check_positive("cyclic_schedule", "cycle_steps", cycle_steps)
    if is_number(warmup_steps) and is_number(cycle_steps) and not warmup_steps <= cycle_steps:  # type: ignore[operator]
        raise ValueError(
            f"cyclic_schedule: warmup_steps must be <= cycle_steps = {cycle_steps!r}; "
            f"got {warmup_steps!r}."
        )
