#!/usr/bin/env python3
"""Compares the umbrella with the released library: names, parameters, defaults, fields of states.

A name that is there must be what users know: the same parameters of the same kinds in the same
order with the same defaults, the same fields of states. Two things may differ: keyword-only
parameters with defaults may follow, and a required parameter may have got a default. Names that are
not there yet are counted, and listed with ``--missing``.

Usage: ``uv run tools/check_api.py [--missing] [reference.json]``; the reference is a JSON object
whose ``names`` map dotted names below ``optax`` to one of

- ``"module"``, or ``"type"`` for an alias or a protocol;
- ``"(x, y=1.0, *, z=None)"``, the signature of a function; ``...`` stands for a default that has no
  public name;
- ``{"fields": "count, mu, nu"}``, a NamedTuple; with ``"is"``, the name of the class it is;
- ``{"class": "(x, y)", "members": ["init", "update"]}``, another class; an enum has members alone;

and whose ``states`` map classes of states that have no public name to their fields.
"""

import argparse
import ast
import enum
import importlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

REFERENCE = Path(__file__).with_name("released_api.json")
ANY = "..."


class Parameter(NamedTuple):
    """A parameter: its name, its kind in the words of `inspect`, its default, if any, as text."""

    name: str
    kind: str
    default: str | None

    def __str__(self) -> str:
        default = "" if self.default is None else f"={self.default}"
        return f"{self.name}{default} ({self.kind})"


class Result(NamedTuple):
    """What a comparison found."""

    compared: list[str]
    missing: list[str]
    differences: list[str]


def parameters_from_text(signature: str) -> list[Parameter]:
    """The parameters of a signature such as ``(x, *, y=1)``."""
    definition = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    args = definition.args
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    kinds = ["positional-only"] * len(args.posonlyargs) + ["positional or keyword"] * len(args.args)
    found = [
        Parameter(arg.arg, kind, _text_of_node(default))
        for arg, kind, default in zip(positional, kinds, defaults, strict=True)
    ]
    if args.vararg:
        found.append(Parameter(args.vararg.arg, "variadic positional", None))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found.append(Parameter(arg.arg, "keyword-only", _text_of_node(default)))
    if args.kwarg:
        found.append(Parameter(args.kwarg.arg, "variadic keyword", None))
    return found


def parameters_of(function: Any) -> list[Parameter]:
    """The parameters of a function or class."""
    return [
        Parameter(p.name, p.kind.description, None if p.default is p.empty else text_of(p.default))
        for p in inspect.signature(function).parameters.values()
    ]


def _text_of_node(node: ast.expr | None) -> str | None:
    if node is None:
        return None
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)
    return ANY if value is ... else text_of(value)


def text_of(default: object) -> str:
    """A default as text: numbers by value (1.0 is 1), functions and types by name."""
    if isinstance(default, enum.Enum):
        return f"{type(default).__name__}.{default.name}"
    if isinstance(default, float) and default.is_integer():
        return repr(int(default))
    name = getattr(default, "__name__", None)
    return name if isinstance(name, str) else repr(default)


def parameter_differences(ours: list[Parameter], released: list[Parameter]) -> Iterator[str]:
    """Says where users' calls of the released function would mean something else with ours."""
    by_name = {parameter.name: parameter for parameter in ours}
    for parameter in released:
        mine = by_name.get(parameter.name)
        if mine is None:
            yield f"lacks {parameter}"
        elif mine.kind != parameter.kind or parameter.default not in (None, ANY, mine.default):
            yield f"has {mine}, released: {parameter}"
        elif parameter.default == ANY and mine.default is None:
            yield f"has {mine}, released with a default"
    known = {parameter.name for parameter in released}
    for parameter in ours:
        if parameter.name not in known and (
            parameter.kind != "keyword-only" or parameter.default is None
        ):
            yield f"adds {parameter}; only keyword-only parameters with defaults may be added"
    order = [parameter.name for parameter in ours if parameter.name in known]
    expected = [parameter.name for parameter in released if parameter.name in by_name]
    if order != expected or [p.name for p in ours][: len(order)] != order:
        yield f"has the order {', '.join(p.name for p in ours)}, released: {', '.join(expected)}"


def field_differences(ours: Any, fields: str) -> Iterator[str]:
    """Says where the fields of a NamedTuple, or their defaults, differ."""
    released = parameters_from_text(f"({fields})")
    mine = getattr(ours, "_fields", None)
    if mine != tuple(field.name for field in released):
        yield f"has the fields {mine}, released: ({fields})"
        return
    defaults = {name: text_of(x) for name, x in ours._field_defaults.items()}
    expected = {field.name: field.default for field in released if field.default is not None}
    if defaults != expected:
        yield f"has the defaults {defaults}, released: {expected}"


def differences(name: str, ours: Any, released: str | Mapping[str, Any]) -> Iterator[str]:
    """Says where one name differs from what was released."""
    if released == "module":
        if not inspect.ismodule(ours):
            yield "is no module"
    elif released == "type":
        return
    elif isinstance(released, str):
        if not callable(ours):
            yield "is no function"
        else:
            yield from parameter_differences(parameters_of(ours), parameters_from_text(released))
    elif "fields" in released:
        yield from field_differences(ours, released["fields"])
        if "is" in released and ours is not find(released["is"]):
            yield f"is another class than {released['is']}"
    else:
        if "class" in released:
            expected = parameters_from_text(released["class"])
            yield from parameter_differences(parameters_of(ours), expected)
        for member in released["members"]:
            if not hasattr(ours, member):
                yield f"lacks the member {member}"


def find(name: str) -> Any:
    """What stands at a dotted name below ``optax``, by attribute or import; None if nothing."""
    found: Any = importlib.import_module("optax")
    path = "optax"
    for part in name.split("."):
        path += f".{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(path)
            except ModuleNotFoundError:
                return None
    return found


def private_states(names: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    """Classes of states with a known name, wherever in our packages they are defined."""
    modules = [m for name, m in sorted(sys.modules.items()) if name.startswith("grad_")]
    for module in modules:
        for name, fields in names.items():
            found = vars(module).get(name)
            if isinstance(found, type) and found.__module__ == module.__name__:
                yield name, found, fields


def compare(reference: Mapping[str, Any]) -> Result:
    """Compares all names of a reference, and all names of its modules, with ours."""
    result = Result([], [], [])
    for name, released in sorted(reference["names"].items()):
        ours = find(name)
        if ours is None:
            result.missing.append(name)
            continue
        result.compared.append(name)
        result.differences.extend(
            f"optax.{name}: {text}" for text in differences(name, ours, released)
        )
    for name, ours, fields in private_states(reference["states"]):
        result.compared.append(name)
        result.differences.extend(f"{name}: {text}" for text in field_differences(ours, fields))
    return result


def main(argv: list[str] | None = None) -> int:
    """Prints what differs; the exit status is 1 when anything does."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("reference", type=Path, nargs="?", default=REFERENCE)
    parser.add_argument("--missing", action="store_true", help="list the names that are missing")
    args = parser.parse_args(argv)
    reference = json.loads(args.reference.read_text(encoding="utf-8"))
    result = compare(reference)
    for text in result.differences:
        print(text)
    if args.missing:
        print("missing:", *result.missing, sep="\n  optax.")
    print(
        f"compared {len(result.compared)} names with release {reference['version']}: "
        f"{len(result.differences)} differences; {len(result.missing)} names are not there yet"
    )
    return int(bool(result.differences))


if __name__ == "__main__":
    sys.exit(main())
