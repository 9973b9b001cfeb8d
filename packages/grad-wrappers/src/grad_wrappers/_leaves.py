"""Updates beside parameters and statistics, leaf by leaf, with mismatches named by path."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import Params, PyTree, TreeMismatchError, Updates, structure

Rows = tuple[Any, ...]


def zero_count() -> jax.Array:
    """A count of 0, in a buffer of its own: states may be donated."""
    return jnp.zeros([], jnp.int32)


def is_inexact(p: Any) -> bool:
    """Whether a leaf is an array of real or complex floating-point numbers."""
    return jnp.issubdtype(getattr(p, "dtype", type(p)), jnp.inexact)


def is_low(p: Any) -> bool:
    """Whether a parameter is of a real dtype of 16 bits."""
    dtype = jnp.result_type(p)
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize == 2


def rounded(x: jax.Array, dtype: Any) -> jax.Array:
    """The number of a 16-bit `dtype` nearest to a float32 number x, as float32.

    Written as a pair of conversions, the compiler might leave it out.
    """
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    normal = jax.lax.reduce_precision(x, info.nexp, info.nmant)
    if info.nexp == 8:  # the exponents of float32
        return normal
    step = float(info.smallest_subnormal)
    return jnp.where(jnp.abs(x) < float(info.tiny), jnp.round(x / step) * step, normal)


def rows_of(updates: Updates, params: Params, **trees: PyTree) -> Iterator[Rows]:
    """For each leaf of the updates ``(update, parameter, *leaves of trees)``, absent ones too.

    Raises:
      TreeMismatchError: If a tree has another structure, or an update another shape than its
        parameter.
    """
    leaves, treedef = structure.flatten(updates)
    columns = [
        structure.flatten_like(updates, treedef, tree, ("updates", name))
        for name, tree in {"params": params, **trees}.items()
    ]
    for i, row in enumerate(zip(leaves, *columns, strict=True)):
        u, p = row[:2]
        if not structure.means_no_update(u) and jnp.shape(u) != _shape(p):
            path = structure.leaf_paths(updates)[i]
            raise TreeMismatchError(
                f"{structure.where('updates', path)} has shape {jnp.shape(u)}, but "
                f"{structure.where('params', path)} has shape {_shape(p)}; they must be equal."
            )
        yield row


def _shape(p: Any) -> Any:
    return jnp.shape(p) if structure.is_array(p) else None


def map_rows(
    fn: Callable[..., Rows],
    updates: Updates,
    params: Params,
    trees: Mapping[str, PyTree],
    *,
    where: Callable[[Any], bool] = is_inexact,
) -> tuple[Updates, ...]:
    """``fn(update, parameter, *leaves) -> (update, *leaves)`` at each leaf with an update.

    Leaves without one, and those whose parameter is not as `where` says, stay as they are.

    Returns:
      The updates, and each of the trees.
    """
    results = [
        (u, *rest) if structure.means_no_update(u) or not where(p) else fn(u, p, *rest)
        for u, p, *rest in rows_of(updates, params, **trees)
    ]
    treedef = structure.flatten(updates)[1]
    return tuple(treedef.unflatten([row[i] for row in results]) for i in range(1 + len(trees)))
