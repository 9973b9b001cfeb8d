"""Vector-space operations on trees, leaf by leaf.

Dtypes follow JAX's promotion; None leaves stay None; trees of different structure are an error.
"""

import functools
import operator
from typing import TYPE_CHECKING

import jax.numpy as jnp

from grad_core.tree._map import is_none, map_leaves
from grad_core.types import Numeric, PyTree, Tree

if TYPE_CHECKING:
    from jax.typing import ArrayLike


def add(tree_x: Tree, tree_y: PyTree, *other_trees: PyTree) -> Tree:
    """Add trees: ``x + y + ...``.

    Args:
      tree_x: tree of arrays.
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.
      *other_trees: more such trees.

    Returns:
      The sum, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.add({"a": jnp.array([1.0])}, {"a": jnp.array([2.0])}, {"a": jnp.array([3.0])})
      {'a': Array([6.], dtype=float32)}
    """
    return map_leaves(lambda *xs: functools.reduce(operator.add, xs), tree_x, tree_y, *other_trees)


def sub(tree_x: Tree, tree_y: PyTree) -> Tree:
    """Subtract trees: ``x - y``.

    Args:
      tree_x: tree of arrays.
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.

    Returns:
      The difference, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.sub({"a": jnp.array([3.0])}, {"a": jnp.array([2.0])})
      {'a': Array([1.], dtype=float32)}
    """
    return map_leaves(operator.sub, tree_x, tree_y)


def mul(tree_x: Tree, tree_y: PyTree) -> Tree:
    """Multiply trees elementwise: ``x * y``.

    Args:
      tree_x: tree of arrays.
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.

    Returns:
      The product, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.mul({"a": jnp.array([3.0])}, {"a": jnp.array([2.0])})
      {'a': Array([6.], dtype=float32)}
    """
    return map_leaves(operator.mul, tree_x, tree_y)


def div(tree_x: Tree, tree_y: PyTree) -> Tree:
    """Divide trees elementwise: ``x / y``.

    Args:
      tree_x: tree of arrays.
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.

    Returns:
      The quotient, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.div({"a": jnp.array([3.0])}, {"a": jnp.array([2.0])})
      {'a': Array([1.5], dtype=float32)}
    """
    return map_leaves(operator.truediv, tree_x, tree_y)


def scale(scalar: Numeric, tree: Tree) -> Tree:
    """Multiply every leaf by a number: ``c * x``.

    Args:
      scalar: number of shape ().
      tree: tree of arrays.

    Returns:
      The product, of the structure of ``tree``. A Python number leaves the dtypes of
      floating-point leaves alone; an array takes part in their promotion.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.scale(2.0, {"a": jnp.array([1.0, 2.0])})
      {'a': Array([2., 4.], dtype=float32)}
    """
    return map_leaves(lambda x: scalar * x, tree)


def add_scale(tree_x: Tree, scalar: Numeric, tree_y: PyTree) -> Tree:
    """Add a multiple of a tree to another: ``x + c * y``.

    Args:
      tree_x: tree of arrays. Where it is None, so is the result.
      scalar: number of shape ().
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.

    Returns:
      The sum, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.add_scale({"a": jnp.array([1.0])}, 10.0, {"a": jnp.array([2.0])})
      {'a': Array([21.], dtype=float32)}
    """
    return map_leaves(
        lambda x, y: None if x is None else x + scalar * y,
        tree_x,
        tree_y,
        is_leaf=is_none,
    )


def where(condition: "ArrayLike", tree_x: Tree, tree_y: PyTree) -> Tree:
    """Select elementwise: ``x`` where the condition holds, ``y`` elsewhere.

    Args:
      condition: boolean array that broadcasts with every leaf.
      tree_x: tree of arrays.
      tree_y: tree of the same structure; leaves broadcast with those of ``tree_x``.

    Returns:
      The selection, of the structure of ``tree_x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.where(False, {"a": jnp.array([1.0])}, {"a": jnp.array([2.0])})
      {'a': Array([2.], dtype=float32)}
    """
    return map_leaves(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def clip(
    tree: Tree, min_value: "ArrayLike | None" = None, max_value: "ArrayLike | None" = None
) -> Tree:
    """Clip every element to an interval: ``min(max(x, min_value), max_value)``.

    Args:
      tree: tree of real arrays.
      min_value: lower bound, a number or an array that broadcasts with every leaf; None is none.
      max_value: upper bound, likewise.

    Returns:
      The clipped tree, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.clip({"a": jnp.array([-2.0, 0.5])}, -1.0, 1.0)
      {'a': Array([-1. ,  0.5], dtype=float32)}
    """
    return map_leaves(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Tree) -> Tree:
    """Take the complex conjugate of every element.

    Args:
      tree: tree of arrays.

    Returns:
      The conjugates, of the structure of ``tree``; real leaves are unchanged.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.conj({"a": jnp.array([1 + 2j])})
      {'a': Array([1.-2.j], dtype=complex64)}
    """
    return map_leaves(jnp.conj, tree)


def real(tree: Tree) -> Tree:
    """Take the real part of every element.

    Args:
      tree: tree of arrays.

    Returns:
      The real parts, of the structure of ``tree``; real leaves are unchanged.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.real({"a": jnp.array([1 + 2j])})
      {'a': Array([1.], dtype=float32)}
    """
    return map_leaves(jnp.real, tree)
