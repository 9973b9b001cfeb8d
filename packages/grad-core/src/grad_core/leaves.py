"""Leaf rules at work on a tree: absent leaves, errors with paths, one trace for each shape."""

import functools
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import structure
from grad_core.errors import LeafTypeError, TreeMismatchError, naming, shown
from grad_core.hyperparameters import EvaluatedSchedule, PreciseDecay, TracedSchedule
from grad_core.numerics import safe_increment
from grad_core.rules import (
    ExtraArgs,
    LeafRule,
    cast,
    compute_dtype,
    in_real_precision,
    last,
)
from grad_core.sharing import map_rows
from grad_core.structure import flatten_like, where
from grad_core.types import OptState, Params, Updates
from grad_core.values import Call


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
            given |= {name: getattr(state, name), last(name): getattr(state, name)}
        if spec.needs_tree:
            there = set(self.there)
            updates = [g if i in there else None for i, g in enumerate(self.leaves)]
            given["updates"] = self.treedef.unflatten(updates)
        statistics = [self._statistics(spec, state, field) for field in spec.statistics]
        for name, leaves in zip(spec.statistics, statistics, strict=True):
            if {name, last(name)} & spec.once_wants.keys():
                given[name] = given[last(name)] = self.treedef.unflatten(leaves)
        scalars = spec.scalars(given)
        if missing := spec.shared.keys() - scalars.keys():
            raise TypeError(f"`once` must return the new value of {', '.join(sorted(missing))}.")
        shared = {name: cast(scalars[name], getattr(state, name)) for name in spec.shared}
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


def _shapes(statistic: Any) -> Any:
    """The shape of each array in a statistic."""
    return jax.tree.map(lambda x: getattr(x, "shape", ()), statistic)


def _written(x: jax.Array) -> jax.Array:
    """The same values, as something computed: on a TPU, a mere copy costs one more reading."""
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_written(x.real), _written(x.imag))
    info = jnp.finfo(x.dtype)  # type: ignore[no-untyped-call]
    return jax.lax.reduce_precision(x, info.nexp, info.nmant)


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
