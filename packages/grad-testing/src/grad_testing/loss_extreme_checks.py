"""Losses at extremes: value and gradient are finite wherever the mathematics is.

What the mathematics is, the same loss says in double precision, where nothing overflows.
"""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from grad_testing.checking import DoesNotApply, require
from grad_testing.loss_cases import HUGE, Case
from grad_testing.loss_subject import LossSubject, Results

__all__ = ["extremes_are_finite", "infinities_are_limits"]


def extremes_are_finite(subject: LossSubject, extreme: str) -> None:
    """Value and gradient are finite wherever those in double precision fit into the dtype.

    Tried are arguments that are all zero, equal to each other, tiny, large, near the largest number
    of the dtype, and at the ends of their ranges; in float16 and float32. Values are nearly those
    in double precision. Where the mathematics is infinite, so may they be, but never NaN.
    """
    looked_at = 0
    for dtype in ("float16", "float32"):
        for case, got, exact in _results(subject, dtype):
            if case.kind == extreme:
                looked_at += 1
                what = f"in {dtype}, {extreme}: {case.what}"
                _require_as_finite(subject, what, got, exact, dtype)
                _require_near(subject, what, case, got, exact, dtype)
    if not looked_at:
        raise DoesNotApply(f"there is nothing to try for {extreme}")


def infinities_are_limits(subject: LossSubject) -> None:
    """At infinite arguments, if promised, the value is the limit, and nothing is ever NaN."""
    if not subject.promised("infinite", ()):
        raise DoesNotApply("its module promises nothing at infinite arguments")
    huge = None
    for case, got, exact in _results(subject, "float32"):
        if case.kind == "huge":
            huge = exact.value
        if case.kind in ("infinite", "all infinite"):
            what = f"in float32, at {case.what}"
            _require_as_finite(subject, what, got, exact, "float32")
            _require_as_finite(subject, f"in float64, at {case.what}", exact, exact, "float64")
        if case.kind == "infinite" and huge is not None:
            _require_limit(subject, case.what, got.value, huge)


def _results(subject: LossSubject, dtype: str) -> Iterator[tuple[Case, Results, Results]]:
    found = subject.results(dtype), subject.exact_results(dtype)
    yield from zip(subject.cases(dtype), *found, strict=True)


def _require_as_finite(
    subject: LossSubject, what: str, got: Results, exact: Results, dtype: str
) -> None:
    """Requires the results to be finite wherever the exact ones fit into the dtype."""
    top = 0.999 * float(jnp.finfo(dtype).max)  # type: ignore[no-untyped-call]
    values = got.value.astype(np.float64)
    place = f"{subject.name} {what}"
    require(not np.isnan(exact.value).any(), f"{place}, in double precision: {exact.value}")
    fits = np.abs(exact.value) <= top
    wrong = np.isnan(values) | (fits & ~np.isfinite(values))
    require(not wrong.any(), f"{place} is {values}, but should be {exact.value}")
    for name, gradient in got.gradients.items():
        g, e = (_rows(subject, name, x, fits) for x in (gradient, exact.gradients[name]))
        fits_too = np.abs(e) <= top
        wrong = np.isnan(e) | (fits_too & ~np.isfinite(g)) | (np.isinf(e) & np.isnan(g))
        require(
            not wrong.any(),
            f"the gradient of {place}, by {name} is {g}, but in double precision {e}",
        )


def _rows(subject: LossSubject, name: str, gradient: Any, fits: Any) -> Any:
    """The gradient by an argument, without the examples whose value does not fit."""
    gradient = gradient.astype(np.float64)
    if subject.is_per_example and name in subject.batched:
        return gradient[fits.reshape(len(fits), -1).all(axis=1)]
    return gradient if fits.all() else gradient[:0]


def _require_near(
    subject: LossSubject, what: str, case: Case, got: Results, exact: Results, dtype: str
) -> None:
    """Requires values to be near the exact ones, where these fit into the dtype.

    What cancels may have errors as large as the arguments' rounding in float32.
    """
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    fits = np.abs(exact.value) <= 0.999 * float(limits.max)
    value, due = (np.where(fits, x, 0.0).astype(np.float64) for x in (got.value, exact.value))
    scale = max(float(np.max(np.abs(a), initial=0.0)) for a in case.arrays.values())
    allowed = 1e-2 * np.abs(due) + 1e-5 * scale + float(limits.smallest_subnormal)
    is_near = np.abs(value - due) <= allowed
    require(is_near.all(), f"{subject.name} {what} is {got.value}, but should be {exact.value}")


def _require_limit(subject: LossSubject, what: str, got: Any, huge: Any) -> None:
    """Requires a value at infinity to be as at a huge number, or infinite if that is huge."""
    is_near = np.isclose(got, huge, rtol=1e-3, atol=1e-3)
    grows_alike = np.isinf(got) & (np.abs(huge) > HUGE / 1000) & (np.sign(got) == np.sign(huge))
    require(
        (is_near | grows_alike).all(),
        f"{subject.name} at {what} is {got}, but at {HUGE:g} instead of infinity {huge}",
    )
