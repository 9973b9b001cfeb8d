"""The leaves that have an update, as one list of arrays: `Part`; and vectors made of such lists."""

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import Updates, structure, tree
from grad_core.rules import in_compute_precision

Arrays: TypeAlias = list[jax.Array]


class Part:
    """The leaves that have an update, in trees like the updates."""

    def __init__(self, updates: Updates) -> None:
        leaves, self._treedef = structure.flatten(updates)
        self._there = [i for i, g in enumerate(leaves) if not structure.means_no_update(g)]

    def arrays(self, like: Any) -> Arrays:
        """The leaves of a tree that are in the part."""
        leaves = self._treedef.flatten_up_to(like)
        return [jnp.asarray(leaves[i]) for i in self._there]

    def filled(self, like: Any, arrays: Arrays) -> Any:
        """The tree with other leaves in the part, in the dtypes it had."""
        leaves = self._treedef.flatten_up_to(like)
        for i, x in zip(self._there, arrays, strict=True):
            leaves[i] = x.astype(jnp.result_type(leaves[i]))
        return self._treedef.unflatten(leaves)


def wide(arrays: Arrays) -> Arrays:
    """The arrays in compute precision."""
    return [in_compute_precision(x) for x in arrays]


def add(a: Arrays, factor: jax.Array, b: Arrays) -> Arrays:
    """The sum a + factor b, in the dtypes of a."""
    return [(x + factor * z).astype(x.dtype) for x, z in zip(a, b, strict=True)]


def inner(a: Arrays, b: Arrays) -> jax.Array:
    """The inner product of vectors of reals, of which a complex number is two."""
    return jnp.real(tree.vdot(wide(a), wide(b)))
