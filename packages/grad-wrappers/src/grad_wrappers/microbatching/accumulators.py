"""How the values of microbatches become one value."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import PyTree
from grad_wrappers.microbatching.splitting import BatchError, Steps


class AccumulationType(enum.Enum):
    """What becomes of the values x_0, ..., x_(n-1) of n microbatches.

    Attributes:
      MEAN: (x_0 + ... + x_(n-1)) / n.
      SUM: x_0 + ... + x_(n-1).
      RUNNING_MEAN: The same as `MEAN`, by m' = m + (x_i - m) / (i + 1), in which nothing overflows.
      CONCAT: The rows of all values along the first axis, in the order of the batch's rows; values
        of shape () become the rows of an array of shape (n,).
    """

    MEAN = 1
    SUM = 2
    RUNNING_MEAN = 3
    CONCAT = 4


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """Four functions that accumulate the values of microbatches.

    Args:
      init: ``init(shapes) -> carry``, from the `jax.ShapeDtypeStruct` of one microbatch's value.
      update: ``update(carry, value, i) -> carry``, for microbatch i = 0, 1, ...
      finalize: ``finalize(carry) -> result``.
      aggregate: ``aggregate(values) -> value``, from values of single rows, stacked along the first
        axis, to the value of a microbatch. Only `micro_vmap` and `micro_grad` call it.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.microbatching import Accumulator, microbatch
      >>> largest = Accumulator(
      ...     init=lambda x: jnp.full(x.shape, -jnp.inf),
      ...     update=lambda carry, value, i: jnp.maximum(carry, value),
      ...     finalize=lambda carry: carry,
      ...     aggregate=lambda values: values.max(axis=0),
      ... )
      >>> microbatch(jnp.max, 0, 2, largest)(jnp.array([3.0, 1.0, 4.0, 1.0]))
      Array(4., dtype=float32)
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], Any]
    finalize: Callable[[Any], Any]
    aggregate: Callable[[Any], Any]


def accumulators_for(
    owner: str, accumulator: PyTree, shapes: PyTree, steps: Steps, *, per_row: bool
) -> tuple[list[Accumulator], Any]:
    """The accumulators of all parts of a value, and the structure that splits it into the parts.

    An `AccumulationType` has one accumulator for each leaf; users' have whole subtrees.

    Args:
      owner: The function that was called, for errors.
      accumulator: What the user gave: a prefix of the value's tree.
      shapes: The value of one microbatch, as shapes and dtypes.
      steps: The microbatches there are.
      per_row: Whether the value has an axis of rows, for `Accumulator.aggregate` to remove.

    Returns:
      Accumulators, and the structure of a tree that has them as leaves.
    """
    treedef: Any = jax.tree.structure(accumulator)
    kinds = treedef.flatten_up_to(accumulator)
    try:
        parts = treedef.flatten_up_to(shapes)
    except ValueError:
        raise BatchError(
            f"{owner}: accumulator must be a prefix of what the function returns, "
            f"{jax.tree.structure(shapes)}; got {accumulator}."
        ) from None

    def of_part(kind: Any, part: PyTree) -> PyTree:
        if isinstance(kind, Accumulator):
            return kind
        if isinstance(kind, AccumulationType):
            return jax.tree.map(lambda leaf: _of_leaf(owner, kind, leaf, steps, per_row), part)
        raise BatchError(
            f"{owner}: accumulator must be an AccumulationType, an Accumulator or a tree of them; "
            f"got {kind!r}."
        )

    tree = treedef.unflatten([of_part(kind, part) for kind, part in zip(kinds, parts, strict=True)])
    return jax.tree.leaves(tree), jax.tree.structure(tree)


def _of_leaf(
    owner: str, kind: AccumulationType, leaf: jax.ShapeDtypeStruct, steps: Steps, per_row: bool
) -> Accumulator:
    if kind is AccumulationType.CONCAT:
        return _concatenation(steps.total)
    dtype = leaf.dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        if per_row:  # integers have sums and means of the dtypes that NumPy gives them
            reduce = jnp.sum if kind is AccumulationType.SUM else jnp.mean
            dtype = jax.eval_shape(reduce, leaf).dtype
        elif kind is not AccumulationType.SUM:
            raise BatchError(
                f"{owner}: {kind.name} needs floating-point values, but the function returns "
                f"{dtype}; cast them, or use SUM."
            )
    if kind is AccumulationType.SUM:
        return _sum(dtype)
    if kind is AccumulationType.MEAN:
        return _mean(dtype, steps.run)
    return _running_mean(dtype)


def _wide(dtype: Any) -> Any:
    """The dtype to accumulate in: at least float32, in which sums of short floats are exact."""
    is_short = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if is_short else dtype


def _sum(dtype: Any) -> Accumulator:
    wide = _wide(dtype)
    return Accumulator(
        init=lambda x: jnp.zeros_like(x, wide),
        update=lambda total, x, i: total + x.astype(wide),
        finalize=lambda total: total.astype(dtype),
        aggregate=lambda xs: jnp.sum(xs, axis=0, dtype=wide),
    )


def _mean(dtype: Any, count: Any) -> Accumulator:
    wide = _wide(dtype)
    return dataclasses.replace(
        _sum(dtype),
        finalize=lambda total: (total / jnp.maximum(count, 1)).astype(dtype),
        aggregate=lambda xs: jnp.mean(xs, axis=0, dtype=wide),
    )


def _running_mean(dtype: Any) -> Accumulator:
    wide = _wide(dtype)
    return dataclasses.replace(
        _sum(dtype),
        # m + (x - m) / t, but x - m could overflow.
        update=lambda mean, x, i: mean + (x.astype(wide) / (i + 1) - mean / (i + 1)),
        aggregate=lambda xs: jnp.sum(xs.astype(wide) / xs.shape[0], axis=0),
    )


def _concatenation(total: int) -> Accumulator:
    def init(x: jax.ShapeDtypeStruct) -> jax.Array:
        rows = jnp.expand_dims(jnp.atleast_1d(jnp.zeros_like(x)), 1)
        return jnp.broadcast_to(rows, (rows.shape[0], total, *rows.shape[2:]))

    def update(buffer: jax.Array, x: jax.Array, i: jax.Array) -> jax.Array:
        rows = x if x.ndim else x[None]
        updated: jax.Array = jax.lax.dynamic_update_index_in_dim(buffer, rows, i, axis=1)
        return updated

    def finalize(buffer: jax.Array) -> jax.Array:
        rows, _, *rest = buffer.shape
        return buffer.reshape(rows * total, *rest)

    return Accumulator(init, update, finalize, aggregate=lambda xs: xs)
