"""Losses refuse what cannot be right, with an error that says whose, which and what."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from grad_testing.checking import DoesNotApply, require, require_refused
from grad_testing.loss_subject import LossSubject

__all__ = ["integers_are_refused", "numbers_are_checked", "wrong_shapes_are_named"]


def integers_are_refused(subject: LossSubject) -> None:
    """Arguments of another kind of dtype raise an error that names loss and argument, or work.

    The first argument that is floating point in the example must refuse integers, booleans and
    complex numbers with a TypeError. Others may take them, if the value is floating point still.
    """
    for name, array in subject.arrays.items():
        is_real = jnp.issubdtype(array.dtype, jnp.floating)
        for dtype in (np.int32, bool, np.complex64) if is_real else (np.float32,):
            place = f"{subject.name} with {name} of dtype {np.dtype(dtype)}"
            error, value = _outcome(subject, {name: array.astype(dtype)})
            if error is None:
                is_first = name == next(iter(subject.reals), None)
                require(not is_first, f"{place} should raise a TypeError, but is accepted")
                is_floating = jnp.issubdtype(value.dtype, jnp.floating)
                require(is_floating, f"{place} should be refused, but gives {value.dtype}")
            else:
                kinds = (TypeError,) if is_real else (TypeError, ValueError)
                _require_says(place, error, kinds, [subject.name], [name])


def wrong_shapes_are_named(subject: LossSubject) -> None:
    """Shapes that do not fit raise a ValueError that names the loss, an argument and a shape.

    An example more in one argument than in the others must be refused. One more along another axis,
    one axis less or one more may mean something; if not, the error is such a one.
    """
    several = len(subject.batched) > 1
    for name, array in subject.arrays.items():
        longer = [
            np.concatenate([array, array.take([0], axis)], axis) for axis in range(array.ndim)
        ]
        others = [array[None], *([array[0], array.reshape(-1)[0]] if array.ndim else [])]
        for other in (*longer, *others):
            error, _ = _outcome(subject, {name: other})
            place = f"{subject.name} with {name} of shape {other.shape}, not {array.shape},"
            if error is not None:
                shapes = [str(a.shape) for a in (*subject.arrays.values(), other)]
                _require_says(
                    place, error, (ValueError,), [subject.name], [*subject.arrays], shapes
                )
            elif several and name in subject.batched and other is longer[0]:
                raise AssertionError(f"{place} should raise a ValueError, but is accepted")


def numbers_are_checked(subject: LossSubject) -> None:
    """A Python float that is NaN or out of its range is refused, and the range's ends are not."""
    if not subject.numbers:
        raise DoesNotApply("no argument of its example is a float")
    for name in subject.numbers:
        low, high = subject.range_of(name)
        for bad in (*(x for x in (low - 1, high + 1) if math.isfinite(x)), math.nan):
            require_refused(subject, name, bad, ValueError)
        for end in (x for x in (low, high) if math.isfinite(x)):
            error, _ = _outcome(subject, {name: end})
            require(error is None, f"{subject.name}({name}={end!r}) should work, but {error!r}")


def _outcome(subject: LossSubject, changes: dict[str, Any]) -> tuple[Exception | None, Any]:
    """What a call raises, or the shape and dtype of what it returns."""
    try:
        return None, subject.shape_of(**changes)
    except Exception as error:
        return error, None


def _require_says(
    place: str, error: Exception, kinds: tuple[type[Exception], ...], *words: list[str]
) -> None:
    """Requires an error to be of a kind, and to say one word of each list."""
    names = " or ".join(kind.__name__ for kind in kinds)
    if not isinstance(error, kinds):
        raise AssertionError(f"{place} should raise a {names}, not {error!r}") from error
    for due in words:
        said = any(word in str(error) for word in due)
        require(said, f"{place} should raise an error that says {' or '.join(due)}, not: {error}")
