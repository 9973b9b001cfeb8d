"""What losses of a batch of embeddings share: checks, masks, and cosines of all pairs."""

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, boolean, floating, same_shape, widened
from grad_losses._vectors import unit


def embedding_matrices(
    loss: str, where: ArrayLike | None, **embeddings: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Arguments of shape [batch, features] to compute with, the mask [batch], the dtype to return.

    Examples that take no part become 0, so that whatever they were does not matter.
    """
    arrays = {name: floating(loss, name, value) for name, value in embeddings.items()}
    for name, array in arrays.items():
        if array.ndim != 2:
            raise ShapeError(
                f"{loss}: {name} must have shape [batch, features]; got shape {array.shape}. "
                "Flatten the features, and use jax.vmap over further axes of the batch."
            )
    same_shape(loss, **arrays)
    wide = [gathered(array) for array in widened(*arrays.values())]
    mask = _example_mask(loss, where, wide[0].shape[:1])
    return (
        [jnp.where(mask[:, None], array, 0) for array in wide],
        mask,
        jnp.result_type(*arrays.values()),
    )


def gathered(array: jax.Array) -> jax.Array:
    """The array whole on every device, if a mesh says so explicitly where its parts are.

    With losses of pairs of examples, JAX would ask which of the two axes stays sharded.
    """
    is_explicit = AxisType.Explicit in jax.typeof(array).sharding.mesh.axis_types
    return jax.sharding.reshard(array, PartitionSpec()) if is_explicit else array  # type: ignore[no-untyped-call]


def cosines(first: jax.Array, second: jax.Array) -> jax.Array:
    """The cosines of the angles between the rows of one matrix and the rows of another."""
    return matrix_product(unit(first), unit(second).T)


def matrix_product(first: jax.Array, second: jax.Array) -> jax.Array:
    """The product of two matrices, as exact as their dtype on every backend."""
    return jnp.matmul(first, second, precision=jax.lax.Precision.HIGHEST)


def _example_mask(loss: str, where: ArrayLike | None, shape: tuple[int, ...]) -> jax.Array:
    if where is None:
        return jnp.ones(shape, bool)
    mask = boolean(loss, "where", where)
    if mask.shape != shape:
        raise ShapeError(
            f"{loss}: where of shape {mask.shape} must have one value per example, shape {shape}."
        )
    return gathered(mask)
