"""The leaf rule: a transformation told by what it does to one array.

Nearly every transformation is a little arithmetic on one array and its statistics, with a few
scalars shared by all arrays of the tree. A `LeafRule` states just that, and this module carries it
to trees: precision, absent leaves, errors with paths, one trace per distinct shape. How updates are
dispatched is in `grad_core.nodes`; the whole pattern is told in ``docs/pattern.md``.
"""

import functools
import inspect
import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import structure
from grad_core.errors import (
    LeafTypeError,
    MissingArgumentError,
    TreeMismatchError,
    naming,
    shown,
)
from grad_core.hyperparameters import EvaluatedSchedule, PreciseDecay, TracedSchedule
from grad_core.numerics import safe_increment
from grad_core.sharing import map_rows
from grad_core.structure import flatten_like, where
from grad_core.types import EmptyState, OptState, Params, PyTree, Updates
from grad_core.values import Call

ExtraArgs = dict[str, Any]
First = Callable[[jax.Array], Any] | np.generic


class LeafRule:
    """The rule of a transformation, for one leaf.

    ``rule`` and ``once`` ask by parameter name for what they need, in any order:

    - ``rule``: ``g``, the leaf's update; ``p``, its parameter; any statistic by its field name; any
      scalar that ``once`` returns. It returns the new update, followed by the new statistics in the
      order of the state's fields.
    - ``once``, called once per update: ``count``, the number of updates before this one, and ``t``,
      which is ``count + 1``; ``updates`` and ``params``, the whole trees; any field of the state
      that all leaves share; any other name is an extra argument of `update`, required unless it has
      a default. It returns a dict of scalars, the new values of shared fields among them.

    A field ``x`` may be asked for as ``last_x`` too, as it must be if it is named ``g``, ``p`` or
    ``t``. Arrays come in at least float32 (or complex64) and go back in the dtypes they had.

    Args:
      rule: The arithmetic on one leaf.
      state: The state's class, a NamedTuple. A field ``count`` is kept by the mechanism.
      once: Computes the scalars that all leaves share.
      **first: For each other field of the state its first value. For a statistic that each leaf has
        of its own, a function from the leaf's parameter to an array, or to a pytree of them; for a
        number that all leaves share, that number, of a NumPy type.

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
        self.shared = {name: x for name, x in first.items() if isinstance(x, np.generic)}
        own = {name: x for name, x in first.items() if not isinstance(x, np.generic)}
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
                    f"NumPy number if all leaves share it; got {shown(x)}."
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
        ours = {"count", "t", "updates", "params", *self.shared, *map(_last, self.shared)}
        return frozenset(self.once_wants) - ours

    def init(self, params: Params) -> OptState:
        structure.check_inexact(params, "params")
        fields = {name: jax.tree.map(first, params) for name, first in self.statistics.items()}
        return self.start(fields)

    def start(self, statistics: dict[str, Any]) -> OptState:
        """The first state, from the first values of the statistics."""
        fields = {name: jnp.asarray(first) for name, first in self.shared.items()}
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
            given |= {name: statistic, _last(name): statistic}
        given |= {**scalars, "g": g}
        if p is not None:
            given["p"] = p
        asked = {name: given[name] for name in self.wants if name in given}
        asked = jax.tree.map(in_compute_precision, asked)
        out = self.rule(**asked)
        new_g, *new = out if isinstance(out, tuple) else (out,)
        self._check(new_g, new, g)
        return _cast(new_g, g), tuple(jax.tree.map(_cast, new, list(statistics)))

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


def _last(name: str) -> str:
    """What a rule may call a field of the state as it was after the last update."""
    return f"last_{name}"


def _shapes(statistic: Any) -> Any:
    """The shape of each array in a statistic."""
    return jax.tree.map(lambda x: getattr(x, "shape", ()), statistic)


def _written(x: jax.Array) -> jax.Array:
    """The same values, as something computed: on a TPU, a mere copy costs one more reading."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_written(x.real), _written(x.imag))
    info = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
    return jax.lax.reduce_precision(x, info.nexp, info.nmant)


def _cast(x: Any, like: Any) -> jax.Array:
    """`x` in the dtype of `like`; a real result for a complex leaf becomes complex."""
    return _convert(jnp.asarray(x), jnp.result_type(like))


def _convert(x: jax.Array, dtype: Any) -> jax.Array:
    return x if x.dtype == dtype and not x.weak_type else x.astype(dtype)


class Stage(NamedTuple):
    """A leaf rule about to run: its hyperparameters, rule and state, and whose part it is.

    Leaves of at most `max_grouped` elements are stacked with those of their shape; with 0, none is.
    """

    call: Call
    spec: LeafRule
    state: Any
    owners: tuple[str, ...]
    max_grouped: int = 0


class _Running(NamedTuple):
    """A leaf rule in the middle of an update; statistics are listed by field, then by leaf."""

    stage: Stage
    t: jax.Array | None
    scalars: dict[str, Any]
    shared: dict[str, Any]
    statistics: list[list[Any]]


def run_rules(
    stages: Sequence[Stage],
    updates: Updates,
    params: Params | None,
    extra_args: ExtraArgs,
    stacked: Collection[int] = (),
) -> tuple[Updates, list[OptState]]:
    """Applies leaf rules one after another, as one function per leaf.

    A rule whose scalars depend on the whole tree (a global norm) first lets those before it finish.
    The leaves at the indices `stacked` are many along their first axis.
    """
    tree = Leaves(updates, params, stages, stacked)
    running: list[_Running] = []
    finished = 0
    for stage in stages:
        with naming_all(stage.owners):
            if stage.spec.needs_tree:
                tree.apply(running[finished:])
                finished = len(running)
            running.append(tree.begin(stage, extra_args))
    tree.apply(running[finished:])
    return tree.updates(), [tree.end(each) for each in running]


class Leaves:
    """The leaves of the updates, and what belongs to them, during an update."""

    def __init__(
        self,
        updates: Updates,
        params: Params | None,
        stages: Sequence[Stage],
        stacked: Collection[int] = (),
    ) -> None:
        self.stacked = stacked
        self.tree = updates
        self.params = params
        self.leaves, self.treedef = structure.flatten(updates)
        self.parameters: list[Any] | None = None
        self.there = [i for i, g in enumerate(self.leaves) if not structure.means_no_update(g)]
        with naming_all(stages[0].owners):
            for i in self.there:
                structure.check_inexact_leaf(
                    self.leaves[i], functools.partial(self.path, "updates", i)
                )
        wanting = next((stage for stage in stages if "p" in stage.spec.wants), None)
        if wanting is not None:
            with naming_all(wanting.owners):
                self._take_parameters()

    def path(self, name: str, i: int) -> str:
        return where(name, structure.leaf_paths(self.tree)[i])

    def updates(self) -> Updates:
        return self.treedef.unflatten(self.leaves)

    def _take_parameters(self) -> None:
        names = ("updates", "params")
        self.parameters = flatten_like(self.tree, self.treedef, self.params, names)
        for i in self.there:
            g, p = self.leaves[i], self.parameters[i]
            if not structure.is_array(p):
                raise TreeMismatchError(
                    f"{self.path('updates', i)} is an array, but its parameter is {shown(p)}."
                )
            if jnp.shape(g) != jnp.shape(p):
                raise TreeMismatchError(
                    f"{self.path('updates', i)} has shape {jnp.shape(g)}, but "
                    f"{self.path('params', i)} has shape {jnp.shape(p)}; they must be equal."
                )
            if jnp.iscomplexobj(g) and not jnp.iscomplexobj(p):
                raise LeafTypeError(
                    f"{self.path('updates', i)} is complex, but its parameter is real; "
                    "take the real part of the update."
                )

    def begin(self, stage: Stage, extra_args: ExtraArgs) -> _Running:
        """Computes a rule's scalars and finds its statistics."""
        spec, state = stage.spec, stage.state
        if not all(hasattr(state, field) for field in spec.state._fields):  # type: ignore[attr-defined]
            raise TreeMismatchError(
                f"the state must be a {spec.state.__name__}; got {shown(state)}. "
                "Was it made by another init?"
            )
        given = {**extra_args, "params": self.params}
        t = safe_increment(state.count) if spec.counts else None
        if spec.counts:
            given |= {"count": state.count, "t": t}
        for name in spec.shared:
            given |= {name: getattr(state, name), _last(name): getattr(state, name)}
        if spec.needs_tree:
            there = set(self.there)
            updates = [g if i in there else None for i, g in enumerate(self.leaves)]
            given["updates"] = self.treedef.unflatten(updates)
        statistics = [self._statistics(spec, state, field) for field in spec.statistics]
        scalars = spec.scalars(given)
        if missing := spec.shared.keys() - scalars.keys():
            raise TypeError(f"`once` must return the new value of {', '.join(sorted(missing))}.")
        shared = {name: _cast(scalars[name], getattr(state, name)) for name in spec.shared}
        asked = {name: x for name, x in scalars.items() if name in spec.wants}
        return _Running(stage, t, asked, shared, statistics)

    def _statistics(self, spec: LeafRule, state: Any, field: str) -> list[Any]:
        names = ("updates", f"state.{field}")
        found = flatten_like(self.tree, self.treedef, getattr(state, field), names)
        for i in self.there:
            g, s = self.leaves[i], found[i]
            if structure.is_array(s) and jnp.shape(s) == jnp.shape(g):
                continue
            first = spec.statistics[field]
            first = jax.vmap(first) if i in self.stacked else first
            due = _shapes(jax.eval_shape(first, g))  # it may rightly differ
            if _shapes(s) == due:
                continue
            has = f"has shape {_shapes(s)}, not {due}" if jax.tree.leaves(s) else f"is {shown(s)}"
            raise TreeMismatchError(
                f"{self.path('updates', i)} has shape {jnp.shape(g)}, but "
                f"{self.path(f'state.{field}', i)} {has}; was init called with other parameters?"
            )
        return found

    def apply(self, running: Sequence[_Running]) -> None:
        """Runs the rules on each leaf that is there."""
        if not running:
            return
        calls = tuple(each.stage.call for each in running)
        scalars = tuple(each.scalars for each in running)
        needs_p = any("p" in each.stage.spec.wants for each in running)
        parameters = self.parameters if needs_p and self.parameters is not None else None
        rows = {
            i: _Row(
                self.leaves[i],
                tuple(tuple(field[i] for field in each.statistics) for each in running),
                None if parameters is None else parameters[i],
            )
            for i in self.there
        }
        kinds = {i: (compute_dtype(row.g), i in self.stacked) for i, row in rows.items()}
        for kind in sorted({*kinds.values()}, key=str):
            mine = [i for i in rows if kinds[i] == kind]
            dtype, is_stacked = kind
            common = in_real_precision((_for_leaves(calls), scalars), dtype)
            fn = _on_stack if is_stacked else _on_leaf
            with naming_all(running[0].stage.owners):
                results = map_rows(fn, common, [rows[i] for i in mine])
            for i, (g, new) in zip(mine, results, strict=True):
                self.leaves[i] = g
                for each, values in zip(running, new, strict=True):
                    for field, value in zip(each.statistics, values, strict=True):
                        field[i] = value

    def end(self, running: _Running) -> OptState:
        """The rule's new state."""
        spec = running.stage.spec
        pairs = zip(spec.statistics, running.statistics, strict=True)
        trees = {field: self.treedef.unflatten(values) for field, values in pairs}
        count = {} if running.t is None else {"count": running.t}
        return spec.state(**trees, **running.shared, **count)


class _Row(NamedTuple):
    """All that belongs to one leaf: its update, its statistics by rule, its parameter."""

    g: Any
    statistics: tuple[tuple[Any, ...], ...]
    p: Any


_Common = tuple[tuple[Call, ...], tuple[dict[str, Any], ...]]
_Result = tuple[jax.Array, tuple[tuple[Any, ...], ...]]


def _on_leaf(common: _Common, row: _Row) -> _Result:
    """The fused rules on one leaf."""
    g = given = row.g
    new: list[tuple[Any, ...]] = []
    for call, scalars, statistics in zip(*common, row.statistics, strict=True):
        spec: LeafRule = call.build()
        g, s = spec.on_leaf(g, statistics, row.p, scalars)
        new.append(jax.tree.map(lambda x: _written(x) if x is given else x, s))
    return g, tuple(new)


def _on_stack(common: _Common, row: _Row) -> _Result:
    """The fused rules on each of the leaves that are stacked along the first axis."""
    on_each: Callable[[_Common, _Row], _Result] = jax.vmap(_on_leaf, in_axes=(None, 0))
    return on_each(common, row)


def _for_leaves(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """The calls without what serves `once` only: logarithms of decays, and schedules."""
    return jax.tree.map(_for_leaf, calls, is_leaf=lambda x: _for_leaf(x) is not x)  # type: ignore[no-any-return]


def _for_leaf(x: Any) -> Any:
    if isinstance(x, PreciseDecay):
        return x.without_log()
    if isinstance(x, TracedSchedule | EvaluatedSchedule):
        return EvaluatedSchedule(None)
    return x


@contextmanager
def naming_all(owners: Sequence[str]) -> Iterator[None]:
    """`naming` for several names, given from the inside out."""
    with ExitStack() as stack:
        for owner in reversed(owners):
            stack.enter_context(naming(owner))
        yield
