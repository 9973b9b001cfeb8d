"""Sketches of a symmetric operator, and their bases with one vector left out, for XTrace, XDiag.

From Q R = A V, with k columns, the basis without column i of A V is Q (I - s_i s_i^T), where the
unit vector s_i is orthogonal to every column of R but i: row i of the inverse of R, normalized.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_second_order._vectors import Operator, Space, check_at_least


class Sketch(NamedTuple):
    """The matrices V, Q and A Q, of shape (P, k), R and S = (s_1, ...), of shape (k, k)."""

    v: jax.Array
    q: jax.Array
    aq: jax.Array
    r: jax.Array
    s: jax.Array


def check_products(
    function: str, space: Space, parts: int, num_products: int, chunk_size: int
) -> int:
    """The size of each of the equal parts of the products; raises if there is none."""
    check_at_least(function, 1, num_products=num_products, chunk_size=chunk_size)
    if num_products % parts or num_products > parts * space.size:
        raise ValueError(
            f"{function}: num_products must be a multiple of {parts} and at most {parts} times the "
            f"number of parameters, {parts * space.size}; got {num_products}."
        )
    return num_products // parts


def times(space: Space, operator: Operator, columns: jax.Array, chunk_size: int) -> jax.Array:
    """A times each column, `chunk_size` of them at once."""
    product = space.on_vectors(operator)
    at_once = min(chunk_size, columns.shape[1])
    rows: jax.Array = jax.lax.map(product, columns.T, batch_size=at_once)
    return rows.T


def sketched(space: Space, operator: Operator, v: jax.Array, chunk_size: int) -> Sketch:
    """The sketch with vectors v: a product for each, and one for each vector of the basis."""
    q, r = jnp.linalg.qr(times(space, operator, v, chunk_size))
    return Sketch(v, q, times(space, operator, q, chunk_size), r, _left_out(r))


def _left_out(r: jax.Array) -> jax.Array:
    """The columns s_i. Where A has a low rank, R is singular: its diagonal is kept off zero."""
    size = jnp.max(jnp.abs(r))
    r = r / jnp.where(size == 0, 1, size)
    diagonal = jnp.diagonal(r)
    least = float(np.finfo(r.dtype).eps)
    r = r + jnp.diag(jnp.where(jnp.abs(diagonal) < least, least - diagonal, 0))
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(len(r), dtype=r.dtype))
    rows = inverse / jnp.max(jnp.abs(inverse), axis=1, keepdims=True)  # squares may overflow
    left_out: jax.Array = (rows / jnp.linalg.norm(rows, axis=1, keepdims=True)).T
    return left_out
