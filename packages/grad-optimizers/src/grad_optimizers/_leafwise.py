"""Leaf by leaf, where a state holds more than one array a leaf, or a scalar for the whole tree."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import TreeMismatchError, Updates, structure
from grad_core.rules import in_compute_precision


def on_leaves(
    step: Callable[..., tuple[Any, ...]],
    updates: Updates,
    **statistics: tuple[Any, Callable[[Any], Any]],
) -> tuple[Any, ...]:
    """What `step` makes of each leaf and its statistics, as one tree for each of its results.

    Args:
      step: From an update and its statistics, in at least float32, to the new ones.
      updates: The updates; where one is absent, all that belongs to it stays.
      **statistics: For each field of the state, its tree, and the function of a parameter that
        makes a leaf's first value.

    Returns:
      The new updates and statistics, in the dtypes of the old ones.
    """
    leaves, treedef = structure.flatten(updates)
    paths = structure.leaf_paths(updates)
    rows = [leaves]
    for name, (tree, _) in statistics.items():
        names = ("updates", f"state.{name}")
        rows.append(structure.flatten_like(updates, treedef, tree, names))
    new = []
    for path, old in zip(paths, zip(*rows, strict=True), strict=True):
        g = old[0]
        if structure.means_no_update(g):
            new.append(old)
            continue
        structure.check_inexact_leaf(g, functools.partial(structure.where, "updates", path))
        for (name, (_, first)), found in zip(statistics.items(), old[1:], strict=True):
            _check_shapes(path, name, jax.eval_shape(first, g), found)
        results = step(*jax.tree.map(in_compute_precision, old))
        new.append(
            jax.tree.map(lambda x, like: jnp.asarray(x, jnp.result_type(like)), results, old)
        )
    columns = zip(*new, strict=True) if new else [() for _ in rows]
    return tuple(treedef.unflatten(column) for column in columns)


def _check_shapes(path: structure.KeyPath, name: str, due: Any, found: Any) -> None:
    due, shapes = (jax.tree.map(jnp.shape, tree) for tree in (due, found))
    if due != shapes:
        raise TreeMismatchError(
            f"{structure.where('updates', path)} should have statistics of shape {due} in "
            f"{structure.where(f'state.{name}', path)}, but they have {shapes}; "
            "was init called with other parameters?"
        )
