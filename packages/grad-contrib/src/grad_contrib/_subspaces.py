"""Matrices among parameters, and what of them an optimizer sees in a subspace of low rank."""

import math
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp

from grad_contrib._matrices import MuonDimensionNumbers, axes_of
from grad_contrib._placement import placed, sharding_by, spec_of
from grad_core import widen, zeros_like

Side: TypeAlias = Literal["longer", "shorter"]
_PRECISION = jax.lax.Precision.HIGHEST  # a TPU would round to bfloat16


class Subspace:
    """What is seen of a matrix: sums of rows, P* X, or of columns, X P.

    Attributes:
      of_rows: Whether it is sums of rows.
      rank: How many.
    """

    def __init__(self, shape: tuple[int, ...], rank: int, side: Side) -> None:
        rows, columns = shape
        self.of_rows = (rows >= columns) == (side == "longer")
        self.rank = min(rank, rows, columns)

    def projector(self, x: jax.Array, last: jax.Array) -> jax.Array:
        """The first singular vectors of a matrix, as columns, each on the side of the last one.

        It stays the last one where the matrix is zero, or not finite.
        """
        row, column = spec_of(x)
        x = placed(x, (None, None))
        largest = jnp.max(jnp.abs(x))
        is_usable = (largest > 0) & jnp.isfinite(largest)
        # Some backends square the numbers.
        x = jnp.where(is_usable, x / jnp.where(is_usable, largest, 1), 0)
        left, _, right = jnp.linalg.svd(x, full_matrices=False)
        vectors = (left if self.of_rows else jnp.conj(right).T)[:, : self.rank]
        vectors = placed(vectors, (row if self.of_rows else column, None))
        # Signs, or phases, are free; those that turn over would turn the moments over.
        side = jnp.sign(jnp.sum(jnp.conj(vectors) * last, axis=0))
        return jnp.where(is_usable, jnp.where(side == 0, 1, side) * vectors, last)

    def project(self, x: jax.Array, projector: jax.Array) -> jax.Array:
        """What is seen of a matrix, in float32 at least."""
        p, (row, column) = widen(projector), spec_of(x)
        if self.of_rows:
            return _einsum("mr,mn->rn", jnp.conj(p), widen(x), (None, column))
        return _einsum("nr,mn->mr", p, widen(x), (row, None))

    def lift(self, u: jax.Array, projector: jax.Array, like: jax.Array) -> jax.Array:
        """What that is as a matrix, sharded like another."""
        p, u = widen(projector), widen(u)
        if self.of_rows:
            return _einsum("mr,rn->mn", p, u, spec_of(like))
        return _einsum("nr,mr->mn", jnp.conj(p), u, spec_of(like))

    def first_projector(self, x: Any) -> jax.Array:
        """Zeros of the shape of a projector."""
        return _narrowed(x, 1, self.rank) if self.of_rows else _narrowed(x, 0, self.rank).T

    def first_seen(self, x: Any) -> jax.Array:
        """Zeros of the shape of what is seen."""
        return _narrowed(x, 0 if self.of_rows else 1, self.rank)


class Matrix:
    """How an array is a matrix, and what of it is seen."""

    def __init__(
        self, shape: tuple[int, ...], number: MuonDimensionNumbers, rank: int, side: Side
    ) -> None:
        _, rows, columns = axes_of(len(shape), number)
        self.axes = rows + columns
        self.alone = [side[0] for side in (rows, columns) if len(side) == 1]
        self.moved = tuple(shape[a] for a in self.axes)
        self.shape = math.prod(shape[a] for a in rows), math.prod(shape[a] for a in columns)
        self.space = Subspace(self.shape, rank, side)

    def of(self, x: Any) -> Any:
        """The matrix of an array, or its shape."""
        if isinstance(x, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(self.shape, x.dtype)  # type: ignore[no-untyped-call]
        x = jnp.asarray(x)
        # Axes that are joined are gathered first.
        spec = [each if i in self.alone else None for i, each in enumerate(spec_of(x))]
        return placed(x, spec).transpose(self.axes).reshape(self.shape)

    def first_seen(self, x: Any) -> jax.Array:
        """Zeros of the shape of what is seen of an array."""
        return self.space.first_seen(self.of(x))

    def project(self, x: jax.Array, projector: jax.Array) -> jax.Array:
        """What is seen of an array."""
        return self.space.project(self.of(x), projector)

    def lift(self, u: jax.Array, projector: jax.Array, scale: Any, like: jax.Array) -> jax.Array:
        """A multiple of what that is as an array, in the dtype and sharding of another."""
        matrix = self.space.lift(u, projector, self.of(like))
        matrix = jnp.asarray(scale, matrix.real.dtype) * matrix
        order = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        x = matrix.reshape(self.moved).transpose(order)
        return placed(x.astype(jnp.result_type(like)), spec_of(like))


def _narrowed(x: Any, axis: int, size: int) -> jax.Array:
    """Zeros like a matrix, sharded like it, but for the size of an axis."""
    shape = tuple(size if i == axis else n for i, n in enumerate(x.shape))
    if isinstance(x, jax.ShapeDtypeStruct):
        return jnp.zeros(shape, x.dtype)
    return jnp.broadcast_to(jnp.sum(zeros_like(x), axis, keepdims=True), shape)


def _einsum(subscripts: str, p: jax.Array, x: jax.Array, spec: Any) -> jax.Array:
    sharding = sharding_by(p, spec)
    return jnp.einsum(subscripts, p, x, precision=_PRECISION, out_sharding=sharding)
