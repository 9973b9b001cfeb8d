"""One vector for a whole tree: `flatten`."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from grad_core import (
    GradientTransformation,
    OptState,
    Params,
    TreeRule,
    Updates,
    example,
    rule,
    structure,
    trace,
    zeros_like,
)
from grad_core.sharing import dispatched_once
from grad_core.stacking import concatenate, split
from grad_wrappers._leaves import is_inexact, rows_of


@example(trace(0.9))
@rule
def flatten(inner: GradientTransformation) -> TreeRule:
    """Shows all parameters to a transformation as one vector.

    The leaves are raveled and concatenated in the order of `jax.tree.leaves`; updates are cut into
    leaves again. Elementwise transformations make the same numbers, in one large computation in
    place of many small ones; norms are over all leaves. What depends on the shapes of leaves
    (factored moments, trust ratios, masks) sees one vector.

    The vector has the dtype that all leaves promote to, and updates go back in the dtypes they had.
    A leaf whose update is None is zeros in the vector; its shape is the parameter's, so that
    ``update`` must be given the parameters then. On meshes with explicit axes all leaves are
    gathered first: there the vector and its statistics are whole on every device.

    Costs a copy of parameters and updates while ``update`` runs.

    Args:
      inner: The transformation of the vector.

    Returns:
      A transformation whose state is the inner one's, for a vector.

    Raises:
      TreeMismatchError: By ``update``, if updates and parameters differ in structure or shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import trace
      >>> from grad_wrappers import flatten
      >>> tx = flatten(trace(0.9))
      >>> params = {"a": jnp.ones((2, 2)), "b": jnp.zeros(3)}
      >>> tx.init(params).trace.shape
      (7,)
    """

    def init(params: Params) -> OptState:
        structure.check_inexact(params, "params")
        leaves = jax.tree.leaves(params)
        is_shape = any(isinstance(p, jax.ShapeDtypeStruct) for p in leaves)
        return inner.init(_joined([zeros_like(p) for p in leaves] if is_shape else leaves))

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra_args: object
    ) -> tuple[Updates, OptState]:
        structure.check_inexact(updates, "updates")
        rows = [*rows_of(updates, updates if params is None else params)]
        rows = [row for row in rows if structure.is_array(row[1])]
        given = [_or_zeros(u, p) for u, p in rows]
        beside = None if params is None else _joined([p for _, p in rows])
        vector: Any
        vector, state = inner.update(_joined(given), state, beside, **extra_args)
        pieces = iter(_cut(vector, given))
        return _put_back(updates, params, pieces), state

    return TreeRule(update, init, takes_params=True, inner_state=lambda state: state)


def _or_zeros(u: Any, p: Any) -> Any:
    """The update, or zeros where there is none."""
    if not structure.means_no_update(u):
        return u
    return zeros_like(p) if is_inexact(p) else jnp.zeros(jnp.shape(p))


def _put_back(updates: Updates, params: Params | None, pieces: Iterator[jax.Array]) -> Updates:
    """The pieces in place of the updates; one for each parameter, used only where there was one."""
    leaves, treedef = structure.flatten(updates)
    beside = leaves if params is None else treedef.flatten_up_to(params)
    found = [next(pieces) if structure.is_array(p) else None for p in beside]
    new = [u if structure.means_no_update(u) else x for u, x in zip(leaves, found, strict=True)]
    return treedef.unflatten(new)


@dispatched_once
def _joined(leaves: Sequence[Any]) -> jax.Array:
    """One vector of all leaves, in the dtype that they promote to."""
    if not leaves:
        return jnp.zeros(0)
    dtype = jnp.result_type(*leaves)
    return concatenate([jnp.ravel(_gathered(jnp.asarray(x, dtype))) for x in leaves])


@dispatched_once
def _cut(vector: jax.Array, like: Sequence[Any]) -> list[jax.Array]:
    """Pieces of a vector in the shapes, dtypes and shardings of leaves."""
    pieces = split(vector, [math.prod(jnp.shape(x)) for x in like])
    return [_in_form_of(x, piece) for x, piece in zip(like, pieces, strict=True)]


def _in_form_of(like: Any, piece: jax.Array) -> jax.Array:
    dtype = jnp.result_type(like)
    real = piece if jnp.issubdtype(dtype, jnp.complexfloating) else jnp.real(piece)
    leaf = real.reshape(jnp.shape(like)).astype(dtype)
    if not _is_explicit(like):
        return leaf
    return jax.sharding.reshard(leaf, jax.typeof(like).sharding)  # type: ignore[no-any-return,no-untyped-call]


def _gathered(x: jax.Array) -> jax.Array:
    """The array whole on every device, where the mesh has explicit axes."""
    return jax.sharding.reshard(x, PartitionSpec()) if _is_explicit(x) else x  # type: ignore[no-untyped-call]


def _is_explicit(x: Any) -> bool:
    return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types
