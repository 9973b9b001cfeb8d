r"""A plateau between a warm-up and a cooldown: warmup-stable-decay, and the power schedule.

With the parts p and r = 1 - p of the cooldown that are passed and left, its shape c is

===========  ==========================================
``linear``   :math:`r`
``1-sqrt``   :math:`1 - \sqrt p`
``cosine``   :math:`\tfrac12 (1 + \cos \pi p)`
``power``    :math:`r^q`
===========  ==========================================

Each goes from 1 to 0, so that the schedule meets its end value, and stays there, without a jump.

References:
  Hu et al., MiniCPM: unveiling the potential of small language models with scalable training
  strategies, 2024 (arXiv 2404.06395).
  Hägele et al., Scaling laws and compute-optimal training beyond fixed training durations, 2024
  (arXiv 2405.18392), for ``1-sqrt``.
  Shen et al., Power scheduler: a batch size and token number agnostic learning rate scheduler, 2024
  (arXiv 2408.13359).
"""

import jax
import jax.numpy as jnp

from grad_core import NonNegative, Numeric, Real, Schedule, example, promises, schedule
from grad_schedules._spans import check_longer, cosine, fractions, is_number, power, warmup, widened

_SHAPES = ("linear", "1-sqrt", "cosine", "power")


def _boundaries(warmup_steps: int, decay_steps: int, cooldown_steps: int) -> tuple[int, ...]:
    return warmup_steps, decay_steps - cooldown_steps, decay_steps


@example(0.0, 1.0, 5, 30, 10, 0.1)
@promises(
    boundaries=_boundaries,
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def warmup_stable_decay_schedule(
    init_value: Real,
    peak_value: Real,
    warmup_steps: NonNegative,
    decay_steps: Real,
    cooldown_steps: NonNegative,
    end_value: Real = 0.0,
    cooldown: str = "linear",
    power: NonNegative = 2.0,
) -> Schedule:
    """A linear warm-up, a plateau at the peak, and a cooldown to the end value.

    s(t) = init + (peak - init) * t / warmup_steps for t < warmup_steps, then
    end + (peak - end) * c(t); c is 1 until the cooldown begins; see the module for its shapes.

    Args:
      init_value: The value at step 0.
      peak_value: The value from step `warmup_steps` to step ``decay_steps - cooldown_steps``.
      warmup_steps: The number of steps of the warm-up, >= 0.
      decay_steps: The number of steps of the whole schedule, warm-up and cooldown included.
      cooldown_steps: The number of steps of the cooldown, >= 0. With none the schedule stays at
        its peak.
      end_value: The value from step `decay_steps` on.
      cooldown: ``"linear"``, ``"1-sqrt"``, ``"cosine"`` or ``"power"``.
      power: The exponent q >= 0 of ``"power"``.

    Returns:
      A schedule.

    Raises:
      ValueError: If warm-up and cooldown do not fit into `decay_steps`, if there is no such shape,
        or a number is out of its range.

    Example:
      >>> from grad_schedules import warmup_stable_decay_schedule
      >>> schedule = warmup_stable_decay_schedule(
      ...     init_value=0.0, peak_value=1.0, warmup_steps=2, decay_steps=10, cooldown_steps=4
      ... )
      >>> [float(schedule(step)) for step in (0, 1, 2, 6, 8, 10, 11)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    _check("warmup_stable_decay_schedule", warmup_steps, decay_steps, cooldown_steps, cooldown)

    def at(count: Numeric) -> Numeric:
        rise = warmup(count, init_value, peak_value, warmup_steps)
        kept = _kept(cooldown, count, decay_steps - cooldown_steps, cooldown_steps, power)
        fall = peak_value * kept + end_value * (1 - kept)
        return jnp.where(jnp.less(count, warmup_steps), rise, fall)

    return at


@example(1.0, 2.0, 5, 40, 10, end_value=0.1)
@promises(
    boundaries=lambda peak_value, amplitude, warmup_steps, decay_steps, cooldown_steps, exponent: (
        *_boundaries(warmup_steps, decay_steps, cooldown_steps),
        (peak_value / amplitude) ** (1 / exponent),
    ),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda end_value: end_value,
)
@schedule
def power_schedule(
    peak_value: Real,
    amplitude: NonNegative,
    warmup_steps: NonNegative,
    decay_steps: Real,
    cooldown_steps: NonNegative = 0,
    exponent: Real = -0.51,
    end_value: Real = 0.0,
    cooldown: str = "linear",
    power: NonNegative = 2.0,
) -> Schedule:
    """A linear warm-up, a power of the step that is at most the peak, and a cooldown.

    With p(t) = min(peak, amplitude * t**exponent), s(t) = p(warmup_steps) * t / warmup_steps for
    t < warmup_steps, then p(t), and from step T = decay_steps - cooldown_steps on
    end + (p(T) - end) * c(t); see the module for the shapes c.

    The paper's a * beta * n**b, for a batch of beta sequences and n tokens seen, is that of
    amplitude = a * beta * (tokens per step)**b and exponent = b; it recommends a = 4.6, b = -0.51.

    Args:
      peak_value: The greatest value.
      amplitude: The factor >= 0 of the power.
      warmup_steps: The number of steps of the warm-up, >= 0.
      decay_steps: The number of steps of the whole schedule, warm-up and cooldown included.
      cooldown_steps: The number of steps of the cooldown, >= 0; none with 0.
      exponent: The exponent of the step.
      end_value: The value from step `decay_steps` on, if there is a cooldown.
      cooldown: ``"linear"``, ``"1-sqrt"``, ``"cosine"`` or ``"power"``.
      power: The exponent q >= 0 of a cooldown by ``"power"``.

    Returns:
      A schedule.

    Raises:
      ValueError: If warm-up and cooldown do not fit into `decay_steps`, if there is no such shape,
        or a number is out of its range.

    Example:
      >>> from grad_schedules import power_schedule
      >>> schedule = power_schedule(
      ...     1.0, amplitude=4.0, warmup_steps=4, decay_steps=104, cooldown_steps=4, exponent=-0.5
      ... )
      >>> [round(float(schedule(step)), 4) for step in (0, 2, 4, 16, 64, 100, 102, 104)]
      [0.0, 0.5, 1.0, 1.0, 0.5, 0.4, 0.2, 0.0]
    """
    _check("power_schedule", warmup_steps, decay_steps, cooldown_steps, cooldown)
    cooldown_begin = decay_steps - cooldown_steps

    def plateau(count: Numeric) -> jax.Array:
        return jnp.minimum(peak_value, amplitude * jnp.maximum(count, 1.0) ** exponent)

    def at(count: Numeric) -> Numeric:
        count = widened(count)
        rise = warmup(count, 0.0, plateau(warmup_steps), warmup_steps)
        kept = _kept(cooldown, count, cooldown_begin, cooldown_steps, power)
        is_cooling = jnp.greater(cooldown_steps, 0)
        before = plateau(jnp.where(is_cooling, jnp.minimum(count, cooldown_begin), count))
        fall = before * kept + end_value * (1 - kept)
        return jnp.where(jnp.less(count, warmup_steps), rise, fall)

    return at


def _check(
    factory: str, warmup_steps: Numeric, decay_steps: Numeric, cooldown_steps: Numeric, shape: str
) -> None:
    if shape not in _SHAPES:
        raise ValueError(f"{factory}: cooldown must be one of {_SHAPES}; got {shape!r}.")
    check_longer(factory, decay_steps, warmup_steps)
    counts = warmup_steps, decay_steps, cooldown_steps
    if all(map(is_number, counts)) and not warmup_steps + cooldown_steps <= decay_steps:
        raise ValueError(
            f"{factory}: decay_steps, the length of the whole schedule, must be >= warmup_steps + "
            f"cooldown_steps = {warmup_steps!r} + {cooldown_steps!r}; got {decay_steps!r}."
        )


def _kept(
    shape: str, count: Numeric, begin: Numeric, length: Numeric, exponent: Numeric
) -> jax.Array:
    passed, left = fractions(count, begin, length)
    if shape == "1-sqrt":
        return left / (1 + power(passed, 0.5))  # (1 - p) / (1 + sqrt p)
    if shape == "cosine":
        return cosine(left)
    return power(left, exponent) if shape == "power" else left
