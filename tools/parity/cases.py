"""How a case is written: a call of a function below ``optax``, made on either side.

A case is data. What only one side can make, such as a schedule of `optax`, is a `call` too, and
what both sides have alike, such as a dtype or a function of a tree, stands there as it is.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

DTYPES = ("float32", "float64")
EXACT = "float64"  # the dtype whose results are the truth for the others
Values = dict[str, Any]
"""The arrays that a case gives, by name."""


class Bound(NamedTuple):
    """A function of one side and the arguments to call it with."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def __call__(self) -> Any:
        return self.function(*self.args, **self.kwargs)


@dataclass(frozen=True, repr=False)
class Call:
    """A call to be made later: a dotted name below ``optax``, or any function, and arguments."""

    function: str | Callable[..., Any]
    args: tuple[object, ...]
    kwargs: Mapping[str, object]

    @property
    def name(self) -> str:
        return self.function if isinstance(self.function, str) else self.function.__name__

    def __repr__(self) -> str:
        shown = [_text(value) for value in self.args]
        shown += [f"{name}={_text(value)}" for name, value in self.kwargs.items()]
        return f"{self.name}({', '.join(shown)})"

    def bind(self) -> Bound:
        """The function of this side, with the arguments of this side."""
        kwargs = {name: resolve(value) for name, value in self.kwargs.items()}
        return Bound(self.find(), tuple(map(resolve, self.args)), kwargs)

    def find(self) -> Callable[..., Any]:
        """The function of this side."""
        return find(self.function) if isinstance(self.function, str) else self.function

    def walk(self) -> Iterator["Call"]:
        """This call and those among its arguments."""
        yield self
        for value in (*self.args, *self.kwargs.values()):
            yield from _calls_in(value)


def call(function: str | Callable[..., Any], /, *args: object, **kwargs: object) -> Call:
    """A call as an argument of a case: ``call("linear_schedule", 1.0, 0.1, 40)``."""
    return Call(function, args, kwargs)


def find(name: str) -> Any:
    """What stands at a dotted name below the ``optax`` that is there."""
    found: Any = importlib.import_module("optax")
    for part in name.split("."):
        found = getattr(found, part)
    return found


def resolve(value: object) -> Any:
    """A value of a case as this side has it, with all calls made."""
    if isinstance(value, Call):
        return value.bind()()
    if isinstance(value, dict):
        return {key: resolve(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(resolve, value))
    return value


def _calls_in(value: object) -> Iterator[Call]:
    if isinstance(value, Call):
        yield from value.walk()
    elif isinstance(value, dict):
        yield from _calls_in(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _calls_in(each)


def _text(value: object) -> str:
    """A value as people write it; functions and types by name."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_text, value)) + ("," if len(value) == 1 else "") + ")"
    name = getattr(value, "__name__", None)
    return name if isinstance(name, str) else repr(value)


@dataclass(frozen=True)
class Known:
    """A difference that docs/differences.md tells of.

    Attributes:
      row: The first cell of its row there.
      at_most: By dtype, how large it may be; it must be there, and it must be larger than the
        family's bound, or this entry is out of date.
    """

    row: str
    at_most: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """A call, what its probe needs to know beside, and a difference that is known."""

    call: Call
    options: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None

    @property
    def id(self) -> str:
        """The call, which says it all; recordings know cases by it."""
        return repr(self.call)

    def using(self, **options: object) -> "Case":
        """The case with keyword arguments for its probe."""
        return Case(self.call, {**self.options, **options}, self.known)

    def differs(self, row: str, **at_most: float) -> "Case":
        """The case with a known difference: ``case("f", 1).differs("`f`", float32=1e-3)``."""
        return Case(self.call, self.options, Known(row, at_most))


def case(function: str, /, *args: object, **kwargs: object) -> Case:
    """A case: ``case("adam", 0.1, b1=0.5)``."""
    return Case(Call(function, args, kwargs))


@dataclass(frozen=True)
class Family:
    """Cases that are run and judged alike, and what they are to cover.

    Attributes:
      names: Gives the dotted names, below ``optax``, of the functions to cover. It is called on our
        side; names that the released library lacks are left out.
      cases: The cases.
      probe: ``probe(bound, dtype, **options)`` runs a case and returns a tree of arrays to compare.
      bounds: By dtype, the largest difference that needs no explanation.
      left_out: Names that no case has to cover, with the reason.
      settings: How many cases a function with arguments must have.
    """

    names: Callable[[], Iterable[str]]
    cases: Sequence[Case]
    probe: Callable[..., Any]
    bounds: Mapping[str, float] = field(default_factory=lambda: {"float32": 1e-5, "float64": 1e-10})
    left_out: Mapping[str, str] = field(default_factory=dict)
    settings: int = 3

    def __post_init__(self) -> None:
        ids = [each.id for each in self.cases]
        if twice := {each for each in ids if ids.count(each) > 1}:
            raise ValueError(f"cases that are there twice: {', '.join(sorted(twice))}")

    def calls(self) -> Iterator[Call]:
        """All calls of all cases."""
        for each in self.cases:
            yield from each.call.walk()

    def recorded(self) -> list[Case]:
        """The cases to record: of each function one that agrees, with as many arguments as any."""

        def worth(each: Case) -> tuple[bool, int]:
            return each.known is None, len(each.call.args) + len(each.call.kwargs)

        best: dict[str, Case] = {}
        for each in self.cases:
            known = best.setdefault(each.call.name, each)
            best[each.call.name] = max(known, each, key=worth)
        return list(best.values())
