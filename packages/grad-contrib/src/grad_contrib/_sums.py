"""What rules share whose scalars depend on the statistics of all leaves.

A learning rate that estimates the distance to the solution needs a sum over all leaves of
something that each keeps of its own: its first parameter, or the sum of its gradients.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import (
    LearningRate,
    PyTree,
    Updates,
    abs_sq,
    widen,
    zeros_like,
)


def rows(updates: Updates, *trees: PyTree) -> Iterator[tuple[jax.Array, ...]]:
    """For each leaf that has an update: it, and its counterparts in `trees`, float32 at least."""
    leaves, treedef = _flatten(updates)
    columns = [treedef.flatten_up_to(tree) for tree in trees]
    for row in zip(leaves, *columns, strict=True):
        if row[0] is not None:
            yield tuple(widen(x) for x in row)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """The inner product of two arrays, Re sum conj(x) * y."""
    return jnp.sum(jnp.real(jnp.conj(x) * y))  # no matrix product: a TPU would round it to bfloat16


def total(terms: Iterable[jax.Array]) -> jax.Array:
    """The sum of numbers, one for each leaf; 0 if there are none."""
    return sum(terms, start=jnp.zeros([]))


def sq_norm(arrays: Iterable[jax.Array]) -> jax.Array:
    """The sum of all |x|^2; at most the largest number, since 0 times infinity is none."""
    squares = total(jnp.sum(abs_sq(widen(x))) for x in arrays)
    return jnp.minimum(squares, jnp.finfo(squares.dtype).max)  # type: ignore[no-untyped-call]


def rate_at(learning_rate: LearningRate, count: jax.Array) -> Any:
    """The value of a schedule at a count, or the number."""
    return learning_rate(count) if callable(learning_rate) else learning_rate


def wide_zeros(p: Any) -> jax.Array:
    """Zeros like a parameter, in float32 at least."""
    return zeros_like(p, jnp.promote_types(jnp.result_type(p), jnp.float32))


def _flatten(updates: Updates) -> tuple[list[Any], Any]:
    """Leaves and structure, None counted as a leaf."""
    return jax.tree.flatten(updates, is_leaf=lambda x: x is None)
