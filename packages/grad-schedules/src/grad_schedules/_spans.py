"""How far a step is into a span of steps, without loss of precision or finite gradients."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import Numeric
from grad_core.errors import shown


def is_number(x: object) -> bool:
    """Whether `x` is a number that can be checked, and not traced."""
    return isinstance(x, int | float | np.number)


def check_positive(factory: str, name: str, value: object) -> None:
    """Raises if a number that is not traced is not positive."""
    if is_number(value) and not value > 0:  # type: ignore[operator]
        raise ValueError(f"{factory}: {name} must be > 0; got {value!r}.")


def check_longer(factory: str, decay_steps: object, warmup_steps: object) -> None:
    """Raises if a schedule is no longer than its warm-up, unless a number is traced."""
    if is_number(decay_steps) and is_number(warmup_steps) and not decay_steps > warmup_steps:  # type: ignore[operator]
        raise ValueError(
            f"{factory}: decay_steps, the length of the whole schedule, must be > warmup_steps = "
            f"{warmup_steps!r}; got {decay_steps!r}."
        )


def check_steps(factory: str, name: str, steps: object) -> None:
    """Raises if an argument is no list of steps; traced ones are steps too."""
    if not isinstance(steps, tuple | np.ndarray | jax.Array):
        raise TypeError(
            f"{factory}: {name} must be a list or tuple of numbers; got {shown(steps)}."
        )
    for index, step in enumerate(steps):
        what = f"{factory}: {name}[{index}] must be a number; got {shown(step)}."
        if not (is_number(step) or isinstance(step, jax.Array)):
            raise TypeError(what)
        if is_number(step) and step != step:
            raise ValueError(what)


def whole(x: Any) -> Any:
    """`x` rounded down to an integer, in double precision if it is not traced."""
    return int(x) if is_number(x) else jnp.floor(x).astype(int)


def exact(step: Any) -> Any:
    """A step as an integer if it is one that a count can reach, so that float32 does not round."""
    if not is_number(step):
        return step
    return int(step) if abs(step) < 2**31 and step == int(step) else float(step)


def stacked(numbers: Sequence[Any]) -> Any:
    """Numbers as one array of floating point, in double precision where none is traced."""
    if all(is_number(x) for x in numbers):
        return np.asarray(numbers, float)
    return jnp.stack([jnp.asarray(x) for x in numbers]) * 1.0


def stacked_steps(steps: Sequence[Any]) -> Any:
    """Steps as one ascending array, of integers if they are."""
    steps = [exact(step) for step in steps]
    if not all(is_number(x) for x in steps):
        return jnp.sort(jnp.stack([jnp.asarray(x) for x in steps]))
    return np.sort(np.asarray(steps, float if any(type(step) is float for step in steps) else int))


def widened(count: Numeric) -> jax.Array:
    """The count in a dtype that the lengths of spans fit in (uint8 and float16 are too narrow)."""
    count = jnp.asarray(count)
    if jnp.issubdtype(count.dtype, jnp.floating):
        return count.astype(jnp.float32) if count.dtype.itemsize < 4 else count
    return count.astype(int) if count.dtype.itemsize < jnp.result_type(int).itemsize else count


def steps_since(begin: Numeric, count: Numeric) -> jax.Array:
    """``max(count - begin, 0)``, where a `begin` before step 0 means 0.

    Of integers it is an integer: in float32, steps from 2^24 on would be rounded before the
    difference is taken. The order of the operations keeps int32 from overflowing.
    """
    begin = jnp.maximum(begin, 0)
    return jnp.maximum(widened(count), begin) - begin


def steps_from(begin: Numeric, count: Numeric) -> jax.Array:
    """``max(count - begin, 0)`` for a `begin` of either sign; as far as integers go."""
    count, ahead = widened(count), jnp.minimum(begin, 0)
    if jnp.issubdtype(count.dtype, jnp.integer):
        count = jnp.minimum(count, np.iinfo(jnp.result_type(int)).max + jnp.ceil(ahead).astype(int))
    return steps_since(begin, count - ahead)


def fractions(count: Numeric, begin: Numeric, length: Numeric) -> tuple[jax.Array, jax.Array]:
    """The parts of the span of `length` steps from `begin` that are passed and that are left.

    Each is rounded once, so that both are precise when small, and exactly 0 or 1 at the ends. A
    span without steps (`length` <= 0) is never left: (0, 1).
    """
    is_empty = jnp.less_equal(length, 0)
    length = jnp.where(is_empty, 1, length)
    passed = jnp.where(is_empty, 0, jnp.minimum(steps_since(begin, count), length))
    return passed / length, (length - passed) / length


def warmup(
    count: Numeric, init_value: Numeric, peak_value: Numeric, warmup_steps: Numeric
) -> jax.Array:
    """A line from the first value to the peak, which is kept; without steps it is the peak."""
    warmed, cold = fractions(count, 0, warmup_steps)
    is_over = jnp.greater_equal(count, warmup_steps)
    return jnp.where(is_over, peak_value, init_value * cold + peak_value * warmed)


def power(base: jax.Array, exponent: Numeric) -> jax.Array:
    """``base**exponent`` for both >= 0, where 0**0 = 1, with finite gradients at 0 too."""
    is_zero = base <= 0
    at_zero = jnp.where(jnp.equal(exponent, 0), 1.0, 0.0)
    return jnp.where(is_zero, at_zero, jnp.where(is_zero, 1.0, base) ** exponent)


def power_and_complement(
    passed: jax.Array, left: jax.Array, exponent: Numeric
) -> tuple[jax.Array, jax.Array]:
    """``left**exponent`` and ``1 - left**exponent``, both precise also when small."""
    kept = power(left, exponent)
    is_early = passed < 0.5
    # Late in the transition log1p would run into -inf, and the difference is precise.
    early = -jnp.expm1(exponent * jnp.log1p(-jnp.where(is_early, passed, 0.0)))
    return kept, jnp.where(is_early, early, 1 - kept)


def cosine(left: jax.Array) -> jax.Array:
    """The cosine factor (1 + cos(pi (1 - left))) / 2, without its cancellation as it vanishes."""
    return jnp.sin(0.5 * math.pi * left) ** 2
