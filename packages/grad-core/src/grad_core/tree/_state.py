"""Find and replace values in optimizer states by name.

A *name* is a field of a NamedTuple or dataclass, a key of a dict, or the class name of a
NamedTuple. States nest (chains, masks, wrappers); the search goes all the way down.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import TypeAlias

import jax
import jax.numpy as jnp

from grad_core.types import PyTree, Tree

KeyPath: TypeAlias = tuple[object, ...]
"""Where a value is in a tree: keys from the root down, of `jax.tree_util` or `NamedTupleKey`."""

Filter: TypeAlias = Callable[[KeyPath, object], bool]
"""``filtering(path, value)``: whether a value that has the right name is meant."""


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The step of a path from a NamedTuple into one of its fields.

    Attributes:
      tuple_name: name of the NamedTuple's class.
      name: name of the field.

    Example:
      >>> from grad_core.tree_utils import NamedTupleKey
      >>> str(NamedTupleKey("ScaleByAdamState", "count"))
      'ScaleByAdamState.count'
    """

    tuple_name: str
    name: str

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(
    tree: PyTree, key: object, filtering: Filter | None = None
) -> list[tuple[KeyPath, object]]:
    """Find all values with a name, and where they are.

    Args:
      tree: the tree, an optimizer state for instance.
      key: field name of a NamedTuple or dataclass, key of a dict, or class name of a NamedTuple.
      filtering: ``filtering(path, value) -> bool``; values for which it is False are left out.

    Returns:
      Pairs ``(path, value)``, from the root down. The value may be a subtree, and None.

    Example:
      >>> from grad_core import tree
      >>> tree.get_all_with_path({"a": {"lr": 0.1}, "lr": 0.2}, "lr")
      [((DictKey(key='lr'),), 0.2), ((DictKey(key='a'), DictKey(key='lr')), 0.1)]
    """
    matches = _named(tree, key)
    return [(p, v) for p, v in matches if filtering is None or filtering(p, v)]


def get(
    tree: PyTree, key: object, default: object = None, filtering: Filter | None = None
) -> object:
    """Find the value with a name.

    Args:
      tree: the tree, an optimizer state for instance.
      key: field name of a NamedTuple or dataclass, key of a dict, or class name of a NamedTuple.
      default: what to return if there is no such value.
      filtering: ``filtering(path, value) -> bool``; values for which it is False are ignored.

    Returns:
      The value, or ``default``.

    Raises:
      KeyError: several values have that name; ``filtering`` or `get_all_with_path` tell them
        apart.

    Example:
      >>> from grad_core import tree
      >>> tree.get({"a": {"lr": 0.1}, "b": 3}, "lr")
      0.1
    """
    found = get_all_with_path(tree, key, filtering)
    if len(found) > 1:
        paths = ", ".join(_show(path) for path, _ in found)
        raise KeyError(
            f"tree.get: found multiple values for {key!r}, at {paths}; choose one with filtering=, "
            "or use get_all_with_path."
        )
    return found[0][1] if found else default


def set(tree: Tree, filtering: Filter | None = None, /, **kwargs: object) -> Tree:
    """Replace values by name.

    Args:
      tree: the tree, an optimizer state for instance.
      filtering: ``filtering(path, value) -> bool``; values for which it is False stay.
      **kwargs: names and new values. All values with that name are replaced. If one contains
        another, the outer one counts. A Python number in the place of an array of shape () becomes
        an array of its dtype.

    Returns:
      A copy of ``tree`` with the new values.

    Raises:
      KeyError: no value has one of the names.

    Example:
      >>> from grad_core import tree
      >>> tree.set({"a": {"lr": 0.1}, "b": 3}, lr=0.5)
      {'a': {'lr': 0.5}, 'b': 3}
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            given = " given the filtering operation" if filtering is not None else ""
            raise KeyError(
                f"tree.set: found no values matching {key!r}{given}; the names in this tree are "
                f"{', '.join(_names(tree))}."
            )
    replaced: Tree = _replace((), _names_of(None, tree), tree, kwargs, filtering)  # type: ignore[assignment]
    return replaced


def _replace(
    path: KeyPath,
    names: tuple[object, ...],
    node: object,
    values: dict[str, object],
    filtering: Filter | None,
) -> object:
    for name in names:
        if name in values and (filtering is None or filtering(path, node)):
            return _in_place_of(node, values[name])
    children = _children(node)
    if not children:
        return node
    treedef = jax.tree.structure(node, is_leaf=lambda x: x is not node)
    new = [_replace((*path, k), _names_of(k, v), v, values, filtering) for k, v in children]
    return jax.tree.unflatten(treedef, new)


def _in_place_of(old: object, new: object) -> object:
    """A Python number as an array like the one it replaces, so that nothing compiles anew."""
    is_number = isinstance(new, int | float | complex) and not isinstance(new, bool)
    if is_number and isinstance(old, jax.Array) and old.ndim == 0:
        return jnp.asarray(new, old.dtype)
    return new


def _named(tree: object, key: object) -> list[tuple[KeyPath, object]]:
    root = [((), tree)] if key in _names_of(None, tree) else []
    return root + list(_named_below((), tree, key))


def _named_below(path: KeyPath, node: object, key: object) -> Iterator[tuple[KeyPath, object]]:
    children = [((*path, k), v) for k, v in _children(node)]
    yield from ((p, v) for p, v in children if key in _names_of(p[-1], v))
    for p, v in children:
        yield from _named_below(p, v, key)


def _children(node: object) -> list[tuple[object, object]]:
    """Keys and values one level down; none for a leaf. None counts as a value."""
    flat, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda x: x is not node)
    children = [(path[0], value) for path, value in flat if path]
    if not _is_namedtuple(node):
        return children
    return [(_with_class(key, type(node).__name__), value) for key, value in children]


def _with_class(key: object, class_name: str) -> object:
    if isinstance(key, jax.tree_util.GetAttrKey):
        return NamedTupleKey(class_name, key.name)
    return key


def _names_of(key: object, value: object) -> tuple[object, ...]:
    """The names under which ``value``, found at ``key``, is looked up."""
    by_class = (type(value).__name__,) if _is_namedtuple(value) else ()
    match key:
        case NamedTupleKey(name=name) | jax.tree_util.GetAttrKey(name=name):
            return (name, *by_class)
        case jax.tree_util.DictKey(key=name):
            return (name, *by_class)
    return by_class


def _is_namedtuple(node: object) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _names(tree: object) -> list[str]:
    def below(node: object) -> Iterator[object]:
        for key, value in _children(node):
            yield from _names_of(key, value)
            yield from below(value)

    return sorted({repr(name) for name in (*_names_of(None, tree), *below(tree))})


def _show(path: KeyPath) -> str:
    return "".join(f".{key}" if isinstance(key, NamedTupleKey) else str(key) for key in path)
