"""Trees beside trees: flattening one like another, with mismatches named by path."""

import functools
import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeGuard

import jax

from grad_core.errors import LeafTypeError, TreeMismatchError
from grad_core.types import MaskedNode, PyTree

KeyPath = tuple[Any, ...]


def is_absent(node: object) -> bool:
    """Whether a node stands for "nothing here": None or a `MaskedNode`."""
    return node is None or isinstance(node, MaskedNode)


def is_function(x: object) -> "TypeGuard[Callable[..., Any]]":
    """Whether `x` is to be called: callable, and no pytree node that happens to be callable."""
    return callable(x) and jax.tree_util.all_leaves([x])


def path_name(path: KeyPath) -> str:
    """A key path as users write it in patterns: ``encoder/0/kernel``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def where(name: str, path: KeyPath) -> str:
    """How errors show a leaf: ``params['encoder']['kernel']``."""
    return f"{name}{jax.tree_util.keystr(path)}"


def flatten(tree: PyTree) -> tuple[list[Any], jax.tree_util.PyTreeDef]:
    """Leaves and structure, where None and `MaskedNode` count as leaves."""
    return jax.tree_util.tree_flatten(tree, is_leaf=is_absent)


def leaf_paths(tree: PyTree) -> list[KeyPath]:
    """The paths of the leaves that `flatten` finds."""
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_absent)[0]]


def flatten_like(
    reference: PyTree,
    treedef: jax.tree_util.PyTreeDef,
    tree: PyTree,
    names: tuple[str, str],
) -> list[Any]:
    """The subtrees of `tree` at the leaves of `reference`; an error names where they part.

    Args:
      reference: The tree that was flattened to `treedef`; used for the error alone.
      treedef: Its structure, None and `MaskedNode` counted as leaves.
      tree: Another tree; where `reference` has a leaf, it may have any subtree.
      names: What the user calls `reference` and `tree`.

    Returns:
      One subtree of `tree` for each leaf of `reference`.
    """
    try:
        return treedef.flatten_up_to(tree)  # type: ignore[no-any-return]
    except ValueError:
        pass
    raise TreeMismatchError(describe_mismatch(reference, tree, names))


def describe_mismatch(reference: PyTree, tree: PyTree, names: tuple[str, str]) -> str:
    """Says at which path two trees differ first."""
    here, there = leaf_paths(reference), leaf_paths(tree)
    head = f"{names[0]} and {names[1]} must have the same structure, but"
    for path in here:
        if not any(_is_prefix(path, other) for other in there):
            return f"{head} {where(names[0], path)} has no counterpart in {names[1]}."
    for path in there:
        if not any(_is_prefix(other, path) for other in here):
            return f"{head} {where(names[1], path)} has no counterpart in {names[0]}."
    kinds = jax.tree_util.tree_structure(reference), jax.tree_util.tree_structure(tree)
    return f"{head} their containers differ: {kinds[0]} against {kinds[1]}."


def _is_prefix(short: KeyPath, long: KeyPath) -> bool:
    return long[: len(short)] == short


def check_prefix(prefix: PyTree, tree: PyTree, names: tuple[str, str]) -> None:
    """Raises, naming the path, unless `prefix` (of masks, of labels) is a prefix of `tree`."""
    try:
        jax.tree_util.tree_map(lambda *_: None, prefix, tree)
    except (ValueError, TypeError):
        pass
    else:
        return
    here, there = leaf_paths(prefix), leaf_paths(tree)
    head = f"{names[0]} must have the structure of {names[1]}, or of its upper part, but"
    for path in there:
        if not any(_is_prefix(other, path) for other in here):
            raise TreeMismatchError(f"{head} {where(names[1], path)} has no entry in {names[0]}.")
    for path in here:
        if not any(_is_prefix(path, other) for other in there):
            raise TreeMismatchError(f"{head} {where(names[0], path)} is not in {names[1]}.")
    kinds = jax.tree_util.tree_structure(prefix), jax.tree_util.tree_structure(tree)
    raise TreeMismatchError(f"{head} their containers differ: {kinds[0]} against {kinds[1]}.")


class FrozenTree:
    """A tree of hashable leaves (masks, labels) as a static value, compared by content."""

    def __init__(self, tree: PyTree) -> None:
        leaves, treedef = jax.tree_util.tree_flatten(tree)
        self.leaves = tuple(leaves)
        self.treedef: Any = treedef

    def thaw(self) -> PyTree:
        return self.treedef.unflatten(self.leaves)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrozenTree):
            return NotImplemented
        return (self.leaves, self.treedef) == (other.leaves, other.treedef)

    def __hash__(self) -> int:
        return hash((self.leaves, self.treedef))


def filled(updates: PyTree, params: PyTree | None) -> PyTree:
    """The updates, with parameters where there are none: masks and labels are for every leaf."""
    leaves, treedef = flatten(updates)
    if params is None or not any(is_absent(g) for g in leaves):
        return updates
    beside = flatten_like(updates, treedef, params, ("updates", "params"))
    pairs = zip(leaves, beside, strict=True)
    return treedef.unflatten([p if is_absent(g) and is_array(p) else g for g, p in pairs])


def matches(pattern: str, tree: PyTree) -> PyTree:
    """A mask that is True where the whole path of a leaf matches a regular expression.

    Paths are keys joined by ``/``, as in ``encoder/0/kernel``.
    """
    compiled = re.compile(pattern)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: compiled.fullmatch(path_name(path)) is not None, tree
    )


def label_by_pattern(patterns: Sequence[str], tree: PyTree) -> PyTree:
    """Labels each leaf with the one pattern that its path matches."""
    compiled = {pattern: re.compile(pattern) for pattern in patterns}

    def label(path: KeyPath, _: object) -> Hashable:
        name = path_name(path)
        hits = [pattern for pattern, regex in compiled.items() if regex.fullmatch(name)]
        if len(hits) == 1:
            return hits[0]
        found = f"matches {' and '.join(map(repr, hits))}" if hits else "matches no pattern"
        raise TreeMismatchError(
            f"the path {name!r} {found}; each path must match exactly one of "
            f"{', '.join(map(repr, patterns))}."
        )

    return jax.tree_util.tree_map_with_path(label, tree)


def check_inexact(tree: PyTree, name: str) -> None:
    """Raises where a leaf is not a real or complex floating-point array."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        check_inexact_leaf(leaf, functools.partial(where, name, path))


def check_inexact_leaf(leaf: Any, where: Callable[[], str]) -> None:
    """Raises unless a leaf, to be found at ``where()``, is a floating-point or complex array."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        if isinstance(leaf, float | complex):
            return
        kind = type(leaf).__name__
    elif jax.numpy.issubdtype(dtype, jax.numpy.inexact) or dtype == jax.dtypes.float0:
        return
    else:
        kind = str(dtype)
    raise LeafTypeError(
        f"{where()} is {kind}, but only floating-point and complex arrays can be optimized. "
        "Cast it, or leave it out with masked or partition."
    )


def is_array(x: object) -> bool:
    """Whether a leaf is an array or a number."""
    return hasattr(x, "dtype") or isinstance(x, int | float | complex)


def means_no_update(g: Any) -> bool:
    """Whether an update leaf is None, a `MaskedNode` or float0: the parameter stays as it is."""
    return is_absent(g) or getattr(g, "dtype", None) == jax.dtypes.float0
