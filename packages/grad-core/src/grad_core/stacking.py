"""Many small arrays as few large ones: which leaves of a tree go together, how to join and cut.

A program of a thousand small arrays takes XLA long to compile and long to run. Where leaves of one
shape are stacked, it is a program of a few arrays; what is left is to join them and to cut the
result, and on a CPU each distinct slice of an array would be a function of its own to compile. So
there joining and cutting are told in steps of a few arrays, all alike, which are compiled once.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from grad_core import structure

__all__ = ["concatenate", "cut", "join", "split"]

FAN_IN = 8
BLOCK = 8


class Layout:
    """Which leaves of a tree are stacked, by their paths, shapes, dtypes and shardings.

    Args:
      paths: The paths of the leaves.
      forms: An array, or a shape, for each leaf; None where there is none.
      max_size: The number of elements of the largest leaf that is stacked.
    """

    def __init__(self, paths: Sequence[str], forms: Sequence[Any], max_size: int) -> None:
        alike: dict[Any, list[int]] = {}
        for i, x in enumerate(forms):
            if structure.is_array(x):
                is_small = math.prod(jnp.shape(x)) <= max_size
                alike.setdefault(_form(x) if is_small else i, []).append(i)
        stacks = {_name(form, len(i)): i for form, i in alike.items() if len(i) > 1}
        alone = {paths[i[0]]: i for i in alike.values() if len(i) == 1}
        self.members = {**alone, **stacks}
        self.stacks = frozenset(stacks)

    def pack(self, rows: Sequence[Any]) -> dict[str, Any]:
        """By name, stacks of what belongs to the leaves, or what belongs to a leaf that is alone.

        Args:
          rows: For each leaf a tree of arrays, of the same structure for all.
        """
        return {name: self._packed(name, [rows[i] for i in self.members[name]]) for name in self}

    def _packed(self, name: str, rows: Sequence[Any]) -> Any:
        return join(rows) if name in self.stacks else rows[0]

    def unpack(self, packed: dict[str, Any]) -> dict[int, Any]:
        """The arrays by the indices of their leaves."""
        found: dict[int, Any] = {}
        for name, members in self.members.items():
            arrays = cut(packed[name]) if name in self.stacks else [packed[name]]
            found |= zip(members, arrays, strict=True)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)


def _form(x: Any) -> tuple[Any, ...]:
    """What leaves have in common that can be stacked."""
    sharding = getattr(jax.typeof(x), "sharding", None)  # tells something on explicit meshes only
    return (*jnp.shape(x),), jnp.result_type(x), getattr(sharding, "spec", None)


def _name(form: tuple[Any, ...], size: int) -> str:
    shape, dtype, spec = form
    placed = f" {spec}" if spec is not None and any(spec) else ""
    return f"{size} x {dtype}[{','.join(map(str, shape))}]{placed}"


def join(rows: Sequence[Any]) -> Any:
    """Trees of arrays, alike, as one tree of arrays stacked along a new first axis."""
    if not _compiles_pieces(rows[0]):
        return _stacked(rows)
    parts = [_shared(_stack, few) for few in _chunks(rows, FAN_IN)]
    while len(parts) > 1:
        parts = [_shared(_concatenate, few) for few in _chunks(parts, FAN_IN)]
    return parts[0]


def _stacked(rows: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.stack(x), *rows)


def _concatenated(stacks: Sequence[Any]) -> Any:
    """Stacks one after the other; of the same length in one step that XLA knows from leaves."""

    def one(*x: jax.Array) -> jax.Array:
        if len({each.shape for each in x}) > 1:
            return jnp.concatenate(x)
        return jnp.stack(x).reshape(-1, *x[0].shape[1:])

    return jax.tree.map(one, *stacks)


def cut(stack: jax.Array) -> list[jax.Array]:
    """The arrays that are stacked along the first axis."""
    if not _compiles_pieces(stack):
        return list(jnp.unstack(stack))
    pieces: list[jax.Array] = []
    start = _unknown_zero(stack)
    while len(pieces) < len(stack):
        size = min(BLOCK, len(stack) - len(pieces))
        few, start = _shared(_block, stack, start, size)
        pieces += few
    return pieces


def concatenate(vectors: Sequence[jax.Array]) -> jax.Array:
    """Vectors of one dtype as one."""
    if not _compiles_pieces(vectors):
        return jnp.concatenate(vectors)
    while len(vectors) > 1:
        vectors = [_shared(_concatenate, few) for few in _chunks(vectors, FAN_IN)]
    return vectors[0]


def split(vector: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """A vector cut into vectors of these sizes."""
    if not vector.size or not _compiles_pieces(vector):
        return list(jax.lax.split(vector, tuple(sizes)))
    pieces: list[jax.Array] = []
    start = _unknown_zero(vector)
    for few in _chunks(sizes, BLOCK):
        these, start = _shared(_slices, vector, start, tuple(few))
        pieces += these
    return pieces


def _chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[i : i + size] for i in range(0, len(rows), size))


def _compiles_pieces(tree: Any) -> bool:
    """Whether the compiler makes a function of each operation, as XLA does for CPUs."""
    kinds = {kind for x in jax.tree.leaves(tree) for kind in jax.typeof(x).sharding.mesh.axis_types}
    return jax.default_backend() == "cpu" and AxisType.Explicit not in kinds


def _shared(fn: Any, *args: Any) -> Any:
    """A call that stays a call, so that what it does is compiled once for all calls like it."""
    from jax.experimental.xla_metadata import set_xla_metadata  # importing jax does not bring it

    with set_xla_metadata(inlineable="false"):  # type: ignore[no-untyped-call]
        return fn(*args)


_stack = jax.jit(_stacked)
_concatenate = jax.jit(_concatenated)


def _cut_block(stack: jax.Array, start: jax.Array, size: int) -> tuple[list[jax.Array], jax.Array]:
    block = jax.lax.dynamic_slice_in_dim(stack, start, size)
    return list(jnp.unstack(block)), start + size


_block = jax.jit(_cut_block, static_argnums=2)


def _split_few(
    vector: jax.Array, start: jax.Array, sizes: tuple[int, ...]
) -> tuple[list[jax.Array], jax.Array]:
    total = sum(sizes)
    few = jax.lax.dynamic_slice_in_dim(vector, start, total)
    return list(jax.lax.split(few, sizes)), start + total


_slices = jax.jit(_split_few, static_argnums=2)


def _unknown_zero(x: jax.Array) -> jax.Array:
    """0, in a way that the compiler does not see through: or all blocks would differ again."""
    return jnp.right_shift(jnp.isnan(jnp.ravel(x)[0]).astype(jnp.int32), 1)
