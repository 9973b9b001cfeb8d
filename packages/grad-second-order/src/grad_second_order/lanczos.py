r"""Eigenvalues of symmetric operators: Lanczos's tridiagonal matrix, and the density it gives.

From a unit vector q_1, with all earlier vectors taken out of every new one,

.. math::

    \beta_j q_{j+1} = A q_j - \alpha_j q_j - \beta_{j-1} q_{j-1}, \qquad Q^\top A Q = T .

The eigenvalues of the small T (Ritz values) approach those of A, the outermost first. With the
first components w of its eigenvectors, :math:`\sum_k w_k^2 f(\theta_k) \approx q_1 \cdot f(A) q_1`
is a Gauss quadrature: over random q_1 it is the mean of f over the spectrum, hence the density.
"""

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import Params
from grad_core import power_iteration as _power_iteration
from grad_second_order._vectors import Operator, Space, check_at_least, matmul


class Lanczos(NamedTuple):
    """What k steps of Lanczos's method leave.

    Attributes:
      diagonal: Of T, of shape (k,).
      off_diagonal: Beside it, of shape (k - 1,), not negative.
      basis: The vectors q as rows, of shape (k, P), parameters in the order of
        `jax.flatten_util.ravel_pytree`.
    """

    diagonal: jax.Array
    off_diagonal: jax.Array
    basis: jax.Array


class SpectralDensity(NamedTuple):
    """The density of the eigenvalues of an operator.

    Attributes:
      grid: Where the density was evaluated, of shape (points,), ascending.
      density: The density there; its integral is 1.
      nodes: The Ritz values of each random vector, of shape (probes, steps).
      weights: Their weights, which add up to 1 for each vector.
    """

    grid: jax.Array
    density: jax.Array
    nodes: jax.Array
    weights: jax.Array


def lanczos_tridiagonal(
    operator: Operator, like: Params, key: jax.Array, *, num_steps: int
) -> Lanczos:
    """Runs Lanczos's method from a random vector, with full reorthogonalization.

    When the vectors so far span an invariant subspace, it goes on with a new random one, and the
    number off the diagonal is 0.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_steps: How many steps, and products: at most P. Memory is that of as many trees.

    Returns:
      The tridiagonal matrix and the basis.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_steps` is not an integer from 1 to P, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import lanczos_tridiagonal
      >>> @jax.jit
      ... def find(key):
      ...     return lanczos_tridiagonal(lambda v: 3 * v, jnp.zeros(2), key, num_steps=2)
      >>> found = find(jax.random.key(0))
      >>> print(*(f"{value:.3f}" for value in found.diagonal), found.off_diagonal)
      3.000 3.000 [0.]

    Reference:
      Golub and Van Loan, Matrix computations, 4th edition, section 10.1.
    """
    space = _space("lanczos_tridiagonal", like, num_steps)
    return _lanczos(space, operator, key, num_steps)


def lanczos_eigenvalues(
    operator: Operator, like: Params, key: jax.Array, *, num_steps: int
) -> jax.Array:
    """Approximates eigenvalues of an operator by those of Lanczos's matrix.

    The largest and the smallest are found first, in far fewer steps than power iteration takes.
    With `num_steps` the number of parameters all are found.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_steps: How many steps, and products: at most P. Memory is that of as many trees.

    Returns:
      The Ritz values, ascending, of shape (num_steps,).

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_steps` is not an integer from 1 to P, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import lanczos_eigenvalues
      >>> scales = jnp.array([1.0, 2.0, 5.0])
      >>> @jax.jit
      ... def find(key):
      ...     return lanczos_eigenvalues(lambda v: scales * v, scales, key, num_steps=3)
      >>> print(*(f"{value:.3f}" for value in find(jax.random.key(0))))
      1.000 2.000 5.000
    """
    space = _space("lanczos_eigenvalues", like, num_steps)
    values: jax.Array = jnp.linalg.eigvalsh(_tridiagonal(_lanczos(space, operator, key, num_steps)))
    return values


def spectral_density(
    operator: Operator,
    like: Params,
    key: jax.Array,
    *,
    num_steps: int = 64,
    num_probes: int = 4,
    num_points: int = 1000,
    width: ArrayLike | None = None,
) -> SpectralDensity:
    """Estimates the density of the eigenvalues of an operator by stochastic Lanczos quadrature.

    The nodes of each random vector, with their weights, are broadened by normal distributions.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of P real numbers; only its structure, shapes and dtypes count.
      key: A random key.
      num_steps: How many of Lanczos's steps for each vector: at most P. Memory is that of as many
        trees.
      num_probes: How many random vectors, one after the other.
      num_points: How many points the grid has; it extends beyond the nodes by five widths.
      width: The standard deviation of the broadening, > 0; a hundredth of the nodes' range by
        default.

    Returns:
      Grid, density, nodes and weights.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If a number is out of range, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import spectral_density
      >>> scales = jnp.array([1.0, 2.0, 5.0])
      >>> @jax.jit
      ... def find(key):
      ...     return spectral_density(lambda v: scales * v, scales, key, num_steps=3)
      >>> found = find(jax.random.key(0))
      >>> print(f"{jnp.trapezoid(found.density, found.grid):.3f}")
      1.000

    Reference:
      Ghorbani, Krishnan and Xiao, An investigation into neural net optimization via Hessian
      eigenvalue density, 2019.
    """
    function = "spectral_density"
    check_at_least(function, 1, num_probes=num_probes, num_points=num_points)
    if isinstance(width, int | float) and not width > 0:
        raise ValueError(f"{function}: width must be > 0; got {width!r}.")
    space = _space(function, like, num_steps)

    def quadrature(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        nodes, vectors = jnp.linalg.eigh(_tridiagonal(_lanczos(space, operator, key, num_steps)))
        return nodes, vectors[0] ** 2

    nodes, weights = jax.lax.map(quadrature, jax.random.split(key, num_probes))
    if width is None:
        spread = jnp.max(nodes) - jnp.min(nodes)
        # Where all eigenvalues are one, a hundredth of that; where they are 0, anything.
        size = jnp.maximum(spread, 1e-3 * jnp.max(jnp.abs(nodes)))
        width = jnp.where(size == 0, 1.0, size) / 100
    width = jnp.asarray(width, space.dtype)
    grid = jnp.linspace(jnp.min(nodes) - 5 * width, jnp.max(nodes) + 5 * width, num_points)

    def at(t: jax.Array) -> jax.Array:
        return jnp.sum(weights * jax.scipy.stats.norm.pdf(t, nodes, width)) / num_probes

    return SpectralDensity(grid, jax.lax.map(at, grid), nodes, weights)


def dominant_eigenpair(
    operator: Operator,
    like: Params,
    key: jax.Array,
    *,
    num_iters: int = 100,
    tolerance: float = 1e-4,
) -> tuple[jax.Array, Any]:
    """Finds the eigenvalue of largest modulus, and its eigenvector, by power iteration.

    From a random v, until ``|A v - a v| <= tolerance |a|``. Memory is that of a few trees;
    Lanczos's method needs fewer products.

    Args:
      operator: A symmetric linear function from trees like `like` to such trees.
      like: A tree of real arrays; only its structure, shapes and dtypes count.
      key: A random key.
      num_iters: The largest number of iterations.
      tolerance: The relative error at which to stop.

    Returns:
      The eigenvalue, of shape (), and the eigenvector, of norm 1, a tree like `like`.

    Raises:
      TypeError: If a leaf of `like` is not real and floating-point.
      ValueError: If `num_iters` is not a positive integer, or the operator changes shapes.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import dominant_eigenpair
      >>> scales = jnp.array([1.0, -5.0])
      >>> value, _ = dominant_eigenpair(lambda v: scales * v, scales, jax.random.key(0))
      >>> print(f"{value:.3f}")
      -5.000
    """
    check_at_least("dominant_eigenpair", 1, num_iters=num_iters)
    space = Space("dominant_eigenpair", "like", like)
    value, vector = _power_iteration(
        cast(Operator, space.on_vectors(operator)),
        v0=space.draw(key, "normal"),
        num_iters=num_iters,
        error_tolerance=tolerance,
    )
    return value, space.tree(cast(jax.Array, vector))


def _space(function: str, like: Params, num_steps: int) -> Space:
    check_at_least(function, 1, num_steps=num_steps)
    space = Space(function, "like", like)
    if num_steps > space.size:
        raise ValueError(
            f"{function}: num_steps must be at most the number of parameters, {space.size}; "
            f"got {num_steps}."
        )
    return space


class _Step(NamedTuple):
    """The basis so far, zeros below it, and the size of A as seen so far."""

    basis: jax.Array
    size: jax.Array


def _lanczos(space: Space, operator: Operator, key: jax.Array, num_steps: int) -> Lanczos:
    product = space.on_vectors(operator)
    first, *keys = jax.random.split(key, num_steps + 1)

    def orthogonal(basis: jax.Array, w: jax.Array) -> jax.Array:
        for _ in range(2):  # twice is enough
            w = w - matmul(matmul(basis, w), basis)
        return w

    def advance(
        it: _Step, step: tuple[jax.Array, jax.Array]
    ) -> tuple[_Step, tuple[jax.Array, jax.Array]]:
        j, key = step
        image = product(it.basis[j])
        alpha = jnp.sum(it.basis[j] * image)
        w = orthogonal(it.basis, image)
        beta = jnp.linalg.norm(w)
        size = jnp.maximum(it.size, jnp.linalg.norm(image))
        ends = beta <= 4 * float(np.finfo(space.dtype).eps) * size
        w = jax.lax.cond(ends, lambda: orthogonal(it.basis, space.draw(key, "normal")), lambda: w)
        basis = it.basis.at[j + 1].set(_unit(w), mode="drop")
        return _Step(basis, size), (alpha, jnp.where(ends, 0, beta))

    start = _unit(space.draw(first, "normal"))
    basis = jnp.zeros((num_steps, space.size), space.dtype).at[0].set(start)
    steps = (jnp.arange(num_steps), jnp.stack(keys))
    last, (alphas, betas) = jax.lax.scan(advance, _Step(basis, jnp.zeros((), space.dtype)), steps)
    return Lanczos(alphas, betas[:-1], last.basis)


def _unit(w: jax.Array) -> jax.Array:
    length = jnp.linalg.norm(w)
    return w / jnp.where(length == 0, 1, length)


def _tridiagonal(found: Lanczos) -> jax.Array:
    beside = jnp.diag(found.off_diagonal, 1)
    return jnp.diag(found.diagonal) + beside + beside.T
