"""Transformations are values: they print, compare, hash, copy and pickle as their call."""

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
from grad_core import GradientTransformation
from grad_testing.checking import (
    DoesNotApply,
    Factory,
    Subject,
    require,
    require_close,
    sample,
    subject_of,
    take_steps,
)

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


def repr_is_the_call(factory: Factory) -> None:
    """``repr(tx)`` is the call: it names the factory, and evaluated, where it can be, is equal."""
    subject = subject_of(factory)
    text = repr(subject.tx)
    is_call = text.startswith(f"{subject.name}(") and text.endswith(")")
    require(is_call, f"the repr should read {subject.name}(...), but is {text}")
    try:
        ast.parse(text, mode="eval")
        made = eval(text, _namespace(subject))
    except (SyntaxError, NameError):
        return  # an argument does not print as an expression
    if _is_compared_by_content(subject):
        require(made == subject.tx, f"evaluating {text} should give an equal transformation")


def _namespace(subject: Subject) -> dict[str, Any]:
    body = inspect.unwrap(subject.factory)
    module = sys.modules.get(body.__module__)
    own = vars(module) if module else {}
    return {**vars(grad_core), **own, "jnp": jnp, "inf": math.inf, "nan": math.nan}


def equal_calls_are_equal(factory: Factory) -> None:
    """Two calls with equal arguments make equal transformations of equal hash."""
    subject = subject_of(factory)
    a, b = subject.make(), subject.make()
    require(a == b, f"two calls {a!r} with equal arguments should be equal")
    require(hash(a) == hash(b), f"two equal {a!r} should have one hash")
    for role in ("init", "update"):
        same = getattr(a, role) == getattr(b, role)
        require(same, f"the {role} of two equal {a!r} should be equal")


def other_calls_are_unequal(factory: Factory) -> None:
    """A call with another number makes an unequal transformation, of another repr."""
    subject = subject_of(factory)
    for name, other in _other_numbers(subject).items():
        made = subject.make(**{name: other})
        require(made != subject.tx, f"{made!r} should not equal {subject.tx!r}: {name} differs")
        require(repr(made) != repr(subject.tx), f"{made!r} should show {name}={other!r}")


def pickles(factory: Factory) -> None:
    """A transformation can be pickled; what comes back works, and is equal if its arguments are."""
    subject = subject_of(factory)
    try:
        pickle.dumps((subject.arguments.args, subject.arguments.kwargs))
    except Exception as error:  # anything may go wrong in users' objects
        raise DoesNotApply(f"an argument of its example cannot be pickled: {error}") from error
    back = pickle.loads(pickle.dumps(subject.tx))
    require(type(back) is type(subject.tx), f"{subject.tx!r} comes back as a {type(back).__name__}")
    if _is_compared_by_content(subject):
        require(back == subject.tx, f"{subject.tx!r} should equal itself, pickled and unpickled")
        require(hash(back) == hash(subject.tx), f"{subject.tx!r}, unpickled, has another hash")
    _require_same_results(subject, back, "unpickled")


def copies_are_equal(factory: Factory) -> None:
    """`copy.copy` gives an equal transformation; so does `copy.deepcopy`, and both work."""
    subject = subject_of(factory)
    shallow, deep = copy.copy(subject.tx), copy.deepcopy(subject.tx)
    require(shallow == subject.tx, f"a copy of {subject.tx!r} should equal it")
    if _is_compared_by_content(subject):
        require(deep == subject.tx, f"a deep copy of {subject.tx!r} should equal it")
    _require_same_results(subject, shallow, "copied")
    _require_same_results(subject, deep, "deeply copied")


def survives_tree_map_and_replace(factory: Factory) -> None:
    """``jax.tree.map`` and ``_replace`` rebuild the tuple: it stays equal and prints the same."""
    subject = subject_of(factory)
    rebuilt = {
        "jax.tree.map": jax.tree.map(lambda x: x, subject.tx),
        "_replace": subject.tx._replace(update=subject.tx.update),
    }
    for how, tx in rebuilt.items():
        kind = type(subject.tx).__name__
        require(type(tx) is type(subject.tx), f"{how} makes a {type(tx).__name__} of a {kind}")
        require(tx == subject.tx, f"{subject.tx!r} should equal itself after {how}")
        require(repr(tx) == repr(subject.tx), f"{subject.tx!r} prints as {tx!r} after {how}")
        _require_same_results(subject, tx, f"after {how}")


def can_be_a_static_argument(factory: Factory) -> None:
    """As static arguments of `jax.jit`, equal transformations share one trace."""
    subject = subject_of(factory)
    params, gradients = sample()
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(tx: GradientTransformation, g: Any, s: Any, p: Any) -> Any:
        traces.append(tx)
        return subject.filled(tx).update(g, s, p)

    for _ in range(2):
        tx = subject.make()
        step(tx, gradients[0], tx.init(params), params)
    require(len(traces) == 1, f"two equal {subject.tx!r} were traced {len(traces)} times, not once")


def numbers_do_not_recompile(factory: Factory) -> None:
    """Outside `jax.jit`, a transformation that differs in numbers only compiles nothing new."""
    subject = subject_of(factory)
    others = _other_numbers(subject)
    if not others:
        raise DoesNotApply("it takes no numbers")
    params, gradients = sample()
    take_steps(subject.runner, params, gradients)
    other = subject.make_runner(**others)
    with _Compilations() as compilations:
        take_steps(other, params, gradients)
    require(
        compilations.count == 0,
        f"{other!r} compiled {compilations.count} functions anew, after {subject.tx!r} had run",
    )


class _Compilations:
    """Counts compilations inside a ``with``."""

    _all = 0
    _listening = False

    def __enter__(self) -> "_Compilations":
        if not _Compilations._listening:
            jax.monitoring.register_event_duration_secs_listener(self._hear)
            _Compilations._listening = True
        self._before = _Compilations._all
        return self

    def __exit__(self, *_: object) -> None:
        self.count = _Compilations._all - self._before

    @staticmethod
    def _hear(event: str, duration_secs: float, **_: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            _Compilations._all += 1


def _other_numbers(subject: Subject) -> dict[str, float]:
    """Another legal value for each number of the example call."""
    others = {}
    for name, value in subject.numbers.items():
        low, high = subject.ranges[name].low, subject.ranges[name].high
        if type(value) is int:
            candidates: tuple[float, ...] = (value + 1, value - 1)
        else:
            candidates = (value * 0.75, value + 0.25, value - 0.25)
        legal = [c for c in candidates if low <= c <= high and c != value]
        if legal:
            others[name] = legal[0]
    return others


def _is_compared_by_content(subject: Subject) -> bool:
    """Whether the example's arguments equal themselves, pickled: not so for lambdas and arrays."""
    arguments = subject.arguments.args, tuple(sorted(subject.arguments.kwargs.items()))
    try:
        hash(arguments)
        return bool(pickle.loads(pickle.dumps(arguments)) == arguments)
    except Exception:  # what cannot be hashed or pickled is compared by identity
        return False


def _require_same_results(subject: Subject, tx: GradientTransformation, how: str) -> None:
    params, gradients = sample()
    updates, _ = take_steps(subject.filled(tx), params, gradients[:1])
    require_close(updates, subject.reference[0][:1], f"{subject.name}, {how}: updates")
