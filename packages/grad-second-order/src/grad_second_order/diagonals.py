r"""Diagonals of symmetric operators: exact, or estimated from random vectors.

With the product :math:`v \mapsto A v` alone,

.. math::

    a_{ii} = e_i \cdot A e_i, \qquad
    \mathrm{diag}(A) = \mathbb{E}[v \odot A v]
    \quad\text{for } \mathbb{E}[v v^\top] = I .

With signs (Rademacher) for entries of v, the variance of the second is
:math:`\sum_{j \ne i} a_{ij}^2` for entry i; XDiag first takes out, exactly, the part of A that
its own vectors have found.
"""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core import Params
from grad_second_order._leave_one_out import check_products, sketched
from grad_second_order._vectors import (
    Distribution,
    Operator,
    Space,
    check_at_least,
    matmul,
    mean_over,
    signs,
)


def exact_diagonal(operator: Operator, like: Params, *, chunk_size: int = 64) -> Any:
    """The diagonal of an operator, a_ii = e_i . A e_i: one product an entry.

    Args:
      operator: A linear function from trees like `like` to such trees, as `hessian_operator`
        returns it.
      like: A tree of real arrays; only its structure, shapes and dtypes count.
      chunk_size: How many products to compute at once. Temporary memory is `chunk_size` times that
        of one product.

    Returns:
      The diagonal, a tree like `like`.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `chunk_size` is not a positive integer, or the operator changes shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import exact_diagonal
      >>> matrix = jnp.array([[2.0, 1.0], [1.0, 3.0]])
      >>> exact_diagonal(lambda v: matrix @ v, jnp.zeros(2))
      Array([2., 3.], dtype=float32)
    """
    check_at_least("exact_diagonal", 1, chunk_size=chunk_size)
    space = Space("exact_diagonal", "like", like)
    product = space.on_vectors(operator)

    def entry(i: jax.Array) -> jax.Array:
        e = jnp.zeros(space.size, space.dtype).at[i].set(1)
        return product(e)[i]

    indices = jnp.arange(space.size)
    return space.tree(jax.lax.map(entry, indices, batch_size=min(chunk_size, space.size)))


def hutchinson_diagonal(
    operator: Operator,
    like: Params,
    key: jax.Array,
    *,
    num_samples: int = 1,
    distribution: Distribution = "rademacher",
    chunk_size: int = 8,
) -> Any:
    """Estimates the diagonal of an operator by the mean of v * (A v) over random v.

    Unbiased. The variance of entry i is, over the number of samples, the sum of squares of the rest
    of its row with ``"rademacher"``, and that plus twice a_ii**2 with ``"normal"``.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of real arrays; only its structure, shapes and dtypes count.
      key: A random key.
      num_samples: How many vectors, and products.
      distribution: Of the entries of the vectors, ``"rademacher"`` or ``"normal"``.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, a tree like `like`.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If a number is not a positive integer, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import hutchinson_diagonal
      >>> hutchinson_diagonal(lambda v: 3 * v, jnp.zeros(2), jax.random.key(0))
      Array([3., 3.], dtype=float32)

    Reference:
      Bekas, Kokiopoulou and Saad, An estimator for the diagonal of a matrix, 2007.
    """
    check_at_least("hutchinson_diagonal", 1, num_samples=num_samples, chunk_size=chunk_size)
    space = Space("hutchinson_diagonal", "like", like)
    product = space.on_vectors(operator)

    def sample(key: jax.Array) -> jax.Array:
        v = space.draw(key, distribution)
        return v * product(v)

    return space.tree(mean_over(sample, jax.random.split(key, num_samples), chunk_size))


def xdiag(
    operator: Operator, like: Params, key: jax.Array, *, num_products: int, chunk_size: int = 8
) -> Any:
    """Estimates the diagonal of an operator by XDiag: far better where few eigenvalues rule.

    Half of the products sketch the range of A, Q R = A V; the others give A Q. Leaving out one
    vector v_i of V at a time, with Q_i a basis for the rest::

        d_i = diag(Q_i Q_i^T A) + v_i * ((I - Q_i Q_i^T) A v_i),    diag(A) ~ mean of d_i

    Unbiased. On flat spectra `hutchinson_diagonal` with as many products is better.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_products: How many products, an even number, at most 2 P. Memory is that of as many
        trees.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, a tree like `like`.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_products` or `chunk_size` is out of range, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import xdiag
      >>> ones = lambda v: jnp.full(3, jnp.sum(v))  # of rank 1, so that it is found exactly
      >>> estimate = jax.jit(lambda key: xdiag(ones, jnp.zeros(3), key, num_products=4))
      >>> print(*(f"{value:.3f}" for value in estimate(jax.random.key(0))))
      1.000 1.000 1.000

    Reference:
      Epperly, Tropp and Webber, XTrace: making the most of every sample, 2024, section 4.
    """
    space = Space("xdiag", "like", like)
    k = check_products("xdiag", space, 2, num_products, chunk_size)
    v, q, aq, r, s = sketched(space, operator, signs(key, space, k), chunk_size)
    qs = matmul(q, s)
    whole = jnp.sum(q * aq, axis=1)
    left_out = jnp.mean(qs * matmul(aq, s), axis=1)
    # (I - Q_i Q_i^T) A v_i = Q s_i (s_i . r_i), as A v_i = Q r_i.
    beyond = jnp.mean(v * qs * jnp.sum(s * r, axis=0), axis=1)
    return space.tree(whole - left_out + beyond)
