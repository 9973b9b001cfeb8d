"""How far two results are apart, and what to think of it.

The measure is max|a - b| / max|b| over an array, the largest over all arrays of a case. Where
float32 results are further apart than the bound, one of them may simply be rounded badly: then the
released library's float64 result, which has digits to spare, says which.
"""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from parity.cases import EXACT, Case, Values

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "differences.md"
ROUNDING = (
    "rounding in float32"  # the row for whatever is but rounded badly in the released library
)


class Difference(NamedTuple):
    """The largest difference, and where it is."""

    size: float
    where: str


class Verdict(NamedTuple):
    """What a comparison came to.

    Attributes:
      passed: Whether it is as it should be.
      kind: "ok", "known difference", "rounding" or "FAIL".
      text: That, and what there is to say of it.
      difference: The largest difference.
    """

    passed: bool
    kind: str
    text: str
    difference: Difference


def difference(a: Any, b: Any) -> float:
    """max|a - b| / max|b|; infinite where shapes, dtypes or places of NaN and inf differ."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return math.inf
    if not a.size:
        return 0.0
    wide = np.complex128 if "c" in (a.dtype.kind, b.dtype.kind) else np.float64
    a, b = a.astype(wide), b.astype(wide)
    odd = ~np.isfinite(b)
    if not np.array_equal(a[odd], b[odd], equal_nan=True):
        return math.inf
    a, b = a[~odd], b[~odd]
    largest, scale = np.abs(a - b).max(initial=0.0), np.abs(b).max(initial=0.0)
    if largest == 0:
        return 0.0
    found = float(largest / scale) if scale else math.inf
    return math.inf if math.isnan(found) else found


def largest_difference(ours: Values, released: Values) -> Difference:
    """The largest difference between two results of a case."""
    if unmatched := sorted(ours.keys() ^ released.keys()):
        return Difference(math.inf, f"{unmatched[0]}, on one side only")
    found = (Difference(difference(a, released[name]), name) for name, a in ours.items())
    return max(found, key=lambda each: each.size, default=Difference(math.inf, "nothing"))


def judge(
    case: Case,
    dtype: str,
    bounds: Mapping[str, float],
    ours: Values,
    released: Values,
    exact: Values,
) -> Verdict:
    """Judges our result.

    Args:
      case: The case.
      dtype: The dtype it ran in.
      bounds: The family's bounds, by dtype.
      ours: Our result.
      released: The released library's result, in the same dtype.
      exact: The released library's result in float64.

    Returns:
      The verdict.
    """
    found, bound = largest_difference(ours, released), bounds[dtype]
    at_most = case.known.at_most.get(dtype) if case.known else None

    def verdict(passed: bool, kind: str, more: str = "") -> Verdict:
        return Verdict(passed, kind, f"{kind}: {more}" if more else kind, found)

    if case.known and at_most is not None:
        if found.size <= bound:
            return verdict(False, "FAIL", f"no longer differs, {case.known.row!r} is out of date")
        if found.size > at_most:
            return verdict(False, "FAIL", f"beyond {at_most:g}, which {case.known.row!r} explains")
        return verdict(True, "known difference", case.known.row)
    if found.size <= bound:
        return verdict(True, "ok")
    if dtype != EXACT:
        mine, theirs = largest_difference(ours, exact), largest_difference(released, exact)
        errors = f"off from float64: ours {mine.size:.1e}, released {theirs.size:.1e}"
        if mine.size <= bound < theirs.size:
            return verdict(True, "rounding", errors)
        return verdict(False, "FAIL", errors)
    return verdict(False, "FAIL")


def rows(path: Path = DIFFERENCES) -> set[str]:
    """The first cells of the tables in docs/differences.md."""
    found = re.findall(r"^\| (.+?) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return set(found)


def missing_rows(cases: Iterable[Case], known: set[str]) -> list[str]:
    """Says which rows the cases name that are not there."""
    named = {each.known.row for each in cases if each.known} | {ROUNDING}
    return [f"docs/differences.md has no row {row!r}" for row in sorted(named - known)]
