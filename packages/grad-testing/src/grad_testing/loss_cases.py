"""Where losses are looked at: at the example, and at the extremes of dtypes and ranges."""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["EXTREMES", "HUGE", "Array", "Arrays", "Case", "make_cases"]

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]
Ranges = Mapping[str, tuple[float, float]]

EXTREMES = ("zeros", "equal", "tiny", "large", "largest", "ends")
"""The kinds of cases where arguments are finite."""

HUGE = 1e4
"""What stands for infinity where limits are compared."""


class Case(NamedTuple):
    """Values, in double precision, of the arguments that derivatives are taken of.

    Attributes:
      kind: ``"example"``; ``"nearby"``; one of `EXTREMES`; ``"infinite"``, after the same with
        something ``"huge"`` instead; or ``"all infinite"``.
      what: What it is, in words.
      arrays: The values, by argument.
    """

    kind: str
    what: str
    arrays: Arrays

    def rounded_to(self, dtype: str) -> "Case":
        """The values rounded to a dtype, in double precision nevertheless."""
        rounded = {n: a.astype(jnp.dtype(dtype)).astype(np.float64) for n, a in self.arrays.items()}
        return self._replace(arrays=rounded)


def make_cases(
    example: Arrays, ranges: Ranges, infinite: Collection[str], dtype: str
) -> list[Case]:
    """The cases of a dtype, the example first, one nearby second; as many for each dtype.

    Args:
      example: The arguments that derivatives are taken of.
      ranges: For each of them the closed interval of what is legal.
      infinite: Those that may be infinite.
      dtype: A floating point dtype.
    """
    limits = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    top = float(limits.max)
    tiny = max(1e-30, 8 * float(limits.smallest_subnormal))
    largest = {name: np.copysign(top / 8, a) for name, a in example.items()}
    first = next(iter(example.values()))
    equal = {name: first for name, a in example.items() if a.shape == first.shape}

    def case(kind: str, what: str, changes: Mapping[str, Any]) -> Case:
        """The example with changes, brought into the ranges."""
        whole = {**example, **changes}
        legal = {
            name: np.clip(np.broadcast_to(whole[name], a.shape), *ranges[name])
            for name, a in example.items()
        }
        return Case(kind, what, legal)

    def scaled(factor: float) -> Arrays:
        return {name: np.array(np.clip(factor * a, -top, top)) for name, a in example.items()}

    cases = [
        Case("example", "as it is", example),
        case("nearby", "times 7/8", scaled(0.875)),
        case("zeros", "all", scaled(0.0)),
        case("equal", "all of a shape", equal),
        case("tiny", "all", scaled(tiny)),
        case("large", "all times 100", scaled(1e2)),
        case("large", "all times 10000", scaled(1e4)),
        case("largest", "all", largest),
    ]
    for name in example:
        cases += [
            case("zeros", name, {name: 0.0}),
            case("largest", name, {name: largest[name]}),
            case("largest", f"-{name}", {name: -largest[name]}),
        ]
        cases += [case("ends", *each) for each in _ends(name, example[name], ranges[name])]
    for name in infinite:
        cases += [case(*each) for each in _infinities(name, example[name], ranges)]
    return cases


def _ends(name: str, a: Array, range_: tuple[float, float]) -> list[tuple[str, dict[str, Any]]]:
    """An argument at either end of its range, and in turn at both."""
    ends = [end for end in range_ if math.isfinite(end)]
    changes: list[tuple[str, Any]] = [(f"{name} = {end}", end) for end in ends]
    if len(ends) == 2:
        for turn in (ends, ends[::-1]):
            changes.append((f"{name} = {turn} in turn", np.resize(turn, a.shape)))
    return [(what, {name: value}) for what, value in changes]


def _infinities(name: str, a: Array, ranges: Ranges) -> list[tuple[str, str, dict[str, Any]]]:
    """Infinite values of an argument, also beside others at the ends of their ranges."""
    others = {n: range_ for n, range_ in ranges.items() if n != name}
    beside: list[dict[str, Any]] = [{}]
    for end in (0, 1):
        ends = {n: range_[end] for n, range_ in others.items() if math.isfinite(range_[end])}
        beside += [ends] if ends else []
    found = []
    for infinity in (end for end in ranges[name] if math.isinf(end)):
        for ends in beside:
            words = "".join(f", {n} = {x}" for n, x in ends.items())
            for kind, value in (("huge", math.copysign(HUGE, infinity)), ("infinite", infinity)):
                first = a.copy()
                first[..., 0] = value
                found.append((kind, f"{name}[..., 0] = {value}{words}", {name: first, **ends}))
        whole = a.copy()
        whole[0] = infinity
        found.append(("all infinite", f"{name}[0] = {infinity}", {name: whole}))
    return found
