"""The steps at which a schedule bends or jumps: what its factory promises of them."""

import inspect
from collections.abc import Callable
from typing import Any

from grad_core import conformance_of
from grad_core.values import Call


def boundaries_of(schedule: object) -> tuple[Any, ...]:
    """The steps at which the parts of a schedule meet, () if it does not tell."""
    call = getattr(schedule, "call", None)
    if not isinstance(call, Call):
        return ()
    promised: Callable[..., Any] | None = conformance_of(call.factory.public).promises.get(
        "boundaries"
    )
    if promised is None:
        return ()
    asked = inspect.signature(promised).parameters
    return tuple(promised(**{name: call.arguments[name] for name in asked}))


def within(schedule: object, begin: Any, end: Any = None) -> tuple[Any, ...]:
    """The boundaries of a schedule that runs from one step to another, these two included."""
    inner = tuple(begin + step for step in boundaries_of(schedule) if step > 0)
    ends = (begin,) if end is None else (begin, end)
    return (*ends, *(step for step in inner if end is None or step < end))
