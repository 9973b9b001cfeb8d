"""The leaf rule: a transformation told by what it does to one array.

Nearly every transformation is a little arithmetic on one array and its statistics, with a few
scalars shared by all arrays of the tree. A `LeafRule` states just that; `grad_core.leaves` carries
it to trees, and `grad_core.nodes` dispatches updates. The whole pattern is told in
``docs/pattern.md``.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import structure
from grad_core.errors import (
    MissingArgumentError,
    TreeMismatchError,
    shown,
)
from grad_core.statistics import SharedNumber
from grad_core.types import EmptyState, OptState, Params, PyTree, Updates

_SHARED = (np.generic, SharedNumber)
ExtraArgs = dict[str, Any]
First = Callable[[jax.Array], Any] | np.generic | SharedNumber


class LeafRule:
    """The rule of a transformation, for one leaf.

    ``rule`` and ``once`` ask by parameter name for what they need, in any order:

    - ``rule``: ``g``, the leaf's update; ``p``, its parameter; any statistic by its field name; any
      scalar that ``once`` returns. It returns the new update, followed by the new statistics in the
      order of the state's fields.
    - ``once``, called once per update: ``count``, the number of updates before this one, and ``t``,
      which is ``count + 1``; ``updates`` and ``params``, the whole trees; any field of the state,
      a number that all leaves share or a whole tree; any other name is an extra argument of
      `update`, required unless it has a default. It returns a dict of scalars, the new values of
      shared fields among them.

    A field ``x`` may be asked for as ``last_x`` too, as it must be if it is named ``g``, ``p`` or
    ``t``. Arrays come in at least float32 (or complex64) and go back in the dtypes they had.

    Args:
      rule: The arithmetic on one leaf.
      state: The state's class, a NamedTuple. A field ``count`` is kept by the mechanism.
      once: Computes the scalars that all leaves share.
      **first: For each other field of the state its first value. For a statistic that each leaf has
        of its own, a function from the leaf's parameter to an array, or to a pytree of them; for a
        number that all leaves share, that number, of a NumPy type, or a `SharedNumber`.

    Raises:
      TypeError: If the first values are not those of the state's fields.
    """

    def __init__(
        self,
        rule: Callable[..., Any],
        state: type[tuple[Any, ...]] = EmptyState,
        *,
        once: Callable[..., dict[str, Any]] | None = None,
        **first: First,
    ) -> None:
        self.rule = rule
        self.state = state
        self.once = once
        names: tuple[str, ...] = state._fields  # type: ignore[attr-defined]
        self.counts = "count" in names and "count" not in first
        self.shared = {name: x for name, x in first.items() if isinstance(x, _SHARED)}
        own = {name: x for name, x in first.items() if not isinstance(x, _SHARED)}
        self.statistics = {name: own[name] for name in names if name in own}
        if {*names} - {"count"} != {*first} - {"count"}:
            raise TypeError(
                f"LeafRule: {state.__name__} has the fields {', '.join(names)}, but first values "
                f"are given for {', '.join(first) or 'none'}."
            )
        for name, x in own.items():
            if not callable(x):
                raise TypeError(
                    f"LeafRule: the first value of {name} must be a function of a parameter, or a "
                    f"NumPy number or a SharedNumber if all leaves share it; got {shown(x)}."
                )

    @functools.cached_property
    def wants(self) -> tuple[str, ...]:
        return tuple(inspect.signature(self.rule).parameters)

    @functools.cached_property
    def once_wants(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.once).parameters) if self.once else {}

    @property
    def needs_params(self) -> bool:
        return "p" in self.wants or "params" in self.once_wants

    @property
    def takes_params(self) -> bool:
        return self.needs_params

    @property
    def needs_tree(self) -> bool:
        """Whether its scalars depend on all leaves, so that earlier rules must have finished."""
        return "updates" in self.once_wants

    @property
    def extra_names(self) -> frozenset[str]:
        fields = (*self.shared, *self.statistics)
        ours = {"count", "t", "updates", "params", *fields, *map(last, fields)}
        return frozenset(self.once_wants) - ours

    def init(self, params: Params) -> OptState:
        structure.check_inexact(params, "params")
        fields = {name: jax.tree.map(first, params) for name, first in self.statistics.items()}
        return self.start(fields, params)

    def start(self, statistics: dict[str, Any], params: Params) -> OptState:
        """The first state, from the first values of the statistics."""
        fields: dict[str, Any] = {
            name: first(params) if isinstance(first, SharedNumber) else jnp.asarray(first)
            for name, first in self.shared.items()
        }
        if self.counts:
            fields["count"] = jnp.zeros([], jnp.int32)
        return self.state(**statistics, **fields)

    def scalars(self, given: dict[str, Any]) -> dict[str, Any]:
        """What `once` returns, given what it asks for."""
        if self.once is None:
            return {}
        for name, parameter in self.once_wants.items():
            if name not in given and parameter.default is parameter.empty:
                raise MissingArgumentError(
                    f"update() needs the extra argument {name!r}: "
                    f"call update(updates, state, params, {name}=...)."
                )
        return self.once(**{name: given[name] for name in self.once_wants if name in given})

    def on_leaf(
        self, g: jax.Array, statistics: Sequence[Any], p: jax.Array | None, scalars: dict[str, Any]
    ) -> tuple[jax.Array, tuple[Any, ...]]:
        """One leaf's new update and statistics, in the dtypes of the old ones."""
        given: dict[str, Any] = {}
        for name, statistic in zip(self.statistics, statistics, strict=True):
            given |= {name: statistic, last(name): statistic}
        given |= {**scalars, "g": g}
        if p is not None:
            given["p"] = p
        asked = {name: given[name] for name in self.wants if name in given}
        asked = jax.tree.map(in_compute_precision, asked)
        out = self.rule(**asked)
        new_g, *new = out if isinstance(out, tuple) else (out,)
        self._check(new_g, new, g)
        return cast(new_g, g), tuple(jax.tree.map(cast, new, list(statistics)))

    def _check(self, new_g: Any, new: Sequence[Any], g: jax.Array) -> None:
        """Raises if the rule returned something else than it should."""
        if len(new) != len(self.statistics):
            due = ", ".join(("the update", *self.statistics))
            raise TypeError(f"a rule must return {due}; got {1 + len(new)} values.")
        if jnp.shape(new_g) != g.shape:
            raise TreeMismatchError(
                f"an update of shape {g.shape} became one of shape {jnp.shape(new_g)}; "
                "hyperparameters and schedules must have shape ()."
            )


class TreeRule:
    """The rule of a transformation that cannot be told leaf by leaf; it too runs compiled.

    So are wrappers told: factories with an argument annotated as a `GradientTransformation`, which
    `init` and `update` call as they please, once an update at most. If that is not one of ours, or
    has to be called outside of compiled code for another reason, the wrapper is too.

    Args:
      update: ``update(updates, state, params, **extra_args) -> (updates, state)``, pure. That of a
        wrapper hands the extra arguments on.
      init: ``init(params) -> state``.
      needs_params: Whether ``update`` needs the parameters.
      takes_params: Whether ``update`` looks at the parameters if they are given, though it does
        not need them.
      extra_names: The extra arguments that ``update`` takes itself, all optional.
      compiled: Whether it may run compiled: not if it calls what users wrote.
      inner_state: A wrapper's function from its state to that of what it wraps.
      count: The function from its state to the count at which its schedules are evaluated.
    """

    def __init__(
        self,
        update: Callable[..., tuple[Updates, OptState]],
        init: Callable[[Params], OptState] = lambda params: EmptyState(),
        *,
        needs_params: bool = False,
        takes_params: bool = False,
        extra_names: Sequence[str] = (),
        compiled: bool = True,
        inner_state: Callable[[Any], OptState] = operator.attrgetter("inner_state"),
        count: Callable[[Any], Any] = operator.attrgetter("count"),
    ) -> None:
        self.update = update
        self.init = init
        self.needs_params = needs_params
        self.takes_params = needs_params or takes_params
        self.extra_names = frozenset(extra_names)
        self.compiled = compiled
        self.inner_state = inner_state
        self.count = count


def compute_dtype(x: Any) -> Any:
    """The dtype arithmetic with `x` is done in: at least float32, or complex64."""
    dtype = jnp.result_type(x)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return dtype
    return dtype if dtype.itemsize > 4 else jnp.float32  # float8 does not promote by itself


def in_compute_precision(x: Any) -> jax.Array:
    """`x` in its compute dtype, if it is inexact."""
    x = jnp.asarray(x)
    return _convert(x, compute_dtype(x)) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def in_real_precision(tree: PyTree, dtype: Any) -> Any:
    """Floating scalars in the real dtype of `dtype`, so that they never widen the arithmetic."""
    real = jnp.finfo(dtype).dtype  # type: ignore[no-untyped-call]

    def convert(x: Any) -> Any:
        x = jnp.asarray(x)
        return _convert(x, real) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, tree)


def last(name: str) -> str:
    """What a rule may call a field of the state as it was after the last update."""
    return f"last_{name}"


def cast(x: Any, like: Any) -> jax.Array:
    """`x` in the dtype of `like`; a real result for a complex leaf becomes complex."""
    return _convert(jnp.asarray(x), jnp.result_type(like))


def _convert(x: jax.Array, dtype: Any) -> jax.Array:
    return x if x.dtype == dtype and not x.weak_type else x.astype(dtype)
