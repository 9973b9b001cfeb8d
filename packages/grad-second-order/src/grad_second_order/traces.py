r"""Traces of symmetric operators, estimated from products with random vectors.

Hutchinson's estimator is :math:`v \cdot A v` with :math:`\mathbb{E}[v v^\top] = I`. Its variance is
:math:`2 (\lVert A \rVert_F^2 - \sum_i a_{ii}^2)` with signs and :math:`2 \lVert A \rVert_F^2` with
normal numbers. Hutch++ and XTrace take the trace of A on the range of a sketch exactly, and only
the rest by that estimator: they win, by orders of magnitude, where eigenvalues decay, and lose a
little where they do not.
"""

import jax
import jax.numpy as jnp

from grad_core import Params
from grad_second_order._leave_one_out import check_products, sketched, times
from grad_second_order._vectors import (
    Distribution,
    Operator,
    Space,
    check_at_least,
    matmul,
    mean_over,
    signs,
)


def hutchinson_trace(
    operator: Operator,
    like: Params,
    key: jax.Array,
    *,
    num_samples: int = 1,
    distribution: Distribution = "rademacher",
    chunk_size: int = 8,
) -> jax.Array:
    """Estimates the trace of an operator by the mean of v . A v over random v.

    Unbiased, with the variance above over the number of samples.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of real arrays; only its structure, shapes and dtypes count.
      key: A random key.
      num_samples: How many vectors, and products.
      distribution: Of the entries of the vectors, ``"rademacher"`` or ``"normal"``.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, of shape (), in the widest dtype of `like` and at least float32.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If a number is not a positive integer, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import hutchinson_trace
      >>> hutchinson_trace(lambda v: 3 * v, jnp.zeros(2), jax.random.key(0))
      Array(6., dtype=float32)

    Reference:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1990.
    """
    check_at_least("hutchinson_trace", 1, num_samples=num_samples, chunk_size=chunk_size)
    space = Space("hutchinson_trace", "like", like)
    product = space.on_vectors(operator)

    def sample(key: jax.Array) -> jax.Array:
        v = space.draw(key, distribution)
        return jnp.sum(v * product(v))

    mean: jax.Array = mean_over(sample, jax.random.split(key, num_samples), chunk_size)
    return mean


def hutch_plus_plus(
    operator: Operator, like: Params, key: jax.Array, *, num_products: int, chunk_size: int = 8
) -> jax.Array:
    """Estimates the trace of an operator by Hutch++.

    A third of the products sketch the range of A, Q R = A V, a third give the trace there, and a
    third estimate the trace on the rest, with G made orthogonal to Q::

        tr(A) ~ tr(Q^T A Q) + tr(G^T A G) / k,    G = (I - Q Q^T) signs

    Unbiased.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_products: How many products, a multiple of 3, at most 3 P. Memory is that of as many
        trees.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, of shape (), in the widest dtype of `like` and at least float32.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_products` or `chunk_size` is out of range, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import hutch_plus_plus
      >>> estimate = hutch_plus_plus(
      ...     lambda v: 3 * v, jnp.zeros(2), jax.random.key(0), num_products=6
      ... )
      >>> print(f"{estimate:.3f}")
      6.000

    Reference:
      Meyer, Musco, Musco and Woodruff, Hutch++: optimal stochastic trace estimation, 2021.
    """
    space = Space("hutch_plus_plus", "like", like)
    k = check_products("hutch_plus_plus", space, 3, num_products, chunk_size)
    for_range, for_rest = jax.random.split(key)
    q, _ = jnp.linalg.qr(times(space, operator, signs(for_range, space, k), chunk_size))
    g = signs(for_rest, space, k)
    g = g - matmul(q, matmul(q.T, g))
    on_range = jnp.sum(q * times(space, operator, q, chunk_size))
    return on_range + jnp.sum(g * times(space, operator, g, chunk_size)) / k


def xtrace(
    operator: Operator, like: Params, key: jax.Array, *, num_products: int, chunk_size: int = 8
) -> jax.Array:
    """Estimates the trace of an operator by XTrace, the best of these where eigenvalues decay.

    Half of the products sketch the range of A, Q R = A V; the others give A Q. Leaving out one
    vector v_i of V at a time, with Q_i a basis for the rest, u_i is (I - Q_i Q_i^T) v_i scaled to
    the length sqrt(P - k + 1), the square root of the dimension it is left with::

        t_i = tr(Q_i^T A Q_i) + u_i . A u_i,    tr(A) ~ mean of t_i

    Unbiased: v_i is normal, so that u_i has no preferred direction.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_products: How many products, an even number, at most 2 P. Memory is that of as many
        trees.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, of shape (), in the widest dtype of `like` and at least float32.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_products` or `chunk_size` is out of range, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import xtrace
      >>> estimate = jax.jit(
      ...     lambda key: xtrace(lambda v: 3 * v, jnp.zeros(4), key, num_products=4)
      ... )
      >>> print(f"{estimate(jax.random.key(0)):.3f}")
      12.000

    Reference:
      Epperly, Tropp and Webber, XTrace: making the most of every sample, 2024, section 2.
    """
    space = Space("xtrace", "like", like)
    k = check_products("xtrace", space, 2, num_products, chunk_size)
    normal = jax.random.normal(key, (space.size, k), space.dtype)
    v, q, aq, r, s = sketched(space, operator, normal, chunk_size)
    h = matmul(q.T, aq)
    on_range = jnp.trace(h) - jnp.sum(s * matmul(h, s), axis=0)
    # Q_i Q_i^T v_i = Q x_i, and A v_i = Q r_i.
    qv = matmul(q.T, v)
    x = qv - s * jnp.sum(s * qv, axis=0)
    u, au = v - matmul(q, x), matmul(q, r) - matmul(aq, x)
    length = jnp.sum(u**2, axis=0)
    beyond = (space.size - k + 1) * jnp.sum(u * au, axis=0) / jnp.where(length == 0, 1, length)
    return jnp.mean(on_range + beyond)
