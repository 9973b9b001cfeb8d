"""What a family should cover, and does not."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

from parity.cases import Call, Family, find

Parameters = Mapping[str, list[str]]
"""The names of a function's parameters, by the function's name."""


def public(package: ModuleType, suits: Callable[[str, Any], bool], prefix: str = "") -> list[str]:
    """The public names of a package whose names and values suit, as they are below ``optax``."""
    return [prefix + name for name in package.__all__ if suits(name, getattr(package, name))]


def parameters(names: Iterable[str]) -> dict[str, list[str]]:
    """The parameters of those functions that this side has."""
    found = {}
    for name in names:
        try:
            found[name] = list(inspect.signature(find(name)).parameters)
        except AttributeError:
            continue
    return found


def used(call: Call) -> set[str]:
    """The parameters that a call gives a value which is not their default."""
    known = inspect.signature(call.find())
    given = known.bind_partial(*call.args, **call.kwargs).arguments
    return {
        name for name, value in given.items() if _differs(value, known.parameters[name].default)
    }


def _differs(value: object, default: object) -> bool:
    return value is not default and (type(value) is not type(default) or value != default)


def _optional(name: str) -> set[str]:
    """The parameters of our function that one can leave out."""
    return {
        parameter.name
        for parameter in inspect.signature(find(name)).parameters.values()
        if parameter.default is not parameter.empty
    }


def gaps(family: Family, ours: Parameters, released: Parameters) -> Iterator[str]:
    """Says which functions have too few cases, and which arguments none of them uses.

    Arguments that must be given are used by whatever runs.

    Args:
      family: The family.
      ours: The parameters of our functions that it should cover.
      released: Those of the released library's functions.
    """
    calls = defaultdict(list)
    for call in family.calls():
        calls[call.name].append(call)
    for name in sorted(ours.keys() & released.keys()):
        if reason := family.left_out.get(name):
            if calls[name]:
                yield f"{name}: has cases, and is left out because {reason}"
            continue
        both = set(ours[name]) & set(released[name])
        settings = {repr(call) for call in calls[name]}
        wanted = family.settings if both else 1
        if len(settings) < wanted:
            yield f"{name}: has {len(settings)} of {wanted} cases"
        elif unused := (both & _optional(name)).difference(*map(used, calls[name])):
            yield f"{name}: no case uses {', '.join(sorted(unused))}"
    for name in sorted(family.left_out.keys() - ours.keys()):
        yield f"{name}: left out, and not there"
