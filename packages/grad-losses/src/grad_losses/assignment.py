r"""Assignment: which row of a cost matrix goes with which column, at the least total cost.

Prices u of rows and v of columns, with :math:`u_i + v_j \le c_{ij}`, prove an assignment that pays
them exactly to be the cheapest. Rows are assigned one by one. In the graph of reduced costs
:math:`c_{ij} - u_i - v_j \ge 0`, Dijkstra's algorithm finds the shortest way from the new row to a
column that is free, over columns and the rows they are assigned to; along this way all move on by
one, and prices change by what nodes are nearer than its end. That takes O(rows^2 columns) steps at
most.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, exempt
from grad_losses._checks import ShapeError, real

COSTS = np.array([[0.5, 2.0, 1.0], [0.25, 3.0, 0.75]], np.float32)


@exempt("is_a_loss", reason="it returns the assignment, which are integers")
@example(COSTS)
def hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """Pairs of rows and columns, each in at most one, of the least sum of `cost_matrix[i, j]`.

    As many pairs as the matrix has rows or columns, whichever are fewer. No derivative is taken of
    the choice: that of the sum is that of the chosen costs.

    Args:
      cost_matrix: Costs of any real dtype and sign, of shape [rows, columns]. Pairs whose cost is
        not finite (inf, -inf, NaN) are forbidden. Costs are computed with in at least float32, and
        in float64 only under x64: of integers beyond 2**24, digits may be lost otherwise.

    Returns:
      The rows i and the columns j of the pairs, two int32 arrays of shape [min(rows, columns)],
      rows ascending. If no assignment does without forbidden pairs, it has as few of them as can
      be, and the others are the cheapest for that, to a few digits less; in place of row and column
      of a forbidden pair stands -1. Select the others by ``i >= 0``.

    Raises:
      TypeError: If `cost_matrix` is not real.
      ValueError: If `cost_matrix` is no matrix. For batches there is `jax.vmap`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import hungarian_algorithm
      >>> cost = jnp.array([[1.0, 2.0], [1.0, jnp.inf], [5.0, 6.0]])
      >>> i, j = hungarian_algorithm(cost)
      >>> i, j, cost[i, j].sum()
      (Array([0, 1], dtype=int32), Array([1, 0], dtype=int32), Array(3., dtype=float32))

    Reference:
      Crouse, On implementing 2D rectangular assignment algorithms, 2016; Kuhn, The Hungarian method
      for the assignment problem, 1955.
    """
    return _cheapest_pairs("hungarian_algorithm", cost_matrix)


@exempt("is_a_loss", reason="it returns the assignment, which are integers")
@example(COSTS)
def base_hungarian_algorithm(cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The same as `hungarian_algorithm`; the released library has two implementations.

    Args:
      cost_matrix: As for `hungarian_algorithm`.

    Returns:
      The rows and the columns, as from `hungarian_algorithm`.

    Raises:
      TypeError: As from `hungarian_algorithm`.
      ValueError: As from `hungarian_algorithm`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import base_hungarian_algorithm
      >>> base_hungarian_algorithm(jnp.array([[1, 2], [1, 9]]))
      (Array([0, 1], dtype=int32), Array([1, 0], dtype=int32))

    Reference:
      Crouse, On implementing 2D rectangular assignment algorithms, 2016.
    """
    return _cheapest_pairs("base_hungarian_algorithm", cost_matrix)


def _cheapest_pairs(name: str, cost_matrix: ArrayLike) -> tuple[jax.Array, jax.Array]:
    cost = jax.lax.stop_gradient(real(name, "cost_matrix", cost_matrix))
    if cost.ndim != 2:
        raise ShapeError(
            f"{name}: cost_matrix must have shape [rows, columns]; got {cost.shape}. For a batch "
            f"of matrices use jax.vmap({name})."
        )
    is_tall = cost.shape[0] > cost.shape[1]
    cost = cost.T if is_tall else cost
    if not cost.size:
        return jnp.zeros(0, jnp.int32), jnp.zeros(0, jnp.int32)
    is_allowed = jnp.isfinite(cost)
    rows = jnp.arange(len(cost), dtype=jnp.int32)
    columns = _assign(_finite(cost, is_allowed))
    is_pair = is_allowed[rows, columns]
    rows, columns = jnp.where(is_pair, rows, -1), jnp.where(is_pair, columns, -1)
    if not is_tall:
        return rows, columns
    i, j = jax.lax.sort((columns, rows), num_keys=1)
    return i, j


def _finite(cost: jax.Array, is_allowed: jax.Array) -> jax.Array:
    """The costs to compute with, a power of 2 times as large so that nothing overflows.

    A forbidden pair costs as much as changing all others could save at most.
    """
    is_floating = jnp.issubdtype(cost.dtype, jnp.floating)
    cost = cost.astype(jnp.promote_types(cost.dtype, jnp.float32) if is_floating else float)
    cost = jnp.where(is_allowed, cost, 0)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(cost)))
    return jnp.where(is_allowed, jnp.ldexp(cost, -exponent), 2 * len(cost) + 1)


class _Assignment(NamedTuple):
    """Which rows and columns are assigned to each other, -1 for those that are free."""

    column_of: jax.Array
    row_of: jax.Array


_Prices = tuple[jax.Array, jax.Array, _Assignment]
"""u, v, and who is assigned to whom at these prices."""


class _Search(NamedTuple):
    """How far Dijkstra's algorithm has come.

    Attributes:
      distance: Of each column from the new row, as far as known.
      previous: The row from which each column is reached.
      is_done: Whether the column's distance is final.
      row: The row to go on from.
      reached: How far away it is.
      end: The free column, once it is reached; -1 before.
    """

    distance: jax.Array
    previous: jax.Array
    is_done: jax.Array
    row: jax.Array
    reached: jax.Array
    end: jax.Array


def _assign(cost: jax.Array) -> jax.Array:
    """The column of each row of finite costs with at least as many columns as rows."""
    rows, columns = cost.shape

    def assign_one(carry: _Prices, row: jax.Array) -> tuple[_Prices, None]:
        u, v, assigned = carry
        found = _search(cost, u, v, assigned.row_of, row)
        nearer = jnp.where(found.is_done, found.reached - found.distance, 0)
        # Free columns add 0, to whichever row: only the end is done, no nearer than itself.
        u = u.at[assigned.row_of].add(nearer).at[row].add(found.reached)
        return (u, v - nearer, _augment(assigned, found)), None

    free = _Assignment(jnp.full(rows, -1, jnp.int32), jnp.full(columns, -1, jnp.int32))
    start = jnp.zeros_like(cost[:, 0]), jnp.zeros_like(cost[0]), free
    (_, _, assigned), _ = jax.lax.scan(assign_one, start, jnp.arange(rows, dtype=jnp.int32))
    return assigned.column_of


def _search(
    cost: jax.Array, u: jax.Array, v: jax.Array, row_of: jax.Array, row: jax.Array
) -> _Search:
    """The shortest way from a new row to a free column."""

    def step(at: _Search) -> _Search:
        distance = at.reached + cost[at.row] - u[at.row] - v
        is_better = ~at.is_done & (distance < at.distance)
        distance = jnp.where(is_better, distance, at.distance)
        undone = jnp.where(at.is_done, jnp.inf, distance)
        reached = jnp.min(undone)
        # Two reductions of one array take less time than argmin, which is one of two.
        nearest = jnp.min(jnp.where(undone == reached, columns, len(v)))
        return _Search(
            distance,
            jnp.where(is_better, at.row, at.previous),
            at.is_done.at[nearest].set(True),
            row_of[nearest],
            reached,
            jnp.where(row_of[nearest] < 0, nearest, -1),
        )

    columns = jnp.arange(len(v), dtype=row.dtype)
    start = _Search(
        jnp.full_like(v, jnp.inf),
        jnp.full_like(row_of, -1),
        jnp.zeros_like(row_of, bool),
        row,
        jnp.zeros_like(u[0]),
        jnp.full_like(row, -1),
    )
    return jax.lax.while_loop(lambda at: at.end < 0, step, start)


def _augment(assigned: _Assignment, found: _Search) -> _Assignment:
    """The assignment after all on the way have moved on by one column, from its end on."""

    def step(carry: tuple[jax.Array, _Assignment]) -> tuple[jax.Array, _Assignment]:
        column, (column_of, row_of) = carry
        row = found.previous[column]
        moved = _Assignment(column_of.at[row].set(column), row_of.at[column].set(row))
        return column_of[row], moved

    return jax.lax.while_loop(lambda carry: carry[0] >= 0, step, (found.end, assigned))[1]
