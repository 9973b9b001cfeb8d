"""Arrays whose shards are in several processes, put together where the processes meet."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from grad_testing.checking import require

__all__ = ["LocalShards", "assemble", "local_shards"]


@dataclasses.dataclass(frozen=True)
class LocalShards:
    """What one process has of an array.

    Attributes:
      shape: The shape of the whole array.
      dtype: Its dtype.
      shards: The shards on the devices of the process, each with its index in the whole array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    shards: list[tuple[Any, np.ndarray]]


def local_shards(x: Any) -> LocalShards:
    """What this process has of an array; of anything that is no array of JAX, all.

    Args:
      x: The array.

    Returns:
      Its local shards, which can be pickled.
    """
    if isinstance(x, jax.Array):
        shards = [(s.index, np.asarray(s.data)) for s in x.addressable_shards]
        return LocalShards(x.shape, x.dtype, shards)
    x = np.asarray(x)
    return LocalShards(x.shape, x.dtype, [(..., x)])


def assemble(trees: Sequence[Any]) -> Any:
    """Puts arrays together from the shards that processes have of them.

    Args:
      trees: The tree of `LocalShards` of each process.

    Returns:
      The tree, of NumPy arrays.

    Raises:
      AssertionError: If the trees differ, an element is in no process, or two copies of an element
        differ in any bit.

    Example:
      >>> from grad_testing.shards import assemble, local_shards
      >>> assemble([{"a": local_shards(1.5)}, {"a": local_shards(1.5)}])
      {'a': array(1.5)}
    """
    found: list[Any] = [jax.tree.structure(tree) for tree in trees]
    for i, structure in enumerate(found):
        require(structure == found[0], f"process {i} has {structure}, but process 0 {found[0]}")
    return jax.tree_util.tree_map_with_path(_assemble_leaf, *trees)


def _assemble_leaf(path: Any, *parts: LocalShards) -> np.ndarray:
    what = f"result{jax.tree_util.keystr(path)}"
    shape, dtype = parts[0].shape, parts[0].dtype
    whole, known = np.zeros(shape, dtype), np.zeros(shape, bool)
    for i, part in enumerate(parts):
        require(
            (part.shape, part.dtype) == (shape, dtype),
            f"{what} is {part.dtype}{part.shape} in process {i}, but {dtype}{shape} in process 0",
        )
        for index, shard in part.shards:
            seen = known[index]
            before, now = whole[index][seen], shard[seen]
            require(
                before.tobytes() == now.tobytes(),
                f"{what} has copies that differ: {before}, and in process {i} {now}",
            )
            whole[index], known[index] = shard, True
    require(known.all(), f"{what} is not whole: some of it is in no process")
    return whole
