"""Hyperparameters: their ranges, told by annotations, and decays that know their complement.

A factory states what each argument may be in its signature::

    def scale_by_lion(b1: Decay = 0.9, b2: Decay = 0.99, mu_dtype: DType | None = None): ...

Arguments annotated with `Real`, `NonNegative`, `Decay`, ... are *numeric*: Python numbers among
them are checked against the range when the factory is called, and all of them enter compiled code
as operands, so that two transformations that differ only in them share one executable. Every other
argument is *static*, or a transformation; a `DType`, a ``bool``, an ``int``, a ``Literal`` and a
`GradientTransformation` are checked too. Signs of learning rates are free (ascent is legal) and so
are end points.
"""

import math
import operator
import types
import typing
from collections.abc import Callable, Hashable
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.errors import NotATransformationError, shown
from grad_core.types import GradientTransformation, Numeric, Scalar, ScalarOrSchedule


class Range(NamedTuple):
    """A closed interval; as annotation metadata it marks a numeric argument."""

    low: float = -math.inf
    high: float = math.inf
    is_decay: bool = False

    def __str__(self) -> str:
        if self.low == -math.inf and self.high == math.inf:
            return "a number"
        if self.high == math.inf:
            return f">= {self.low:g}"
        return f"in [{self.low:g}, {self.high:g}]"


Real: TypeAlias = Annotated[Scalar, Range()]
NonNegative: TypeAlias = Annotated[Scalar, Range(low=0.0)]
Fraction: TypeAlias = Annotated[Scalar, Range(0.0, 1.0)]
Decay: TypeAlias = Annotated[Scalar, Range(0.0, 1.0, is_decay=True)]
"""The decay b of an exponential average, in [0, 1]; rules receive it as a `PreciseDecay`."""

LearningRate: TypeAlias = Annotated[ScalarOrSchedule, Range()]
StepSchedule: TypeAlias = Annotated[Callable[[jax.Array], Numeric], Range()]
DType: TypeAlias = Annotated[jax.typing.DTypeLike, "dtype"]
"""A floating-point or complex dtype."""


@jax.tree_util.register_pytree_node_class
class PreciseDecay:
    """A decay b in [0, 1] together with 1 - b and log b, both rounded from double precision.

    In float32 ``1 - 0.999`` is wrong by 1e-5 relative, and ``1 - 0.999**t`` by up to 5e-5. With a
    `PreciseDecay`, ``1 - b`` and ``1 - b**t`` written just so are right to float32's last digit,
    and ``1 - b**t`` is never zero, also for b = 1. In products it acts as the number b.
    """

    def __init__(self, value: Numeric, complement: Numeric, log: Numeric | None) -> None:
        self.value = value
        self.complement = complement
        self.log = log

    @classmethod
    def of(cls, b: "Numeric | PreciseDecay") -> "PreciseDecay":
        if isinstance(b, PreciseDecay):
            return b
        if isinstance(b, int | float | np.number):
            b = float(b)
            return cls(b, 1.0 - b, math.log(b) if b > 0 else -math.inf)
        positive = b > 0
        log = jnp.log(jnp.where(positive, b, 1))  # so that the derivative at b = 0 is finite
        return cls(b, 1 - b, jnp.where(positive, log, -jnp.inf))

    def without_log(self) -> "PreciseDecay":
        """The same decay, with no use but as a number and its complement."""
        return PreciseDecay(self.value, self.complement, None)

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return (self.value, self.complement, self.log), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any, ...]) -> "PreciseDecay":
        return cls(*children)

    def __pow__(self, t: Numeric) -> "PreciseDecay":
        if self.log is None:
            raise TypeError(
                "powers of a decay are the same for all leaves: compute them in `once`."
            )
        log = t * self.log
        complement = -jnp.expm1(log)
        tiny = float(
            np.finfo(np.float32).tiny
        )  # its inverse is finite in float32, where it may be used
        return PreciseDecay(jnp.exp(log), jnp.maximum(complement, tiny), log)

    def __rsub__(self, other: Numeric) -> Numeric:
        if isinstance(other, int | float) and other == 1:
            return self.complement
        return other - self.value

    def __mul__(self, other: Numeric) -> Numeric:
        return self.value * other

    __rmul__ = __mul__

    def __add__(self, other: Numeric) -> Numeric:
        return self.value + other

    __radd__ = __add__

    def __sub__(self, other: Numeric) -> Numeric:
        return self.value - other

    def __truediv__(self, other: Numeric) -> Numeric:
        return self.value / other

    def __rtruediv__(self, other: Numeric) -> Numeric:
        return other / self.value

    def __neg__(self) -> Numeric:
        return -self.value

    def __jax_array__(self) -> jax.Array:
        return jnp.asarray(self.value)

    def __repr__(self) -> str:
        return f"PreciseDecay({self.value})"


@jax.tree_util.register_pytree_node_class
class TracedSchedule:
    """One of our schedules inside compiled code: a pytree of its hyperparameters."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(self, count: Numeric) -> Any:
        return self.call.build()(count)

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.call,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any]) -> "TracedSchedule":
        return cls(children[0])


@jax.tree_util.register_pytree_node_class
class EvaluatedSchedule:
    """A schedule of the user's, already called: the same value whatever the count."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, count: Numeric) -> Any:
        return self.value

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.value,), None

    @classmethod
    def tree_unflatten(cls, _: None, children: tuple[Any]) -> "EvaluatedSchedule":
        return cls(children[0])


def is_users_schedule(value: object) -> bool:
    """Whether a hyperparameter is a schedule that compiled code cannot take: users' own."""
    return callable(value) and not isinstance(value, TracedSchedule | EvaluatedSchedule)


class Static(NamedTuple):
    """What a static argument must be, in words, and whether a value is so."""

    due: str
    admits: Callable[[Any], bool]
    error: type[Exception] = TypeError

    @classmethod
    def of(cls, annotation: tuple[Any, ...]) -> "Static | None":
        """What the members of an annotation's union say, if there is one besides None."""
        kinds = [part for part in annotation if part is not type(None)]
        if len(kinds) != 1:
            return None
        if typing.get_origin(kinds[0]) is typing.Literal:
            choices = typing.get_args(kinds[0])
            return cls(f"one of {', '.join(choices)}", choices.__contains__, ValueError)
        return _STATIC.get(kinds[0]) if isinstance(kinds[0], Hashable) else None


def _is_inexact_dtype(value: Any) -> bool:
    try:
        return bool(jnp.issubdtype(jnp.dtype(value), jnp.inexact))
    except TypeError:
        return False


def _is_integer(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and operator.index(value) is not None
    except TypeError:
        return False


def _is_transformation(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


_TRANSFORMATION = Static(
    "a gradient transformation, such as adam(1e-3)", _is_transformation, NotATransformationError
)
_DTYPE = Static("a floating-point or complex dtype, such as jnp.float32", _is_inexact_dtype)
_STATIC: dict[Any, Static] = {
    DType: _DTYPE,
    bool: Static("True or False", lambda value: isinstance(value, bool | np.bool_)),
    int: Static("an integer", _is_integer),
    GradientTransformation: _TRANSFORMATION,
}


class Parameter(NamedTuple):
    """What an annotation says about one argument of a factory."""

    range: Range | None
    optional: bool
    schedulable: bool
    static: "Static | None" = None

    @classmethod
    def of(cls, annotation: object) -> "Parameter":
        parts = _union_members(annotation)
        marked = [part for part in parts if typing.get_origin(part) is Annotated]
        ranges = [m for part in marked for m in part.__metadata__ if isinstance(m, Range)]
        inner = [member for part in marked for member in _union_members(part.__origin__)]
        return cls(
            range=ranges[0] if ranges else None,
            optional=type(None) in parts,
            schedulable=any(typing.get_origin(p) is _CALLABLE for p in inner),
            static=Static.of(parts),
        )

    @property
    def is_dtype(self) -> bool:
        """Whether it is a `DType`."""
        return self.static is _DTYPE

    @property
    def is_transformation(self) -> bool:
        """Whether it is a transformation, for a wrapper to wrap."""
        return self.static is _TRANSFORMATION

    def check(self, factory: str, name: str, value: object) -> None:
        """Raises if `value` cannot be this argument of `factory`."""
        if value is None and self.optional:
            return
        if self.static is not None and not self.static.admits(value):
            raise self.static.error(
                f"{factory}: {name} must be {self.static.due}; got {shown(value)}."
            )
        if self.range is None:
            return
        if self.schedulable and callable(value):
            return
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            self._check_number(factory, name, value)
        elif not _is_number_array(value) and not isinstance(value, PreciseDecay):
            or_schedule = " or a schedule (a function of the step count)" * self.schedulable
            raise TypeError(
                f"{factory}: {name} must be a number, an array of shape (){or_schedule}; "
                f"got {shown(value)}."
            )

    def _check_number(self, factory: str, name: str, value: "int | float | np.number[Any]") -> None:
        assert self.range is not None
        if not self.range.low <= value <= self.range.high:  # NaN fails too
            raise ValueError(f"{factory}: {name} must be {self.range}; got {value!r}.")


def _is_number_array(x: Any) -> bool:
    dtype = getattr(x, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.number)


_CALLABLE = typing.get_origin(Callable[[int], int])


def _union_members(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation alone."""
    is_union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return typing.get_args(annotation) if is_union else (annotation,)
