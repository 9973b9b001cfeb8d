"""The schedule that does not change."""

import jax.numpy as jnp

from grad_core import Numeric, Real, Schedule, example, promises, schedule


@example(0.1)
@promises(
    boundaries=lambda: (),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda value: value,
)
@schedule
def constant_schedule(value: Real) -> Schedule:
    """The same value at every step: s(t) = value.

    Args:
      value: The value, real, of shape ().

    Returns:
      A schedule.

    Example:
      >>> from grad_schedules import constant_schedule
      >>> float(constant_schedule(0.5)(1000))
      0.5
    """

    def at(count: Numeric) -> Numeric:
        # An array of steps gives an array, as with every other schedule.
        return jnp.broadcast_arrays(value, count)[0]

    return at
