r"""Values that change at given steps, at once or by interpolation.

With boundaries :math:`b_1 < b_2 < ...` and scales :math:`c_1, c_2, ...` the values are

.. math::

    v_i = v_0 c_1 c_2 \cdots c_i

taken on at :math:`b_i` at once (constant), or reached there from :math:`v_{i-1}` at
:math:`b_{i-1}` (linear, cosine), where :math:`b_0 = 0`.
"""

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import Numeric, Real, Schedule, example, promises
from grad_core.errors import shown
from grad_schedules._prepared import formula, prepared
from grad_schedules._spans import cosine, is_number, stacked, stacked_steps, widened


def _keys(boundaries_and_scales: Mapping[Any, Any] | None) -> tuple[Any, ...]:
    return tuple(boundaries_and_scales or ())


def _last(init_value: float, boundaries_and_scales: Mapping[Any, Any] | None) -> float:
    return float(values_of("", init_value, boundaries_and_scales)[-1])


@example(1.0, {5: 0.5, 12: 0.1})
@promises(boundaries=_keys, is_monotone=True, end_value=_last)
@prepared
def piecewise_constant_schedule(
    init_value: Real, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """A value that is multiplied by a scale at each boundary: s(t) = v_i for b_i <= t < b_(i+1).

    Args:
      init_value: The value v_0 up to the first boundary.
      boundaries_and_scales: The steps at which the value changes, and what it is multiplied by
        there, >= 0. It never changes with None.

    Returns:
      A schedule.

    Raises:
      ValueError: If a scale is negative, or a boundary is no number.

    Example:
      >>> from grad_schedules import piecewise_constant_schedule
      >>> schedule = piecewise_constant_schedule(1.0, {2: 0.5, 4: 0.1})
      >>> [round(float(schedule(step)), 4) for step in range(6)]
      [1.0, 1.0, 0.5, 0.5, 0.05, 0.05]
    """
    values = values_of("piecewise_constant_schedule", init_value, boundaries_and_scales)
    return stairs(_keys(boundaries_and_scales), values)


@example("linear", 1.0, {5: 0.5, 12: 0.1})
@promises(boundaries=_keys, is_monotone=True, is_continuous=True, end_value=_last)
@prepared
def piecewise_interpolate_schedule(
    interpolate_type: str,
    init_value: Real,
    boundaries_and_scales: Mapping[int, float] | None = None,
) -> Schedule:
    """A value that is multiplied by a scale from each boundary to the next, gradually.

    s(t) = v_(i-1) + (v_i - v_(i-1)) * f((t - b_(i-1)) / (b_i - b_(i-1))) between two boundaries,
    with f(p) = p or f(p) = (1 - cos(pi p)) / 2.

    Args:
      interpolate_type: ``"linear"`` or ``"cosine"``.
      init_value: The value v_0 at step 0.
      boundaries_and_scales: The steps at which the scaled values are reached, and the scales,
        >= 0. The value never changes with None.

    Returns:
      A schedule.

    Raises:
      ValueError: If a scale is negative, or the type is neither of the two.

    Example:
      >>> from grad_schedules import piecewise_interpolate_schedule
      >>> schedule = piecewise_interpolate_schedule("linear", 1.0, {2: 0.5, 4: 0.0})
      >>> [round(float(schedule(step)), 4) for step in range(6)]
      [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    if interpolate_type not in _CURVES:
        raise ValueError(
            "piecewise_interpolate_schedule: interpolate_type must be 'linear' or 'cosine'; "
            f"got {interpolate_type!r}."
        )
    values = values_of("piecewise_interpolate_schedule", init_value, boundaries_and_scales)
    return curves(interpolate_type, sorted(_keys(boundaries_and_scales)), values)


def values_of(factory: str, init_value: Any, scales: Mapping[Any, Any] | None) -> list[Any]:
    """The values of the pieces, checked, in the order of the boundaries."""
    if scales is not None and not isinstance(scales, Mapping):
        raise TypeError(
            f"{factory}: boundaries_and_scales must be a dict from steps to scales; "
            f"got {shown(scales)}."
        )
    for step, scale in (scales or {}).items():
        if not is_number(step):
            raise TypeError(
                f"{factory}: the boundaries in boundaries_and_scales must be numbers; "
                f"got {shown(step)}."
            )
        if is_number(scale) and not scale >= 0:
            raise ValueError(
                f"{factory}: the scales in boundaries_and_scales must be >= 0; "
                f"got {scale!r} at {step!r}."
            )
    ordered = [scale for _, scale in sorted((scales or {}).items(), key=operator.itemgetter(0))]
    return [*itertools.accumulate(ordered, operator.mul, initial=init_value)]


def stairs(boundaries: Sequence[Any], values: Sequence[Any]) -> Schedule:
    """The formula of values that jump at boundaries."""
    return formula(at_stairs, stacked_steps(boundaries), stacked(values))


def curves(kind: str, boundaries: Sequence[Any], values: Sequence[Any]) -> Schedule:
    """The formula of values that are reached at boundaries; the first is that of step 0."""
    if not boundaries:
        return stairs(boundaries, values)
    return formula(_CURVES[kind], stacked_steps(boundaries), stacked(values))


def at_stairs(boundaries: jax.Array, values: jax.Array, count: Numeric) -> jax.Array:
    """The value that was taken on at the last boundary."""
    return values[_pieces_begun(boundaries, widened(count))]


def _at_lines(boundaries: jax.Array, values: jax.Array, count: Numeric) -> Numeric:
    before, after, passed, left = _piece(boundaries, values, count)
    return before * left + after * passed


def _at_cosines(boundaries: jax.Array, values: jax.Array, count: Numeric) -> Numeric:
    before, after, passed, left = _piece(boundaries, values, count)
    return before * cosine(left) + after * cosine(passed)


_CURVES = {"linear": _at_lines, "cosine": _at_cosines}


def _pieces_begun(boundaries: jax.Array, count: jax.Array) -> jax.Array:
    return jnp.sum(jnp.expand_dims(count, -1) >= boundaries, axis=-1)


def _piece(boundaries: jax.Array, values: jax.Array, count: Numeric) -> tuple[jax.Array, ...]:
    """The values before and after the piece at `count`, and the parts of it passed and left."""
    count = widened(count)
    index = _pieces_begun(boundaries, count)
    before, after = values[index], jnp.append(values[1:], values[-1:])[index]
    begin = jnp.append(jnp.minimum(boundaries[:1], 0), boundaries)[index]
    end = jnp.append(boundaries, boundaries[-1:])[index]
    passed = jnp.clip(count, begin, end) - begin
    length = jnp.maximum(end - begin, 1)  # the last piece has no end
    return before, after, passed / length, (length - passed) / length
