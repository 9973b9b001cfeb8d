"""Batches as microbatches: sizes and axes, and the errors if they do not fit."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import PyTree

Axes = int | Sequence[Any] | None
"""The axis of rows of each argument: one for all, or one each, or for each a tree of them."""


class BatchError(ValueError, TypeError, IndexError):
    """A batch, or its axes, cannot be split as was asked."""


class Steps(NamedTuple):
    """How many microbatches there are, and how many of them run: a number that may be traced."""

    total: int
    run: Any


def reshape_batch_axis(tree: PyTree, microbatch_size: int, axis: int = 0) -> PyTree:
    """Splits the rows of a batch into microbatches: axis of n * m rows to axes (n, m).

    Microbatch i of the n gets the rows i, i + n, ..., i + (m - 1) n. So a batch whose rows are
    sharded over devices stays sharded, along the second of the two axes.

    Args:
      tree: A tree of arrays.
      microbatch_size: m, the number of rows of a microbatch. It must divide the number of rows.
      axis: The axis of rows, in each array; negative numbers count from the end.

    Returns:
      The tree, with two axes in place of one.

    Raises:
      ValueError: If an array has no such axis, or `microbatch_size` does not divide it.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.microbatching import reshape_batch_axis
      >>> reshape_batch_axis(jnp.arange(6), 2)
      Array([[0, 3],
             [1, 4],
             [2, 5]], dtype=int32)
    """
    owner = "reshape_batch_axis"
    check_size(owner, microbatch_size)

    def split(path: Any, x: Any) -> Any:
        where = f"tree{jax.tree_util.keystr(path)}"
        a = _axis_of(owner, where, x, axis)
        n = _count(owner, x.shape[a], microbatch_size)
        return _rows_apart(x, a, n).swapaxes(a, a + 1)

    return jax.tree_util.tree_map_with_path(split, tree)


def _rows_apart(x: Any, axis: int, count: int) -> Any:
    """Axes (size, count) in place of one; no row moves in memory."""
    shape = x.shape
    return x.reshape(*shape[:axis], shape[axis] // count, count, *shape[axis + 1 :])


def check_size(owner: str, size: Any) -> None:
    """Raises unless a size of microbatches is a positive integer."""
    if not isinstance(size, int | np.integer) or isinstance(size, bool) or size < 1:
        raise BatchError(f"{owner}: microbatch_size must be an integer >= 1; got {size!r}.")


def _axis_of(owner: str, where: str, x: Any, axis: Any) -> int:
    """The axis of rows of a leaf, counted from the front."""
    if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
        raise BatchError(f"{owner}: the axis of {where} must be an integer; got {axis!r}.")
    if not hasattr(x, "reshape"):
        raise BatchError(f"{owner}: {where} must be an array, to have rows; got {x!r}.")
    if not -x.ndim <= axis < x.ndim:
        raise BatchError(f"{owner}: {where} has shape {x.shape}, and no axis {axis}.")
    ndim: int = x.ndim
    return int(axis) % ndim


def _count(owner: str, rows: int, size: int) -> int:
    """The number of microbatches."""
    if rows == 0:
        raise BatchError(f"{owner}: a batch without rows cannot be split.")
    if rows % size:
        raise BatchError(
            f"{owner}: microbatch_size={size} does not divide the {rows} rows of the batch; choose "
            "a divisor, or pad the batch."
        )
    return rows // size


class Batch:
    """The arguments of a call, those with rows taken apart.

    Args:
      owner: The function that was called, for errors.
      args: All positional arguments.
      kwargs: All keyword arguments.
      axes: For each argument that has rows, by position or name, its axis, or a tree of axes that
        is a prefix of the argument, with None where there are no rows.
      size: The number of rows of a microbatch; None for all.
    """

    def __init__(
        self,
        owner: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        axes: Mapping[Any, Any],
        size: int | None,
    ) -> None:
        self.owner = owner
        self.args = args
        self.kwargs = kwargs
        self.leaves: list[Any] = []
        self.axes: list[int | None] = []
        self.places = tuple(axes)
        given: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        values = [given[place] for place in self.places]
        self.treedef: Any = jax.tree.structure(values)
        for place, value in zip(self.places, values, strict=True):
            self._take_apart(f"argument {place!r}", value, axes[place])
        self.total = self._total(size)

    def _take_apart(self, name: str, value: PyTree, axis: PyTree) -> None:
        def is_none(x: object) -> bool:
            return x is None

        try:
            axes = jax.tree.broadcast(axis, value, is_leaf=is_none)
        except ValueError:
            raise BatchError(
                f"{self.owner}: in_axes for {name} must be a number, None, or a tree of them that "
                f"is a prefix of its {jax.tree.structure(value)}; got {axis!r}."
            ) from None
        paths = jax.tree_util.tree_flatten_with_path(value)[0]
        treedef: Any = jax.tree.structure(value)
        for (path, x), a in zip(paths, treedef.flatten_up_to(axes), strict=True):
            where = f"{name}{jax.tree_util.keystr(path)}"
            self.leaves.append(x)
            self.axes.append(None if a is None else _axis_of(self.owner, where, x, a))

    def _total(self, size: int | None) -> int:
        """The number of microbatches."""
        found = {x.shape[a] for x, a in zip(self.leaves, self.axes, strict=True) if a is not None}
        if not found:
            raise BatchError(
                f"{self.owner}: no argument has rows; say which do, by position, name and axis."
            )
        if len(found) > 1:
            raise BatchError(
                f"{self.owner}: all arguments must have equally many rows; got {sorted(found)}. "
                "Leave out those that are no batch, and say which axis the rows are."
            )
        (rows,) = found
        return _count(self.owner, rows, rows if size is None else size)

    def microbatch(self, i: Any) -> tuple[list[Any], dict[str, Any]]:
        """The arguments with the rows of microbatch i only."""

        def rows(x: Any, axis: int | None) -> Any:
            if axis is None:
                return x
            apart = _rows_apart(jnp.asarray(x), axis, self.total)
            return jax.lax.dynamic_index_in_dim(apart, i, axis + 1, keepdims=False)

        taken = [rows(x, axis) for x, axis in zip(self.leaves, self.axes, strict=True)]
        batch = dict(zip(self.places, self.treedef.unflatten(taken), strict=True))
        args = [batch.get(place, value) for place, value in enumerate(self.args)]
        return args, {name: batch.get(name, value) for name, value in self.kwargs.items()}

    def steps(self, num_real: Any) -> Steps:
        """How many microbatches run."""
        total = self.total
        if num_real is None:
            return Steps(total, total)
        if isinstance(num_real, int | np.integer) and not isinstance(num_real, bool):
            if not 0 <= num_real <= total:
                raise BatchError(
                    f"{self.owner}: num_real_microbatches must be in [0, {total}], the number of "
                    f"microbatches; got {num_real}."
                )
            return Steps(total, int(num_real))
        is_array = isinstance(num_real, jax.Array | np.ndarray)
        if not is_array or num_real.shape != () or not jnp.issubdtype(num_real.dtype, jnp.integer):
            raise BatchError(
                f"{self.owner}: num_real_microbatches must be an integer, or an array of one; got "
                f"{num_real!r}."
            )
        return Steps(total, jnp.clip(num_real, 0, total))
