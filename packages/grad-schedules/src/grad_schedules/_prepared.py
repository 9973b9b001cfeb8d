"""Schedules whose operands are prepared once: those that take lists, dicts or other schedules.

The body of an ordinary schedule runs again in compiled code, on traced numbers. That cannot be
where the numbers are in containers, or where step counts are rounded as Python rounds them, or
where an argument is a schedule of the user's that must not be compiled at all. The body of a
*prepared* schedule runs once, on what the user gave, and returns its `formula`: a function of
operands and the count, together with the operands.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ParamSpec

import jax
import numpy as np
from jax.tree_util import Partial

from grad_core import Numeric, Schedule, is_factory
from grad_core.errors import shown
from grad_core.hyperparameters import TracedSchedule
from grad_core.schedules import ScheduleFn, in_compiled_code
from grad_core.values import Call, Factory, Remembering, publish

P = ParamSpec("P")


def prepared(body: Callable[P, Schedule]) -> Callable[P, Callable[[Numeric], jax.Array]]:
    """As `grad_core.schedule`, for a body that returns its `formula`.

    Numbers, arrays and schedules of ours among the formula's arguments are operands of compiled
    code. With a schedule of the user's among them the result is itself one of the user's: it is
    called where that would be called. Lists and dicts are kept as tuples and hashable dicts, so
    that calls with equal ones are equal.
    """

    def finish(call: Call) -> Callable[[Numeric], jax.Array]:
        arguments = {name: _hashable(value) for name, value in call.arguments.items()}
        made = _Prepared(call.factory, arguments)
        return ScheduleFn(made) if made.is_ours else EagerSchedule(made)

    return publish(body, finish)


def formula(function: Callable[..., Numeric], *operands: object) -> Schedule:
    """The schedule ``function(*operands, count)``, a pytree of the operands."""
    return Partial(function, *operands)  # type: ignore[no-untyped-call]


class EagerSchedule(Remembering):
    """A schedule made of some that users wrote, which are called and not compiled."""

    def __call__(self, count: Numeric) -> jax.Array:
        return self.call.build()(count)  # type: ignore[no-any-return]


class _Prepared(Call):
    """A call that was carried out as far as its formula; a pytree of the formula's operands."""

    @functools.cached_property
    def formula(self) -> Any:
        return super().build()

    def build(self) -> Any:
        return self.formula

    def replace(self, **arguments: object) -> Call:
        return _Prepared(self.factory, {**self.arguments, **arguments})

    @property
    def is_ours(self) -> bool:
        """Whether all of it can be compiled."""
        parts = jax.tree.leaves(self.formula, is_leaf=self._is_schedule)
        return not any(
            callable(x) and not isinstance(x, ScheduleFn | TracedSchedule) for x in parts
        )

    def compiled(self) -> Any:
        """The formula, with all operands in the form that compiled code takes."""
        precision = jax.dtypes.canonicalize_dtype(float)
        if precision not in self._compiled:
            found = jax.tree.map(_operand, self.formula, is_leaf=self._is_schedule)
            self._compiled[precision] = found
        return self._compiled[precision]

    @functools.cached_property
    def _compiled(self) -> dict[Any, Any]:
        return {}

    def _is_schedule(self, x: object) -> bool:
        # The formula is a callable itself. So may be users' pytrees, which are to stay whole.
        return callable(x) and x is not self.formula


def _operand(x: Any) -> Any:
    if isinstance(x, ScheduleFn):
        return TracedSchedule(in_compiled_code(x.call))
    # In the dtype that JAX would give it: jax.grad mixes up the dtypes before and after, when
    # double precision is switched on between two calls.
    return x.astype(jax.dtypes.canonicalize_dtype(x.dtype)) if isinstance(x, np.ndarray) else x


def _flatten(call: _Prepared) -> tuple[tuple[Any], Factory]:
    return (call.compiled(),), call.factory


def _unflatten(factory: Factory, children: tuple[Any]) -> _Prepared:
    call = _Prepared(factory, {})
    call.formula = children[0]
    return call


jax.tree_util.register_pytree_node(_Prepared, _flatten, _unflatten)


class _HashableDict(dict[Any, Any]):
    """A dict that nobody changes any more."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset((key, type(value), value) for key, value in self.items()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _HashableDict) and _typed(self) == _typed(other)

    __ne__ = object.__ne__

    def __reduce__(self) -> tuple[Any, ...]:
        return _HashableDict, (dict(self),)


def _typed(items: Mapping[Any, Any]) -> dict[Any, Any]:
    return {(type(key), key): (type(value), value) for key, value in items.items()}


def _hashable(value: object) -> object:
    if isinstance(value, Mapping):
        return _HashableDict({key: _hashable(x) for key, x in value.items()})
    if isinstance(value, list | Iterator) or type(value) is tuple:
        return tuple(_hashable(x) for x in value)
    return value


def check_schedule(factory: str, name: str, value: object) -> None:
    """Raises TypeError if an argument is no schedule."""
    what = f"{factory}: {name} must be a schedule, a function of the step count"
    if is_factory(value):
        call = getattr(value, "__name__", "it")
        raise TypeError(f"{what}; got the factory {call}, which is to be called: {call}(...).")
    if not callable(value):
        raise TypeError(f"{what}, such as constant_schedule(0.1); got {shown(value)}.")


__all__ = ["EagerSchedule", "check_schedule", "formula", "prepared"]
