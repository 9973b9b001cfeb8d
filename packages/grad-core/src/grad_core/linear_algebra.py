"""Norms, dominant eigenvalues, inverse roots of matrices, and non-negative least squares."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import tree
from grad_core.numerics import inexact_dtype, real_dtype, safe_divide, widen
from grad_core.types import Numeric, PyTree

__all__ = ["global_norm", "matrix_inverse_pth_root", "nnls", "power_iteration"]

Array: TypeAlias = jax.Array | np.ndarray[Any, np.dtype[Any]]


def global_norm(updates: PyTree) -> jax.Array:
    """Euclidean norm of a tree seen as one long vector: ``sqrt(sum_i |x_i|^2)``.

    It neither overflows nor underflows unless its value does, and its gradient at zero is zero.

    Args:
      updates: tree of arrays; real, complex or integer.

    Returns:
      A real array of shape () in the widest dtype of the leaves, and at least float32; 0 for an
      empty tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.linear_algebra import global_norm
      >>> global_norm({"a": jnp.array([3.0]), "b": jnp.array(4.0)})
      Array(5., dtype=float32)
    """
    return tree.norm(updates)


# --- the dominant eigenvalue -----------------------------------------------------------------


class _Iterate(NamedTuple):
    """A unit vector v, its image Av, and the Rayleigh quotient <v, Av>."""

    step: jax.Array
    v: PyTree
    image: PyTree
    eigenvalue: jax.Array


def power_iteration(
    matrix: Array | Callable[[PyTree], PyTree],
    *,
    v0: PyTree | None = None,
    num_iters: int = 100,
    error_tolerance: Numeric = 1e-6,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
    key: jax.Array | None = None,
) -> tuple[jax.Array, PyTree]:
    """Find the eigenvalue of largest modulus, and its eigenvector, of a symmetric matrix.

    ``v <- A v / ||A v||``, ``lambda = <v, A v>``, until
    ``||A v - lambda v|| <= error_tolerance * |lambda|``. The rate is the ratio of the two largest
    moduli of eigenvalues; if they are equal with opposite signs there is no convergence.

    Args:
      matrix: array of shape (n, n), or a linear function from trees to trees like them.
      v0: where to start: array of shape (n,), or a tree for a function, which needs it. It must
        not be orthogonal to the eigenvector. By default it is random.
      num_iters: the largest number of iterations.
      error_tolerance: the relative error at which to stop.
      precision: of the matrix product.
      key: random key from which ``v0`` is drawn if it is not given.

    Returns:
      The eigenvalue, of shape (), and the eigenvector, of norm one, in the dtype of ``v0`` or of
      the matrix. A zero matrix has the eigenvalue 0.

    Raises:
      ValueError: the matrix is not square, or is a function and there is no ``v0``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.linear_algebra import power_iteration
      >>> eigenvalue, _ = power_iteration(jnp.array([[2.0, 1.0], [1.0, 2.0]]))
      >>> print(f"{eigenvalue:.4f}")
      3.0000
    """
    if callable(matrix):
        if v0 is None:
            raise ValueError("power_iteration: v0 must be given when matrix is a function.")
        return _power_iteration(matrix, v0, num_iters, error_tolerance)
    square = _square("power_iteration", matrix)
    wide = widen(square)
    start = _random_vector(wide, key) if v0 is None else widen(jnp.asarray(v0))

    def apply(v: PyTree) -> PyTree:
        return jnp.matmul(wide, v, precision=precision)  # type: ignore[arg-type]

    found = _power_iteration(apply, start, num_iters, error_tolerance)
    return tree.cast(found, inexact_dtype(square))


def _power_iteration(
    apply: Callable[[PyTree], PyTree], v0: PyTree, num_iters: int, error_tolerance: Numeric
) -> tuple[jax.Array, PyTree]:
    def at(step: jax.Array, direction: PyTree) -> _Iterate:
        v = _normalize(direction)
        image = apply(v)
        return _Iterate(step, v, image, tree.vdot(v, image))

    def goes_on(it: _Iterate) -> jax.Array:
        residual = tree.norm(tree.add_scale(it.image, -it.eigenvalue, it.v))
        converged = residual <= error_tolerance * jnp.abs(it.eigenvalue)
        return (it.step < num_iters) & ~converged

    def advance(it: _Iterate) -> _Iterate:
        # The dtypes of the loop are those of v0, whatever dtype the function computes in.
        return tree.cast_like(at(it.step + 1, it.image), it)

    last = jax.lax.while_loop(goes_on, advance, at(jnp.zeros((), jnp.int32), v0))
    return last.eigenvalue, last.v


def _normalize(v: PyTree) -> PyTree:
    norm = tree.norm(v)
    length = jnp.where(norm == 0, 1, norm)
    return jax.tree.map(lambda x: (x / length).astype(inexact_dtype(x)), v)


def _random_vector(matrix: jax.Array, key: jax.Array | None) -> jax.Array:
    key = jax.random.PRNGKey(0) if key is None else key
    v = jax.random.uniform(key, matrix.shape[-1:], real_dtype(matrix), -1.0, 1.0)
    return v.astype(matrix.dtype)


# --- inverse roots ---------------------------------------------------------------------------


class _Newton(NamedTuple):
    """The coupled iterates ``x -> A^(-1/p)`` and ``m = x^p A -> I``, and ``max |m - I|``."""

    step: jax.Array
    x: jax.Array
    m: jax.Array
    error: jax.Array
    goes_on: jax.Array


def matrix_inverse_pth_root(
    matrix: Array,
    p: int | jax.Array,
    num_iters: int = 100,
    ridge_epsilon: Numeric = 1e-6,
    error_tolerance: Numeric = 1e-6,
    precision: jax.lax.Precision = jax.lax.Precision.HIGHEST,
) -> tuple[jax.Array, jax.Array]:
    """Compute ``(A + ridge_epsilon * lambda_max * I)^(-1/p)`` of a positive semi-definite A.

    By the coupled Newton iteration, which needs nothing but matrix products::

        T = ((p + 1) I - M) / p,    X <- X T,    M <- T^p M,

    from ``X = I / c``, ``M = A / c^p``, with ``c^p = 2 ||A|| / (p + 1)``.

    Args:
      matrix: array of shape (n, n), symmetric (Hermitian) and positive semi-definite.
      p: positive integer.
      num_iters: the largest number of iterations, of this and of the power iteration for
        ``lambda_max``, the largest eigenvalue.
      ridge_epsilon: what to add to the spectrum, relative to ``lambda_max``. A zero matrix is
        treated as if ``lambda_max`` were 1.
      error_tolerance: the error at which to stop.
      precision: of the matrix products.

    Returns:
      The root, of shape (n, n) and the dtype of ``matrix`` (computed in at least float32), and
      the error ``max |M - I|``, of shape ().

    Raises:
      ValueError: the matrix is not square, or ``p`` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.linear_algebra import matrix_inverse_pth_root
      >>> root, error = matrix_inverse_pth_root(16.0 * jnp.eye(2), 4)
      >>> print(f"{root[0, 0]:.4f} {bool(error < 1e-5)}")
      0.5000 True

    Source: Guo and Higham, "A Schur-Newton Method for the Matrix p-th Root and its Inverse",
    2006; Anil et al., "Scalable Second Order Optimization for Deep Learning", 2020.
    """
    square = _square("matrix_inverse_pth_root", matrix)
    p = _positive_integer(p)
    a = widen(square)
    eigenvalue, _ = power_iteration(
        a, num_iters=num_iters, error_tolerance=error_tolerance, precision=precision
    )
    size = jnp.abs(eigenvalue)
    size = jnp.where(size == 0, 1, size)
    ridged = a / size + ridge_epsilon * jnp.eye(a.shape[-1], dtype=a.dtype)
    root, error = _coupled_newton(ridged, p, num_iters, error_tolerance, precision)
    return (root * size ** (-1 / p)).astype(inexact_dtype(square)), error


def _coupled_newton(
    a: jax.Array,
    p: int | jax.Array,
    num_iters: int,
    error_tolerance: Numeric,
    precision: jax.lax.Precision,
) -> tuple[jax.Array, jax.Array]:
    """``a^(-1/p)`` and its error for ``a`` with a spectrum in (0, 1], or barely beyond it."""
    eye = jnp.eye(a.shape[-1], dtype=a.dtype)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, precision=precision)

    def advance(it: _Newton) -> _Newton:
        t = ((p + 1) * eye - it.m) / p
        x, m = product(it.x, t), product(_power(t, p, product), it.m)
        error = _distance(m, eye)
        # Once convergence is quadratic, an error that does not even halve is rounding alone.
        is_close = it.error < 0.1
        accepted = error < jnp.where(is_close, 1.0, 1.2) * it.error  # False for NaN
        goes_on = accepted & (error > error_tolerance) & ~(is_close & (error > it.error / 2))
        new = _Newton(it.step + 1, x, m, error, goes_on)
        return tree.where(accepted, new, it)._replace(goes_on=goes_on)

    scale = (p + 1) / 2  # the largest eigenvalue to start from: in the middle of (0, p + 1)
    m = scale * a
    error = _distance(m, eye)
    x = eye * scale ** (1 / p)
    start = _Newton(jnp.zeros((), jnp.int32), x, m, error, error > error_tolerance)
    last = jax.lax.while_loop(lambda it: it.goes_on & (it.step < num_iters), advance, start)
    return last.x, last.error


def _distance(m: jax.Array, eye: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(m - eye), initial=0.0)


def _power(
    x: jax.Array, p: int | jax.Array, product: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    """``x^p`` by repeated squaring, for a positive p that may be traced."""
    if isinstance(p, jax.Array):
        return _traced_power(x, p, product)
    power, square = None, x
    while True:
        if p & 1:
            power = square if power is None else product(power, square)
        p >>= 1
        if not p:
            assert power is not None
            return power
        square = product(square, square)


def _traced_power(
    x: jax.Array, p: jax.Array, product: Callable[[jax.Array, jax.Array], jax.Array]
) -> jax.Array:
    def advance(
        it: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        rest, power, square = it
        power = jnp.where(rest % 2 == 1, product(power, square), power)
        return rest // 2, power, product(square, square)

    eye = jnp.eye(x.shape[-1], dtype=x.dtype)
    _, power, _ = jax.lax.while_loop(lambda it: it[0] > 0, advance, (p, eye, x))
    return power


def _positive_integer(p: int | jax.Array) -> int | jax.Array:
    if isinstance(p, jax.Array):
        if jnp.issubdtype(p.dtype, jnp.integer):
            return p
    elif p >= 1 and p == int(p):
        return int(p)
    raise ValueError(f"matrix_inverse_pth_root: p must be a positive integer, got {p!r}.")


# --- non-negative least squares --------------------------------------------------------------


class _Accelerated(NamedTuple):
    """The iterate, the extrapolated point, and the momentum coefficient of each column."""

    x: jax.Array
    y: jax.Array
    t: jax.Array


def nnls(
    A: Array, b: Array, iters: int, unroll: int | bool = 1, L: Numeric | None = None
) -> jax.Array:
    """Solve ``min_x ||A x - b||^2`` subject to ``x >= 0``.

    By accelerated projected gradient descent on the normal equations, with momentum that is
    dropped whenever it points uphill::

        x_new = max(0, y - (A^T A y - A^T b) / L)
        y     = x_new + (t - 1) / t_new * (x_new - x),   t_new = (1 + sqrt(1 + 4 t^2)) / 2

    Args:
      A: array of shape (m, n).
      b: array of shape (m,), or (m, k) for k problems at once.
      iters: number of iterations.
      unroll: how many of them to unroll, as in `jax.lax.scan`.
      L: at least the largest eigenvalue of ``A^T A``, which is computed if L is None.

    Returns:
      The solution, of shape (n,) or (n, k), in the promoted dtype of ``A`` and ``b`` (computed in
      at least float32). It is differentiable.

    Raises:
      ValueError: the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.linear_algebra import nnls
      >>> nnls(jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([4.0, -1.0]), iters=200)
      Array([2., 0.], dtype=float32)

    Source: Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", 2009;
    O'Donoghue and Candes, "Adaptive Restart for Accelerated Gradient Schemes", 2012.
    """
    if jnp.ndim(A) != 2 or jnp.ndim(b) not in (1, 2) or jnp.shape(b)[0] != jnp.shape(A)[0]:
        raise ValueError(
            "nnls: A must be of shape (m, n) and b of shape (m,) or (m, k), "
            f"got {jnp.shape(A)} and {jnp.shape(b)}."
        )
    dtype = inexact_dtype(A, b)
    a, target = jnp.asarray(A).astype(dtype), jnp.asarray(b).astype(dtype)
    return _nnls(widen(a), widen(target), int(iters), unroll, L).astype(dtype)


def _nnls(
    a: jax.Array, b: jax.Array, iters: int, unroll: int | bool, bound: Numeric | None
) -> jax.Array:
    gram = jnp.matmul(a.T, a, precision=jax.lax.Precision.HIGHEST)
    correlation = jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST)
    lipschitz = _largest_eigenvalue(gram) if bound is None else jnp.asarray(bound, a.dtype)
    step_size = safe_divide(jnp.ones((), a.dtype), lipschitz)

    def advance(it: _Accelerated, _: None) -> tuple[_Accelerated, None]:
        gradient = jnp.matmul(gram, it.y, precision=jax.lax.Precision.HIGHEST) - correlation
        x = jnp.maximum(it.y - step_size * gradient, 0)
        step = x - it.x
        uphill = jnp.sum((it.y - x) * step, axis=0) > 0
        t = jnp.where(uphill, 1.0, it.t)
        t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return _Accelerated(x, x + (t - 1) / t_new * step, t_new), None

    zero = jnp.zeros_like(correlation)
    start = _Accelerated(zero, zero, jnp.ones(zero.shape[1:], zero.dtype))
    last, _ = jax.lax.scan(advance, start, length=max(iters, 0), unroll=unroll)
    return last.x


def _largest_eigenvalue(gram: jax.Array) -> jax.Array:
    """Of a Gram matrix, rounded up; a constant to differentiation, as any upper bound serves."""
    if not gram.size:
        return jnp.zeros((), gram.dtype)
    largest: jax.Array = jnp.linalg.eigvalsh(jax.lax.stop_gradient(gram))[-1]
    return largest * (1 + 16 * float(np.finfo(gram.dtype).eps))


def _square(name: str, matrix: Array) -> jax.Array:
    shape = jnp.shape(matrix)
    if len(shape) != 2 or shape[0] != shape[1]:
        raise ValueError(f"{name}: matrix must be of shape (n, n), got {shape}.")
    return jnp.asarray(matrix)
