"""Leaf rules over stacks of small leaves: same numbers, far fewer arrays.

A node that is grouped keeps each statistic as a dict: a stack for all leaves of one shape, named by
their number and form, and the leaves that stay alone by their paths. Its rules run on the stacks,
mapped over the first axis, so that what a rule does with a leaf as a whole is still done with each.
"""

from collections.abc import Callable, Container, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import structure
from grad_core.errors import TreeMismatchError, shown
from grad_core.leaves import Leaves, Stage, naming_all, run_rules
from grad_core.rules import ExtraArgs, LeafRule
from grad_core.stacking import Layout
from grad_core.structure import flatten_like
from grad_core.tree._map_params import ParamsPlaceholder
from grad_core.types import OptState, Params, Updates


def init_grouped(spec: LeafRule, params: Params, max_size: int) -> OptState:
    """The first state of a leaf rule over groups."""
    if isinstance(params, ParamsPlaceholder):
        return spec.init(params)
    structure.check_inexact(params, "params")
    leaves, _ = structure.flatten(params)
    layout = Layout(_paths(params), leaves, max_size)
    packed = layout.pack(leaves)

    def values(first: Callable[[jax.Array], Any]) -> dict[str, Any]:
        on_stack = jax.vmap(first)
        return {k: on_stack(x) if k in layout.stacks else first(x) for k, x in packed.items()}

    statistics = {field: values(first) for field, first in spec.statistics.items()}
    return spec.start(statistics, params)


def run_grouped(
    stages: Sequence[Stage], updates: Updates, params: Params | None, extra_args: ExtraArgs
) -> tuple[Updates, list[OptState]]:
    """`run_rules` over groups."""
    tree = Leaves(updates, params, stages)
    given = dict.fromkeys(tree.there)
    beside: Sequence[Any] = tree.leaves
    if params is not None:
        with naming_all(stages[0].owners):
            beside = flatten_like(updates, tree.treedef, params, ("updates", "params"))
    known = [
        p if structure.is_array(p) else g for g, p in zip(tree.leaves, beside, strict=True)
    ]  # the parameters, like which the groups were made, where they are given
    layout = Layout(_paths(updates), known, stages[0].max_grouped)
    for stage in stages:
        with naming_all(stage.owners):
            _check_state(stage, layout)

    grads = [
        g if i in given or not structure.is_array(p) else jnp.zeros_like(p)
        for i, (g, p) in enumerate(zip(tree.leaves, known, strict=True))
    ]
    stacked = [i for i, name in enumerate(sorted(layout)) if name in layout.stacks]
    packed = layout.pack([*zip(grads, tree.parameters or [None] * len(grads), strict=True)])
    grouped_updates = {name: g for name, (g, _) in packed.items()}
    grouped_params = None if params is None else {name: p for name, (_, p) in packed.items()}
    new: Any
    new, states = run_rules(stages, grouped_updates, grouped_params, extra_args, stacked)

    pieces = layout.unpack(new)
    leaves = [
        pieces[i].astype(jnp.result_type(g)) if i in given else g for i, g in enumerate(tree.leaves)
    ]
    if len(given) < len(pieces):
        pairs = zip(stages, states, strict=True)
        states = [_with_absent(stage, new, layout, given) for stage, new in pairs]
    return tree.treedef.unflatten(leaves), states


def _with_absent(stage: Stage, new: OptState, layout: Layout, given: Container[int]) -> OptState:
    """The new state, but the old statistics of leaves that have no update."""
    fields: dict[str, Any] = {}
    for field in stage.spec.statistics:
        before, after = getattr(stage.state, field), getattr(new, field)
        fields[field] = {
            name: _chosen([i in given for i in members], after[name], before[name])
            for name, members in layout.members.items()
        }
    return new._replace(**fields)  # type: ignore[attr-defined]


def _chosen(is_given: list[bool], new: Any, old: Any) -> Any:
    """The new statistics of the members of a group that are given, the old ones of the others."""
    if all(is_given) or not any(is_given):
        return new if all(is_given) else old
    which = jnp.asarray(is_given)

    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return jax.tree.map(choose, new, old)


def _check_state(stage: Stage, layout: Layout) -> None:
    for field in stage.spec.statistics:
        groups = getattr(stage.state, field, None)
        if not isinstance(groups, dict) or groups.keys() != layout.members.keys():
            has = ", ".join(map(repr, groups)) if isinstance(groups, dict) else shown(groups)
            raise TreeMismatchError(
                f"state.{field} must hold the groups {', '.join(map(repr, sorted(layout)))}; got "
                f"{has}. Was init called with other parameters, or without grouping? Where updates "
                "are None, or of other dtypes than the parameters, `update` needs these too."
            )


def _paths(tree: Any) -> list[str]:
    return [structure.path_name(path) for path in structure.leaf_paths(tree)]
