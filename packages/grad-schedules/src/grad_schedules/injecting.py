"""Hyperparameters in the state: scheduled, read and set by name while training.

``inject_hyperparams(adam)`` takes the arguments of ``adam``. Each is one of three kinds, told by
its value and by what its parameter admits:

- a *number*, kept in the state under its name, in float32 at least. Whatever stands there at the
  next update is what the optimizer is made with, so it may be set; nothing recompiles;
- a *schedule*: a function, for a parameter that admits a number (its annotation says so, or it has
  none), or a `StatefulSchedule`. Its value at each update is written to the state as well;
- *static*: everything else (flags, dtypes, masks, functions where a function is due, None, integers
  where no float may stand), and what `static_args` names.
"""

import functools
import inspect
import types
import typing
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    DType,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
    transformation,
)
from grad_core.errors import TreeMismatchError, shown
from grad_core.hyperparameters import Parameter
from grad_core.nodes import Node, node_of
from grad_core.numerics import safe_increment
from grad_core.rules import ExtraArgs
from grad_core.structure import is_function
from grad_core.transformations import from_node
from grad_core.values import factory_of
from grad_schedules.stateful import StatefulSchedule, WrappedSchedule

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
]

Maker: TypeAlias = Callable[..., GradientTransformation]


class InjectStatefulHyperparamsState(NamedTuple):
    """The number of updates, the hyperparameters by name, their schedules' states, the optimizer's.

    `hyperparams` holds what the last update used, or, for those without a schedule, what the next
    one will use.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    hyperparams: dict[str, jax.Array]
    hyperparams_states: dict[str, Any]
    inner_state: OptState


class InjectHyperparamsState(NamedTuple):
    """What `inject_hyperparams` kept in the first releases, for code that names it."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    hyperparams: dict[str, jax.Array]
    inner_state: OptState


def inject_hyperparams(
    inner_factory: Maker,
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: DType | None = None,
) -> Callable[..., GradientTransformationExtraArgs]:
    """Moves the numeric arguments of a factory into the state of what it makes.

    Args:
      inner_factory: A function that returns a transformation, ours or your own.
      static_args: Names of arguments to leave alone, where the module's rules would not.
      hyperparam_dtype: The dtype of the hyperparameters in the state. With None that of the
        parameters, but at least float32; in bfloat16 a decay of 0.999 would be 1.

    Returns:
      A factory with the same arguments, of which each number may also be a schedule, or a
      `StatefulSchedule`. What it makes has an `InjectStatefulHyperparamsState`. Read from it with
      ``tree.get(state, "learning_rate")``, and write with ``tree.set(state, learning_rate=1e-4)``.

    Raises:
      TypeError: If `inner_factory` is not callable.
      ValueError: If `static_args` names no argument of `inner_factory`, or an argument is out of
        the range that its annotation gives.

    Example:
      >>> import grad_core, grad_schedules, jax.numpy as jnp
      >>> injected = grad_schedules.inject_hyperparams(grad_core.trace)
      >>> optimizer = injected(decay=grad_schedules.linear_schedule(0.5, 0.9, 10))
      >>> state = optimizer.init(jnp.zeros(2))
      >>> updates, state = optimizer.update(jnp.ones(2), state)
      >>> state.hyperparams
      {'decay': Array(0.5, dtype=float32)}
    """
    if not callable(inner_factory):
        raise TypeError(
            "inject_hyperparams: inner_factory must be a function that makes a transformation, "
            f"such as adam, and not what it makes; got {shown(inner_factory)}."
        )
    names = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    dtype = None if hyperparam_dtype is None else jnp.dtype(hyperparam_dtype)
    return _injected(inner_factory, names, dtype)


inject_stateful_hyperparams = inject_hyperparams
"""Another name of `inject_hyperparams`, which takes stateful schedules too."""


class _Injected:
    """The factory that `inject_hyperparams` returns; pickled as the call that made it."""

    def __init__(self, inner: Maker, static_args: tuple[str, ...], dtype: Any) -> None:
        self.inner, self.static_args, self.dtype = inner, static_args, dtype
        name = getattr(inner, "__name__", repr(inner))
        signature = inspect.signature(inner)
        _check_signature(name, signature, static_args)
        kinds = {key: _Kind.of(hint) for key, hint in _hints(inner, signature).items()}
        kinds |= dict.fromkeys(static_args, _Kind(None, is_number=False))

        def body(*args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return from_node(_InjectedNode(name, inner, bound, kinds, dtype))

        body.__name__ = body.__qualname__ = f"inject_hyperparams({name})"
        body.__signature__ = signature  # type: ignore[attr-defined]
        self.make = transformation(body)
        self.__factory__ = factory_of(self.make)
        self.__factory__.public = self
        functools.update_wrapper(self, inner, updated=())
        self.__name__ = self.__qualname__ = body.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
        return self.make(*args, **kwargs)

    def __repr__(self) -> str:
        return self.__name__

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return inject_hyperparams, (self.inner, self.static_args, self.dtype)


# Kept, so that equal arguments give equal transformations.
_injected = functools.lru_cache(maxsize=1024)(_Injected)


def _check_signature(name: str, signature: inspect.Signature, static_args: tuple[str, ...]) -> None:
    kinds = {key: p.kind for key, p in signature.parameters.items()}
    has_more = inspect.Parameter.VAR_KEYWORD in kinds.values()
    unknown = [key for key in static_args if key not in kinds]
    if unknown and not has_more:
        raise ValueError(
            f"inject_hyperparams: static_args names {', '.join(unknown)}, but {name} takes "
            f"{', '.join(kinds)}."
        )


class _Kind(NamedTuple):
    """What a parameter admits: its check, if an annotation of ours tells one, and numbers."""

    parameter: Parameter | None
    is_number: bool
    is_integer: bool = False

    @classmethod
    def of(cls, hint: Any) -> "_Kind":
        is_integer = _admits(hint, (int,)) and not _admits(hint, (float, complex))
        return cls(Parameter.of(hint), _admits(hint, _NUMBERS), is_integer)


_ANY = _Kind(None, is_number=True)
_NUMBERS = (int, float, complex, jax.Array, np.ndarray, np.generic)


def _admits(hint: Any, kinds: tuple[type, ...]) -> bool:
    """Whether an annotation admits values of some of these kinds; without one, everything."""
    if hint is inspect.Parameter.empty or hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if isinstance(hint, str):  # names that only type checkers know
        return any(word in hint for word in ("float", "Array", "Numeric", "Scalar"))
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return _admits(hint.__origin__, kinds)
    if origin in (typing.Union, types.UnionType):
        return any(_admits(member, kinds) for member in typing.get_args(hint))
    kind = origin or hint
    return isinstance(kind, type) and kind is not bool and issubclass(kind, kinds)


def _hints(inner: Maker, signature: inspect.Signature) -> dict[str, Any]:
    """The annotations of a factory's arguments, evaluated where they can be."""
    function: Any = inner
    while isinstance(function, functools.partial):
        function = function.func
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        hints = {}
    return {key: hints.get(key, p.annotation) for key, p in signature.parameters.items()}


class _InjectedNode(Node):
    """The transformation that a factory makes anew at each update, of what the state holds."""

    pure = False
    takes_extra_args = True

    def __init__(
        self,
        name: str,
        inner: Maker,
        bound: inspect.BoundArguments,
        kinds: Mapping[str, _Kind],
        dtype: Any,
    ) -> None:
        self.name, self.inner, self.bound, self.dtype = name, inner, bound, dtype
        self.numbers: dict[str, Any] = {}
        self.schedules: dict[str, StatefulSchedule] = {}
        for key, value in _by_name(bound).items():
            kind = kinds.get(key, _ANY)
            if isinstance(value, StatefulSchedule) and kind.is_number:
                self.schedules[key] = value
            elif is_function(value) and kind.is_number:
                self.schedules[key] = WrappedSchedule(value)
            elif kind.is_number and _is_number(value) and not kind.is_integer:
                self.numbers[key] = value
            if key not in self.schedules and kind.parameter is not None:
                kind.parameter.check(name, key, value)

    def init(self, params: Params) -> InjectStatefulHyperparamsState:
        """The hyperparameters, and the optimizer's state for them."""
        states = {key: schedule.init() for key, schedule in self.schedules.items()}
        values = {key: s(states[key]) for key, s in self.schedules.items()} | self.numbers
        dtype = self.dtype or _dtype_for(params)
        hyperparams = {key: _as_hyperparameter(x, dtype) for key, x in sorted(values.items())}
        inner_state = self._made_with(hyperparams).start(params)
        count = jnp.zeros([], jnp.int32)
        return InjectStatefulHyperparamsState(count, hyperparams, states, inner_state)

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, InjectStatefulHyperparamsState]:
        """An update by the optimizer of this moment's hyperparameters."""
        hyperparams = self._current(state, extra_args)
        assert isinstance(state, InjectStatefulHyperparamsState)
        node = self._made_with(hyperparams)
        updates, inner_state = node.update(updates, state.inner_state, params, extra_args)
        states = {
            key: schedule.update(state.hyperparams_states[key], **extra_args)
            for key, schedule in self.schedules.items()
        }
        count = safe_increment(state.count)
        return updates, InjectStatefulHyperparamsState(count, hyperparams, states, inner_state)

    def learning_rate(self, state: OptState) -> Any:
        """That of the optimizer of this moment."""
        node = self._made_with(self._current(state, {}))
        return node.learning_rate(state.inner_state)  # type: ignore[attr-defined]

    def _current(self, state: OptState, extra_args: ExtraArgs) -> dict[str, jax.Array]:
        """The hyperparameters that an update with this state uses, in the state's dtypes."""
        if not isinstance(state, InjectStatefulHyperparamsState):
            raise TreeMismatchError(
                f"the state must be an InjectStatefulHyperparamsState; got {shown(state)}. "
                "Was it made by another init?"
            )
        scheduled = {
            key: schedule(state.hyperparams_states[key], **extra_args)
            for key, schedule in self.schedules.items()
        }
        return {
            key: jnp.asarray(scheduled.get(key, value), _dtype_of(value, self.dtype))
            for key, value in state.hyperparams.items()
        }

    def _made_with(self, hyperparams: Mapping[str, Any]) -> Node:
        arguments = _with_values(self.bound, hyperparams)
        return node_of(self.inner(*arguments.args, **arguments.kwargs), self.label or self.name)


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The arguments by name, those of ``**kwargs`` among them; ``*args`` have none."""
    found: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        kind = bound.signature.parameters[key].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            found |= value
        elif kind is not inspect.Parameter.VAR_POSITIONAL:
            found[key] = value
    return found


def _with_values(
    bound: inspect.BoundArguments, values: Mapping[str, Any]
) -> inspect.BoundArguments:
    """The arguments with some replaced, by name."""
    arguments: dict[str, Any] = {}
    for key, value in bound.arguments.items():
        if bound.signature.parameters[key].kind is inspect.Parameter.VAR_KEYWORD:
            arguments[key] = {k: values.get(k, v) for k, v in value.items()}
        else:
            arguments[key] = values.get(key, value)
    return inspect.BoundArguments(bound.signature, OrderedDict(arguments))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    dtype = getattr(value, "dtype", None)
    is_array = dtype is not None and jnp.issubdtype(dtype, jnp.number)
    return is_array or isinstance(value, int | float | complex)


def _dtype_for(params: Params) -> Any:
    """The real dtype of the parameters, but at least float32."""
    dtypes = [jnp.result_type(x) for x in jax.tree.leaves(params) if hasattr(x, "dtype")]
    real = [jnp.finfo(x).dtype for x in dtypes if jnp.issubdtype(x, jnp.inexact)]  # type: ignore[no-untyped-call]
    return jnp.result_type(jnp.float32, *real)


def _as_hyperparameter(value: Any, dtype: Any) -> jax.Array:
    """An array in the state's dtype; integers given as arrays stay integers."""
    is_integer = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.integer)
    return jnp.asarray(value, value.dtype if is_integer else dtype)


def _dtype_of(value: Any, dtype: Any) -> Any:
    """The dtype of a hyperparameter in a state, where users may have put a Python number."""
    return getattr(value, "dtype", None) or dtype or jnp.float32
