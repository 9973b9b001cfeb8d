"""Schedules are values: they print, compare, hash, copy and pickle as their call."""

import ast
import copy
import functools
import pickle
from typing import Any

import jax

from grad_testing.checking import DoesNotApply, Factory, require, require_close
from grad_testing.schedule_checks import ScheduleSubject, schedule_subject_of, values_at
from grad_testing.tolerances import Tolerance
from grad_testing.value_checks import _namespace, _other_numbers

__all__ = [
    "can_be_a_static_argument",
    "copies_are_equal",
    "equal_calls_are_equal",
    "other_calls_are_unequal",
    "pickles",
    "repr_is_the_call",
]


def repr_is_the_call(factory: Factory) -> None:
    """``repr`` is the call: it names the factory, and evaluated, where it can be, is equal."""
    subject = schedule_subject_of(factory)
    text = repr(subject.schedule)
    is_call = text.startswith(f"{subject.name}(") and text.endswith(")")
    require(is_call, f"the repr should read {subject.name}(...), but is {text}")
    try:
        ast.parse(text, mode="eval")
        made = eval(text, _namespace(subject))
    except (SyntaxError, NameError):
        return  # an argument does not print as an expression
    require(made == subject.schedule, f"evaluating {text} should give an equal schedule")


def equal_calls_are_equal(factory: Factory) -> None:
    """Two calls with equal arguments make equal schedules of equal hash."""
    subject = schedule_subject_of(factory)
    a, b = subject.make(), subject.make()
    require(a == b, f"two calls {a!r} with equal arguments should be equal")
    require(hash(a) == hash(b), f"two equal {a!r} should have one hash")


def other_calls_are_unequal(factory: Factory) -> None:
    """A call with another number makes an unequal schedule, of another repr."""
    subject = schedule_subject_of(factory)
    for name, other in _other_numbers(subject).items():
        made = subject.make(**{name: other})
        require(
            made != subject.schedule,
            f"{made!r} should not equal {subject.schedule!r}: {name} differs",
        )
        require(repr(made) != repr(subject.schedule), f"{made!r} should show {name}={other!r}")


def pickles(factory: Factory) -> None:
    """A schedule can be pickled; what comes back is equal, and gives the same values."""
    subject = schedule_subject_of(factory)
    try:
        pickle.dumps((subject.arguments.args, subject.arguments.kwargs))
    except Exception as error:  # anything may go wrong in users' objects
        raise DoesNotApply(f"an argument of its example cannot be pickled: {error}") from error
    _require_same(subject, pickle.loads(pickle.dumps(subject.schedule)), "pickled and unpickled")


def copies_are_equal(factory: Factory) -> None:
    """`copy.copy` and `copy.deepcopy` give equal schedules."""
    subject = schedule_subject_of(factory)
    _require_same(subject, copy.copy(subject.schedule), "copied")
    _require_same(subject, copy.deepcopy(subject.schedule), "deeply copied")


def _require_same(subject: ScheduleSubject, other: Any, how: str) -> None:
    require(other == subject.schedule, f"{subject.schedule!r} should equal itself, {how}")
    require(hash(other) == hash(subject.schedule), f"{subject.schedule!r}, {how}, has another hash")
    steps = subject.steps()
    expected = values_at(subject.schedule, steps)
    require_close(
        values_at(other, steps), expected, f"{subject.schedule!r}, {how}", Tolerance(0.0, 0.0)
    )


def can_be_a_static_argument(factory: Factory) -> None:
    """As static arguments of `jax.jit`, equal schedules share one trace."""
    subject = schedule_subject_of(factory)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def at(schedule: Any, step: Any) -> Any:
        traces.append(schedule)
        return schedule(step)

    for _ in range(2):
        at(subject.make(), 3)
    require(
        len(traces) == 1,
        f"two equal {subject.schedule!r} were traced {len(traces)} times, not once",
    )
