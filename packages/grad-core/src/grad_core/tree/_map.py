"""`jax.tree.map` with a type: the tree that comes out is like the first that goes in."""

from collections.abc import Callable

import jax

from grad_core.types import PyTree, Tree


def map_leaves(
    f: Callable[..., object],
    tree: Tree,
    *rest: PyTree,
    is_leaf: Callable[[object], bool] | None = None,
) -> Tree:
    """Apply ``f`` to the leaves of ``tree`` and the corresponding subtrees of ``rest``."""
    mapped: Tree = jax.tree.map(f, tree, *rest, is_leaf=is_leaf)
    return mapped


def is_none(x: object) -> bool:
    """Whether ``x`` is None; as ``is_leaf`` it makes None a leaf."""
    return x is None
