"""From a tree to one number: sums, inner products, norms, extrema, comparisons.

Sums run over all elements of all leaves, None leaves aside, and are accumulated in at least
float32.
"""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grad_core.numerics import root_sum_squares, sum_squares, widen
from grad_core.tree._map import map_leaves
from grad_core.types import Numeric, PyTree


def sum(tree: PyTree, associative_reduction: bool = False) -> jax.Array:
    """Add all elements of all leaves.

    Args:
      tree: tree of arrays.
      associative_reduction: add the leaves' sums in pairs, pairs of pairs, ..., which shortens
        the chain of additions (and of rounding errors) to the logarithm of the number of leaves.

    Returns:
      An array of shape (), in the promoted dtype of the leaves; 0 for an empty tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.sum({"a": jnp.array([1.0, 2.0]), "b": jnp.array(3.0)})
      Array(6., dtype=float32)
    """
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.asarray(0.0)
    reduce = _reduce_in_pairs if associative_reduction else functools.reduce
    totals = [jnp.sum(x, dtype=_wide_enough(x)) for x in leaves]
    return _narrow_like(reduce(operator.add, totals), leaves)


def vdot(tree_x: PyTree, tree_y: PyTree) -> jax.Array:
    """Inner product of two trees: ``sum_i conj(x_i) * y_i``.

    Args:
      tree_x: tree of arrays, conjugated if complex.
      tree_y: tree of the same structure and shapes.

    Returns:
      An array of shape (), in the promoted dtype of the leaves; 0 for an empty tree.

    Raises:
      ValueError: the trees differ in structure.
      TypeError: leaves differ in shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.vdot({"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 4.0])})
      Array(11., dtype=float32)
    """
    products = jax.tree.leaves(map_leaves(_leaf_vdot, tree_x, tree_y))
    if not products:
        return jnp.asarray(0.0)
    leaves = jax.tree.leaves((tree_x, tree_y))
    return _narrow_like(functools.reduce(operator.add, products), leaves)


def _leaf_vdot(x: jax.Array, y: jax.Array) -> jax.Array:
    if jnp.shape(x) != jnp.shape(y):
        raise TypeError(
            f"tree.vdot: leaves must have equal shapes, got {jnp.shape(x)} and {jnp.shape(y)}."
        )
    # Not jnp.vdot: a matrix product is rounded to bfloat16 on TPU, and flattens sharded arrays.
    dtype = _wide_enough(x, y)
    return jnp.sum(jnp.conj(jnp.asarray(x, dtype)) * jnp.asarray(y, dtype))


def norm(tree: PyTree, ord: int | float | str | None = None, squared: bool = False) -> jax.Array:
    """Norm of a tree seen as one long vector.

    ``ord`` None or 2: ``sqrt(sum_i |x_i|^2)``; 1: ``sum_i |x_i|``; inf: ``max_i |x_i|``.

    The Euclidean norm neither overflows nor underflows unless its value does, and its gradient at
    zero is zero.

    Args:
      tree: tree of arrays; real, complex or integer.
      ord: 1, 2, infinity (a number or ``"inf"``), or None, which means 2.
      squared: whether to return the square of the norm.

    Returns:
      A real array of shape () in the widest dtype of the leaves, and at least float32; 0 for an
      empty tree.

    Raises:
      ValueError: ``ord`` is none of the above.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.norm({"a": jnp.array([3.0]), "b": jnp.array(4.0)})
      Array(5., dtype=float32)
    """
    if ord is not None and ord not in (1, 2, "inf", math.inf):
        raise ValueError(f"tree.norm: ord must be None, 1, 2, or inf, got {ord!r}.")
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return jnp.asarray(0.0)
    if ord is None or ord == 2:
        return _squared_norm_2(leaves) if squared else root_sum_squares(leaves)
    result = _norm_1(leaves) if ord == 1 else _norm_inf(leaves)
    return result**2 if squared else result


def _squared_norm_2(leaves: list[jax.Array]) -> jax.Array:
    squares: list[jax.Array] = [sum_squares(x, 1.0) for x in leaves]
    return functools.reduce(operator.add, squares)


def _norm_1(leaves: list[jax.Array]) -> jax.Array:
    return functools.reduce(operator.add, (jnp.sum(jnp.abs(widen(x))) for x in leaves))


def _norm_inf(leaves: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.maximum, (jnp.max(jnp.abs(widen(x)), initial=0.0) for x in leaves))


def max(tree: PyTree) -> jax.Array:
    """Return the largest element of all leaves.

    Args:
      tree: tree of arrays; leaves without elements are passed over.

    Returns:
      An array of shape (), in the promoted dtype of the leaves; ``-inf`` if there is no element.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.max({"a": jnp.array([1.0, 5.0]), "b": jnp.array(3.0)})
      Array(5., dtype=float32)
    """
    return _extremum(tree, jnp.max, jnp.maximum, -jnp.inf)


def min(tree: PyTree) -> jax.Array:
    """Return the smallest element of all leaves.

    Args:
      tree: tree of arrays; leaves without elements are passed over.

    Returns:
      An array of shape (), in the promoted dtype of the leaves; ``inf`` if there is no element.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.min({"a": jnp.array([1.0, 5.0]), "b": jnp.array(3.0)})
      Array(1., dtype=float32)
    """
    return _extremum(tree, jnp.min, jnp.minimum, jnp.inf)


def _extremum(
    tree: PyTree,
    of_leaf: Callable[[jax.Array], jax.Array],
    of_two: Callable[[jax.Array, jax.Array], jax.Array],
    of_nothing: float,
) -> jax.Array:
    extrema = [of_leaf(jnp.asarray(x)) for x in jax.tree.leaves(tree) if jnp.size(x)]
    return functools.reduce(of_two, extrema) if extrema else jnp.asarray(of_nothing)


def size(tree: PyTree) -> int:
    """Count the elements of all leaves.

    Args:
      tree: tree of arrays or `jax.ShapeDtypeStruct`.

    Returns:
      The count; 0 for an empty tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.size({"a": jnp.zeros((2, 3)), "b": jnp.zeros(())})
      7
    """
    shapes = (getattr(x, "shape", ()) for x in jax.tree.leaves(tree))
    return functools.reduce(operator.add, map(math.prod, shapes), 0)


def allclose(
    a: PyTree, b: PyTree, rtol: Numeric = 1e-5, atol: Numeric = 1e-8, equal_nan: bool = False
) -> jax.Array:
    """Tell whether two trees agree: ``|a_i - b_i| <= atol + rtol * |b_i|`` for all elements.

    Args:
      a: tree of arrays.
      b: tree of the same structure.
      rtol: relative tolerance.
      atol: absolute tolerance.
      equal_nan: whether NaN equals NaN.

    Returns:
      A boolean array of shape (); True for empty trees.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> bool(tree.allclose({"a": jnp.array(1.0)}, {"a": jnp.array(1.000001)}))
      True
    """
    agree = map_leaves(lambda x, y: jnp.allclose(x, y, rtol, atol, equal_nan), a, b)
    return functools.reduce(jnp.logical_and, jax.tree.leaves(agree), jnp.asarray(True))


def _wide_enough(*arrays: Numeric) -> jnp.dtype | None:
    """The dtype to sum in, if not the arrays' own: float32 for floats narrower than that."""
    dtype = jnp.result_type(*arrays)
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.promote_types(dtype, jnp.float32)
    return None


def _narrow_like(total: jax.Array, leaves: list[Numeric]) -> jax.Array:
    """``total`` in the promoted dtype of the leaves if that is a narrow floating dtype."""
    dtype = jnp.result_type(*leaves)
    return total.astype(dtype) if jnp.issubdtype(dtype, jnp.floating) else total


def _reduce_in_pairs(
    f: Callable[[jax.Array, jax.Array], jax.Array], values: list[jax.Array]
) -> jax.Array:
    while len(values) > 1:
        pairs = [f(x, y) for x, y in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(values) & ~1 :]
    return values[0]
