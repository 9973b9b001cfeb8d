"""Random trees and random keys for trees."""

from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp

from grad_core.tree._casting import dtype_of
from grad_core.tree._map import map_leaves
from grad_core.types import PyTree, Tree

if TYPE_CHECKING:
    from jax.typing import DTypeLike


class Sampler(Protocol):
    """``sampler(key, shape, dtype) -> array``, such as `jax.random.normal`."""

    def __call__(
        self, key: jax.Array, shape: tuple[int, ...], dtype: "DTypeLike", /
    ) -> jax.Array: ...


def split_key_like(rng_key: jax.Array, target_tree: Tree) -> Tree:
    """Split a random key into one key for every leaf of a tree.

    Args:
      rng_key: a random key, of either kind that JAX has.
      target_tree: the tree; only its structure counts.

    Returns:
      A tree of keys.

    Example:
      >>> import jax
      >>> from grad_core import tree
      >>> keys = tree.split_key_like(jax.random.key(0), {"a": 1.0, "b": 2.0})
      >>> sorted(keys), keys["a"].shape
      (['a', 'b'], ())
    """
    leaves, treedef = jax.tree.flatten(target_tree)
    keys: Tree = jax.tree.unflatten(treedef, list(jax.random.split(rng_key, len(leaves))))
    return keys


def random_like(
    rng_key: jax.Array,
    target_tree: Tree,
    sampler: Sampler = jax.random.normal,
    dtype: "DTypeLike | None" = None,
) -> Tree:
    """Draw a random tree, every leaf from its own key.

    Args:
      rng_key: a random key, split by `split_key_like`.
      target_tree: tree of arrays or `jax.ShapeDtypeStruct`, for structure, shapes and dtypes.
      sampler: called as ``sampler(key, shape, dtype)`` for each leaf.
      dtype: dtype of all leaves, if not their own.

    Returns:
      The samples.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core import tree
      >>> sample = tree.random_like(jax.random.key(0), {"a": jnp.zeros((2, 3))})
      >>> sample["a"].shape
      (2, 3)
    """

    def sample(leaf: object, key: jax.Array) -> jax.Array:
        shape = getattr(leaf, "shape", ())
        return sampler(key, shape, dtype_of(leaf) if dtype is None else dtype)

    return map_leaves(sample, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Tree) -> Tree:
    """Replace typed random keys by the integers they consist of.

    Args:
      input_tree: any tree.

    Returns:
      The same tree with `jax.random.key_data` in the place of keys, for use with code, such as
      checkpointing, that knows plain arrays only.

    Example:
      >>> import jax
      >>> from grad_core import tree
      >>> tree.unwrap_random_key_data({"key": jax.random.key(7), "lr": 0.1})
      {'key': Array([0, 7], dtype=uint32), 'lr': 0.1}
    """

    def unwrap(x: PyTree) -> PyTree:
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key_data(x)
        return x

    return map_leaves(unwrap, input_tree)
