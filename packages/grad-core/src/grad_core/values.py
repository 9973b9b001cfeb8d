"""Transformations as values: they print, compare, hash and pickle as the call that made them.

A public factory, decorated with `transformation` (or `rule`, which builds on the same `Call`),
returns a pair whose ``init`` and ``update`` remember the call. Identity lives on those two
callables, not on the tuple: JAX rebuilds named tuples from their fields, and what the fields
remember survives. Arguments are compared with their type; arrays and whatever cannot be hashed
(dicts, lists) are compared by identity.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

from grad_core.errors import naming
from grad_core.hyperparameters import Parameter, PreciseDecay, is_users_schedule

P = ParamSpec("P")
T = TypeVar("T")


class Factory:
    """A public factory: its name, its body, and what its annotations say of each argument."""

    def __init__(self, body: Callable[..., Any]) -> None:
        self.body = body
        self.name = body.__name__
        self.signature = inspect.signature(body)
        self.public: Callable[..., Any] = body

    @functools.cached_property
    def parameters(self) -> dict[str, Parameter]:
        hints = {name: self._hint(name) for name in self.signature.parameters}
        return {name: Parameter.of(hint) for name, hint in hints.items()}

    def _hint(self, name: str) -> object:
        """An argument's annotation; None for ``*args``, and where only type checkers know it."""
        kind = self.signature.parameters[name].kind
        if kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            return None
        annotation = self.body.__annotations__.get(name)
        if not isinstance(annotation, str):
            return annotation
        try:
            return eval(annotation, self.body.__globals__)  # as typing.get_type_hints does
        except NameError:
            return None

    def call(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> "Call":
        """Binds the arguments and checks those that are Python numbers."""
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            known = [*self.signature.parameters]
            unknown = [name for name in kwargs if name not in known]
            reason = f"got unknown arguments {unknown}; it takes {known}" if unknown else error
            raise TypeError(f"{self.name}: {reason}") from None
        bound.apply_defaults()
        for name, parameter in self.parameters.items():
            parameter.check(self.name, name, bound.arguments[name])
        return Call(self, bound.arguments)


class Call:
    """A call of a public factory. Equal calls make equal transformations.

    As a pytree, its leaves are the numeric arguments and its structure is everything else: the
    factory and the static arguments. Compiled code takes calls as arguments, and so is shared by
    all calls that differ in numbers only.
    """

    def __init__(self, factory: Factory, arguments: Mapping[str, object]) -> None:
        self.factory = factory
        self.arguments = arguments

    @functools.cached_property
    def key(self) -> tuple[object, ...]:
        return (self.factory.name, *(_token(value) for value in self.arguments.values()))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Call):
            return NotImplemented
        return self.factory is other.factory and self.key == other.key

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"{self.factory.name}({', '.join(self._shown_arguments())})"

    def _shown_arguments(self) -> list[str]:
        """Required arguments, and those that differ from their default."""
        shown = []
        for name, value in self.arguments.items():
            parameter = self.factory.signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                shown += [repr(v) for v in typing.cast(tuple[object, ...], value)]
            elif parameter.kind is parameter.VAR_KEYWORD:
                shown += [f"{k}={v!r}" for k, v in typing.cast(dict[str, object], value).items()]
            elif parameter.default is parameter.empty or _token(value) != _token(parameter.default):
                shown.append(f"{name}={value!r}")
        return shown

    def __reduce__(self) -> tuple[Callable[..., "Call"], tuple[object, ...]]:
        bound = inspect.BoundArguments(self.factory.signature, dict(self.arguments))
        return _recall, (self.factory.public, bound.args, bound.kwargs)

    @functools.cached_property
    def made(self) -> Any:
        """What the public factory makes of it; kept, so that a pair is restored as one."""
        bound = inspect.BoundArguments(self.factory.signature, dict(self.arguments))
        return self.factory.public(*bound.args, **bound.kwargs)

    def build(self) -> Any:
        """Runs the factory's body on the arguments, which may be traced by now."""
        bound = inspect.BoundArguments(self.factory.signature, self.arguments)  # type: ignore[arg-type]
        return self.factory.body(*bound.args, **bound.kwargs)

    @functools.cached_property
    def operands(self) -> dict[str, Any]:
        """The numeric arguments by name; decays with their complements."""
        found = {}
        for name, parameter in self.factory.parameters.items():
            value = self.arguments[name]
            if getattr(value, "is_operand", False):
                found[name] = value
                continue
            if parameter.range is None or value is None or is_users_schedule(value):
                continue
            found[name] = PreciseDecay.of(value) if parameter.range.is_decay else value  # type: ignore[arg-type]
        return found

    @functools.cached_property
    def static(self) -> "_Static":
        """Everything but the operands; interned, so that comparing is an identity check."""
        names = tuple(self.operands)
        rest = tuple((n, _Token.of(v)) for n, v in self.arguments.items() if n not in names)
        return _intern(_Static(self.factory, names, rest))

    def with_operands(self) -> "Call":
        """The call as compiled code meets it, decays in their precise form."""
        return self.replace(**self.operands)

    def replace(self, **arguments: object) -> "Call":
        return Call(self.factory, {**self.arguments, **arguments})


def _flatten_call(call: Call) -> tuple[tuple[Any, ...], "_Static"]:
    return tuple(call.operands.values()), call.static


def _unflatten_call(static: "_Static", operands: tuple[Any, ...]) -> Call:
    by_name = dict(zip(static.names, operands, strict=True))
    rest = {name: token.value for name, token in static.rest}
    merged = {**rest, **by_name}
    return Call(
        static.factory, {name: merged[name] for name in static.factory.signature.parameters}
    )


jax.tree_util.register_pytree_node(Call, _flatten_call, _unflatten_call)


def _recall(public: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    return factory_of(public).call(args, kwargs)


class _Token:
    """A value with the equality that makes calls equal: by type and value, or by identity."""

    __slots__ = ("_key", "value")

    def __init__(self, value: object, key: object) -> None:
        self.value = value
        self._key = key

    @classmethod
    def of(cls, value: object) -> "_Token":
        return cls(value, _token(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Token) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _token(value: object) -> object:
    if isinstance(value, float | np.floating):
        return type(value), repr(value)  # tells -0.0 from 0.0, and lets nan equal itself
    call = getattr(getattr(value, "init", None), "call", None)
    if call is not None and call is getattr(getattr(value, "update", None), "call", None):
        return type(value), call  # once, not for init and update each: chains nest
    if isinstance(value, tuple):
        return type(value), tuple(_token(v) for v in value)
    try:
        hash(value)
    except TypeError:
        return _Identity(value)
    return type(value), value


class _Identity:
    """Equal only to the same object, which it keeps alive."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


class _Static:
    """The structure of a `Call` as a pytree."""

    __slots__ = ("__weakref__", "_hash", "factory", "names", "rest")

    def __init__(
        self, factory: Factory, names: tuple[str, ...], rest: tuple[tuple[str, _Token], ...]
    ) -> None:
        self.factory = factory
        self.names = names
        self.rest = rest
        self._hash = hash((factory.name, names, rest))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, _Static)
            and self.factory is other.factory
            and (self.names, self.rest) == (other.names, other.rest)
        )

    def __hash__(self) -> int:
        return self._hash


@functools.lru_cache(maxsize=4096)
def _intern(static: _Static) -> _Static:
    return static


class Remembering:
    """A callable that is equal, hashed, printed and pickled by the call that made it."""

    role = ""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.__name__ = self.role
        self.__qualname__ = f"{call.factory.name}.{self.role}"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.call == other.call

    def __hash__(self) -> int:
        return hash((self.role, self.call))

    def __repr__(self) -> str:
        return f"{self.call!r}.{self.role}".rstrip(".")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return _remember, (self.call, self.role)


def _remember(call: Call, role: str) -> Any:
    return getattr(call.made, role) if role else call.made


def factory_of(public: Callable[..., Any]) -> Factory:
    """The `Factory` behind a decorated function."""
    factory: Factory = public.__factory__  # type: ignore[attr-defined]
    return factory


def is_factory(x: object) -> bool:
    """Whether `x` is a public factory of transformations or schedules."""
    return isinstance(getattr(x, "__factory__", None), Factory)


def publish(body: Callable[P, Any], finish: Callable[[Call], T]) -> Callable[P, T]:
    """The public function of a factory: binds and checks its arguments, then ``finish(call)``."""
    factory = Factory(body)

    @functools.wraps(body)
    def public(*args: P.args, **kwargs: P.kwargs) -> T:
        return finish(factory.call(args, kwargs))

    factory.public = public
    public.__factory__ = factory  # type: ignore[attr-defined]
    return public


__all__ = ["Call", "Factory", "Remembering", "factory_of", "is_factory", "naming", "publish"]
