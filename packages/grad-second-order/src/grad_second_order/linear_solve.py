"""Damped linear systems with operators, and whether an operator is symmetric at all.

Conjugate gradients find x with (A + damping I) x = b from products alone. The matrix must be
symmetric and positive definite: choose the damping above minus the smallest eigenvalue of A.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core import Params, PyTree
from grad_second_order._vectors import Operator, Space, check_at_least


class LinearSolution(NamedTuple):
    """What `conjugate_gradient` found.

    Attributes:
      solution: The tree x.
      residual: ``|(A + damping I) x - b| / |b|``, of shape (), computed from x; 0 for b = 0.
      converged: Whether `residual` is within twice the tolerance (it was met, but for rounding).
        False also where the iteration broke down, as it may if the matrix is not positive definite.
    """

    solution: Any
    residual: jax.Array
    converged: jax.Array


def conjugate_gradient(
    operator: Operator,
    b: PyTree,
    *,
    damping: ArrayLike = 0.0,
    tolerance: float = 1e-5,
    max_iters: int | None = None,
) -> LinearSolution:
    """Solves (A + damping I) x = b by conjugate gradients.

    Args:
      operator: A symmetric linear function from trees like `b` to such trees.
      b: A tree of real arrays.
      damping: A number, >= 0, added to all eigenvalues.
      tolerance: The relative residual at which to stop.
      max_iters: The largest number of iterations, and products; ten times the number of parameters
        by default.

    Returns:
      The solution, its residual, and whether the method converged.

    Raises:
      TypeError: If a leaf of `b` is not real and floating-point.
      ValueError: If `max_iters` is not a positive integer, `damping` or `tolerance` is a negative
        Python number, or the operator changes shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import conjugate_gradient
      >>> scales = jnp.array([1.0, 3.0])
      >>> found = conjugate_gradient(lambda v: scales * v, jnp.array([2.0, 2.0]), damping=1.0)
      >>> print(*(f"{x:.3f}" for x in found.solution), found.converged)
      1.000 0.500 True

    Reference:
      Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.
    """
    function = "conjugate_gradient"
    for name, number in {"damping": damping, "tolerance": tolerance}.items():
        if isinstance(number, int | float) and not number >= 0:
            raise ValueError(f"{function}: {name} must be >= 0; got {number!r}.")
    if max_iters is not None:
        check_at_least(function, 1, max_iters=max_iters)
    space = Space(function, "b", b)
    product = space.on_vectors(operator)

    def damped(v: jax.Array) -> jax.Array:
        return product(v) + jnp.asarray(damping, space.dtype) * v

    right = space.vector(b)
    x, _ = jax.scipy.sparse.linalg.cg(  # type: ignore[no-untyped-call]
        damped, right, tol=tolerance, maxiter=max_iters
    )
    size = jnp.linalg.norm(right)
    residual = jnp.linalg.norm(damped(x) - right) / jnp.where(size == 0, 1, size)
    return LinearSolution(space.tree(x), residual, residual <= 2 * tolerance)


def asymmetry(operator: Operator, like: Params, key: jax.Array) -> jax.Array:
    """Measures on two random vectors how far an operator is from symmetric.

    ``|u . A v - v . A u| / (|u| |A v| + |v| |A u|)``: 0, but for rounding, if A is symmetric, and
    with probability 1 only then. Methods that need a symmetric operator do not look, as errors may
    not depend on values.

    Args:
      operator: A linear function from trees like `like` to such trees.
      like: A tree of real arrays; only its structure, shapes and dtypes count.
      key: A random key.

    Returns:
      The measure, from 0 to 1, of shape ().

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import asymmetry
      >>> matrix = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
      >>> bool(asymmetry(lambda v: matrix @ v, jnp.zeros(2), jax.random.key(0)) > 0.1)
      True
    """
    space = Space("asymmetry", "like", like)
    product = space.on_vectors(operator)
    u, v = (space.draw(k, "normal") for k in jax.random.split(key))
    au, av = product(u), product(v)
    norm = jnp.linalg.norm
    size = norm(u) * norm(av) + norm(v) * norm(au)
    return jnp.abs(jnp.sum(u * av) - jnp.sum(v * au)) / jnp.where(size == 0, 1, size)
