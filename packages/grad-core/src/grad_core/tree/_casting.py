"""Dtypes of trees, and constant trees shaped like other trees."""

from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.tree._map import map_leaves
from grad_core.types import PyTree, Tree

if TYPE_CHECKING:
    from jax.typing import ArrayLike, DTypeLike

_Dtype = np.dtype[Any]


def cast(tree: Tree, dtype: "DTypeLike | None") -> Tree:
    """Convert every leaf to a dtype.

    Args:
      tree: tree of arrays.
      dtype: the dtype, or None to change nothing.

    Returns:
      The converted tree. From complex to real the real part is taken.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.cast({"a": jnp.array(1.0)}, jnp.bfloat16)
      {'a': Array(1, dtype=bfloat16)}
    """
    if dtype is None:
        return tree
    return map_leaves(lambda x: _cast_leaf(x, dtype), tree)


def cast_like(tree: Tree, other_tree: PyTree) -> Tree:
    """Convert every leaf to the dtype of the corresponding leaf of another tree.

    Args:
      tree: tree of arrays.
      other_tree: tree of the same structure.

    Returns:
      The converted tree.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.cast_like({"a": jnp.array(1.0)}, {"a": jnp.array(3)})
      {'a': Array(1, dtype=int32)}
    """
    return map_leaves(lambda x, like: _cast_leaf(x, dtype_of(like)), tree, other_tree)


def _cast_leaf(x: "ArrayLike", dtype: "DTypeLike") -> "ArrayLike":
    if jnp.iscomplexobj(x) and not jnp.issubdtype(dtype, jnp.complexfloating):
        x = jnp.real(x)
    if isinstance(x, np.ndarray):
        return x.astype(dtype)
    return jnp.asarray(x).astype(dtype)


def dtype_of(x: object) -> _Dtype:
    """The dtype that JAX gives ``x``, which may be a number or a `jax.ShapeDtypeStruct`."""
    own = getattr(x, "dtype", None)
    return jnp.result_type(x) if own is None else jax.dtypes.canonicalize_dtype(own)


def dtype(
    tree: PyTree, mixed_dtype_handler: Literal["promote", "highest", "lowest"] | None = None
) -> _Dtype:
    """Return the dtype that the leaves of a tree have in common.

    Args:
      tree: tree of arrays or `jax.ShapeDtypeStruct`.
      mixed_dtype_handler: what to return if the leaves differ. None: nothing, it is an error.
        ``"promote"``: the dtype all can be converted to. ``"highest"``, ``"lowest"``: the dtype of
        a leaf that all other leaves' dtypes promote to, or that promotes to all others.

    Returns:
      The dtype; the default float dtype for an empty tree.

    Raises:
      ValueError: the leaves' dtypes differ and ``mixed_dtype_handler`` is None; or neither of
        two dtypes promotes to the other (float16 and bfloat16); or the handler is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> params = {"a": jnp.zeros(2, jnp.bfloat16), "b": jnp.zeros(2, jnp.float32)}
      >>> tree.dtype(params, "lowest")
      dtype(bfloat16)
    """
    if mixed_dtype_handler not in (None, "promote", "highest", "lowest"):
        raise ValueError(
            "tree.dtype: mixed_dtype_handler must be None, 'promote', 'highest' or 'lowest', "
            f"got {mixed_dtype_handler!r}."
        )
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return dtype_of(0.0)
    if mixed_dtype_handler is None:
        return _only_dtype(tree)
    result = dtype_of(leaves[0])
    for leaf in leaves[1:]:
        result = _combine(result, dtype_of(leaf), mixed_dtype_handler)
    return result


def _combine(a: _Dtype, b: _Dtype, handler: str) -> _Dtype:
    promoted = jnp.promote_types(a, b)
    if handler == "promote":
        return promoted
    if promoted not in (a, b):
        raise ValueError(
            f"tree.dtype: cannot tell which of {a} and {b} is {handler}, neither promotes to the "
            "other; use mixed_dtype_handler='promote'."
        )
    return promoted if handler == "highest" else (a if promoted == b else b)


def _only_dtype(tree: PyTree) -> _Dtype:
    (first_path, first), *others = jax.tree_util.tree_leaves_with_path(tree)
    expected = dtype_of(first)
    for path, leaf in others:
        if dtype_of(leaf) != expected:
            at, first_at = jax.tree_util.keystr(path), jax.tree_util.keystr(first_path)
            raise ValueError(
                f"tree.dtype: leaves have different dtypes, {expected} at {first_at} and "
                f"{dtype_of(leaf)} at {at}; choose one with mixed_dtype_handler."
            )
    return expected


def zeros_like(tree: Tree, dtype: "DTypeLike | None" = None) -> Tree:
    """Return a tree of zeros.

    Args:
      tree: tree of arrays or `jax.ShapeDtypeStruct`, for structure, shapes and dtypes.
      dtype: dtype of all leaves, if not their own.

    Returns:
      The zeros.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.zeros_like({"a": jnp.array([1.0, 2.0])})
      {'a': Array([0., 0.], dtype=float32)}
    """
    return map_leaves(lambda x: jnp.zeros_like(x, dtype=dtype), tree)


def ones_like(tree: Tree, dtype: "DTypeLike | None" = None) -> Tree:
    """Return a tree of ones.

    Args:
      tree: tree of arrays or `jax.ShapeDtypeStruct`, for structure, shapes and dtypes.
      dtype: dtype of all leaves, if not their own.

    Returns:
      The ones.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.ones_like({"a": jnp.array([1.0, 2.0])})
      {'a': Array([1., 1.], dtype=float32)}
    """
    return map_leaves(lambda x: jnp.ones_like(x, dtype=dtype), tree)


def full_like(tree: Tree, fill_value: "ArrayLike", dtype: "DTypeLike | None" = None) -> Tree:
    """Return a tree filled with one value.

    Args:
      tree: tree of arrays or `jax.ShapeDtypeStruct`, for structure, shapes and dtypes.
      fill_value: number, or array that broadcasts to every leaf's shape.
      dtype: dtype of all leaves, if not their own.

    Returns:
      The filled tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.full_like({"a": jnp.array([1.0, 2.0])}, 7)
      {'a': Array([7., 7.], dtype=float32)}
    """
    return map_leaves(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def batch_shape(tree: Tree, shape: tuple[int, ...] = ()) -> Tree:
    """Repeat every leaf along new leading axes.

    Args:
      tree: tree of arrays.
      shape: sizes of the new axes.

    Returns:
      A tree whose leaves have the shapes ``shape + leaf.shape``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import tree
      >>> tree.batch_shape({"a": jnp.array([1.0, 2.0])}, (3,))["a"].shape
      (3, 2)
    """
    return map_leaves(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)
