"""What factories make are values: they print, compare, hash, copy and pickle as their call."""

import ast
import copy
import functools
import inspect
import math
import pickle
import sys
from typing import Any

import jax
import jax.numpy as jnp

import grad_core
from grad_testing.checking import (
    Compilations,
    DoesNotApply,
    Subject,
    TransformationSubject,
    require,
    require_close,
)
from grad_testing.tolerances import Tolerance

__all__ = [
    "can_be_a_static_argument",
    "copies_are_equal",
    "equal_calls_are_equal",
    "numbers_do_not_recompile",
    "other_calls_are_unequal",
    "pickles",
    "repr_is_the_call",
    "survives_tree_map_and_replace",
]


def repr_is_the_call(subject: Subject) -> None:
    """``repr`` is the call: it names the factory, and evaluated, where it can be, is equal."""
    text = repr(subject.made)
    is_call = text.startswith(f"{subject.name}(") and text.endswith(")")
    require(is_call, f"the repr should read {subject.name}(...), but is {text}")
    try:
        ast.parse(text, mode="eval")
        made = eval(text, _namespace(subject))
    except (SyntaxError, NameError):
        return  # an argument does not print as an expression
    if _is_compared_by_content(subject):
        require(made == subject.made, f"evaluating {text} should give an equal value")


def _namespace(subject: Subject) -> dict[str, Any]:
    body = inspect.unwrap(subject.factory)
    module = sys.modules.get(body.__module__)
    own = vars(module) if module else {}
    return {**vars(grad_core), **own, "jnp": jnp, "inf": math.inf, "nan": math.nan}


def equal_calls_are_equal(subject: Subject) -> None:
    """Two calls with equal arguments make equal values of equal hash."""
    a, b = subject.make(), subject.make()
    require(a == b, f"two calls {a!r} with equal arguments should be equal")
    require(hash(a) == hash(b), f"two equal {a!r} should have one hash")


def other_calls_are_unequal(subject: Subject) -> None:
    """A call with another number makes an unequal value, of another repr."""
    for name, other in subject.other_numbers.items():
        made = subject.make(**{name: other})
        require(made != subject.made, f"{made!r} should not equal {subject.made!r}: {name} differs")
        require(repr(made) != repr(subject.made), f"{made!r} should show {name}={other!r}")


def pickles(subject: Subject) -> None:
    """What was pickled comes back and works, and is equal if its arguments are."""
    try:
        pickle.dumps((subject.arguments.args, subject.arguments.kwargs))
    except Exception as error:  # anything may go wrong in users' objects
        raise DoesNotApply(f"an argument of its example cannot be pickled: {error}") from error
    back = pickle.loads(pickle.dumps(subject.made))
    _require_same(subject, back, "unpickled", is_equal=_is_compared_by_content(subject))


def copies_are_equal(subject: Subject) -> None:
    """`copy.copy` gives an equal value; so does `copy.deepcopy`, and both work."""
    _require_same(subject, copy.copy(subject.made), "copied")
    deep = copy.deepcopy(subject.made)
    _require_same(subject, deep, "deeply copied", is_equal=_is_compared_by_content(subject))


def survives_tree_map_and_replace(subject: TransformationSubject) -> None:
    """``jax.tree.map`` and ``_replace`` rebuild the tuple: it stays equal and prints the same."""
    rebuilt = {
        "after jax.tree.map": jax.tree.map(lambda x: x, subject.tx),
        "after _replace": subject.tx._replace(update=subject.tx.update),
    }
    for how, tx in rebuilt.items():
        _require_same(subject, tx, how)
        require(repr(tx) == repr(subject.tx), f"{subject.tx!r} prints as {tx!r} {how}")


def can_be_a_static_argument(subject: Subject) -> None:
    """As static arguments of `jax.jit`, equal values share one trace."""
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def results(made: Any) -> Any:
        traces.append(made)
        return subject.results(made)

    for _ in range(2):
        results(subject.make())
    require(
        len(traces) == 1, f"two equal {subject.made!r} were traced {len(traces)} times, not once"
    )


def numbers_do_not_recompile(subject: Subject) -> None:
    """Outside `jax.jit`, a value that differs in numbers only compiles nothing new."""
    if not subject.other_numbers:
        raise DoesNotApply("it takes no numbers")
    subject.results(subject.made)
    other = subject.make(**subject.other_numbers)
    with Compilations() as compilations:
        subject.results(other)
    require(
        compilations.count == 0,
        f"{other!r} compiled {compilations.count} functions anew, after {subject.made!r} had run",
    )


def _is_compared_by_content(subject: Subject) -> bool:
    """Whether the example's arguments equal themselves, pickled: not so for lambdas and arrays."""
    arguments = subject.arguments.args, tuple(sorted(subject.arguments.kwargs.items()))
    try:
        hash(arguments)
        return bool(pickle.loads(pickle.dumps(arguments)) == arguments)
    except Exception:  # what cannot be hashed or pickled is compared by identity
        return False


def _require_same(subject: Subject, other: Any, how: str, *, is_equal: bool = True) -> None:
    """Requires what was made, after something was done to it, to be what it was and to work."""
    kinds = type(other).__name__, type(subject.made).__name__
    require(kinds[0] == kinds[1], f"{subject.made!r}, {how}, is a {kinds[0]}, not a {kinds[1]}")
    if is_equal:
        require(other == subject.made, f"{subject.made!r} should equal itself, {how}")
        require(hash(other) == hash(subject.made), f"{subject.made!r}, {how}, has another hash")
    expected = subject.results(subject.made)
    what = f"the results of {subject.made!r}, {how}"
    require_close(subject.results(other), expected, what, Tolerance(0.0, 0.0))
