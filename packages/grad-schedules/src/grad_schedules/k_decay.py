r"""k-decay: a decay whose steps are counted to the power k.

.. math::

    r(t) = 1 - (t / T)^k

takes the place of the part 1 - t / T that is left, in a cosine or in a polynomial. With k > 1 the
value stays high for longer, and then falls more steeply.

Reference:
  Zhang and Li, k-decay: a new method for learning rate schedule, 2020 (arXiv 2004.05909).
"""

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_schedules._spans import check_positive, cosine, fractions, power_and_complement
from grad_schedules._spans import power as power_of

_SHAPES = ("cosine", "polynomial")


@example(1.0, 10, 1.5, 0.1)
@promises(
    boundaries=lambda decay_steps: (decay_steps,),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def k_decay_schedule(
    init_value: Real,
    decay_steps: Real,
    k: Real,
    end_value: Real = 0.0,
    shape: str = "cosine",
    power: NonNegative = 1.0,
) -> Schedule:
    """k-decay: s(t) = end + (init - end) * f(r(t)); see the module for r.

    f(r) is (1 - cos(pi r)) / 2 for the shape ``"cosine"`` and r**power for ``"polynomial"``.

    Args:
      init_value: The value at step 0.
      decay_steps: The number of steps T > 0 of the whole schedule.
      k: The power > 0 of the part that has passed; 1 is the ordinary decay.
      end_value: The value from step `decay_steps` on.
      shape: ``"cosine"`` or ``"polynomial"``.
      power: The exponent >= 0 of ``"polynomial"``.

    Returns:
      A schedule.

    Raises:
      ValueError: If there is no such shape, or a number is out of its range.

    Example:
      >>> from grad_schedules import k_decay_schedule
      >>> schedule = k_decay_schedule(1.0, decay_steps=10, k=2.0, shape="polynomial")
      >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 11)]
      [1.0, 0.75, 0.0, 0.0]
    """
    if shape not in _SHAPES:
        raise ValueError(f"k_decay_schedule: shape must be one of {_SHAPES}; got {shape!r}.")
    check_positive("k_decay_schedule", "decay_steps", decay_steps)
    check_positive("k_decay_schedule", "k", k)

    def at(count: Numeric) -> Numeric:
        passed, left = fractions(count, 0, decay_steps)
        gone, kept = power_and_complement(left, passed, k)
        if shape == "cosine":
            return init_value * cosine(kept) + end_value * cosine(gone)
        share = power_of(kept, power)
        return init_value * share + end_value * (1 - share)

    return at
