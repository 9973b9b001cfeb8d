"""Lanczos, spectral densities, power iteration, conjugate gradients: against dense matrices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_second_order as gso

A = np.random.default_rng(0).normal(size=(30, 30))
A = A + A.T
KEY = jax.random.key(0)


def split(x: jax.Array) -> dict:
    return {"a": x[:10].reshape(2, 5), "b": x[10:]}


def times(matrix: jax.Array) -> Callable[[dict], dict]:
    """A symmetric matrix as an operator on trees of 30 numbers."""

    def multiply(v: dict) -> dict:
        flat = jnp.concatenate([v["a"].ravel(), v["b"]])
        return split(jnp.matmul(matrix, flat, precision=jax.lax.Precision.HIGHEST))

    return multiply


LIKE = split(jnp.zeros(30))


def test_all_eigenvalues() -> None:
    """Also of degenerate spectra, where the first vector's subspace ends early."""

    @jax.jit
    def compute(matrix: jax.Array) -> tuple:
        operator = times(matrix)
        return (
            gso.lanczos_eigenvalues(operator, LIKE, KEY, num_steps=30),
            gso.lanczos_tridiagonal(operator, LIKE, KEY, num_steps=30),
        )

    q, _ = np.linalg.qr(A)
    few = np.repeat([-1.0, 2.0, 2.5], 10)
    for matrix, exact in [
        (A, np.linalg.eigvalsh(A)),
        (q * few @ q.T, few),
        (np.eye(30), np.ones(30)),
        (np.zeros((30, 30)), np.zeros(30)),
    ]:
        values, found = compute(jnp.asarray(matrix, jnp.float32))
        np.testing.assert_allclose(values, exact, atol=1e-4)
        basis = np.asarray(found.basis, np.float64)
        np.testing.assert_allclose(basis @ basis.T, np.eye(30), atol=1e-5)
        t = np.diag(np.asarray(found.diagonal)) + np.diag(found.off_diagonal, 1)
        t = t + np.diag(found.off_diagonal, -1)
        np.testing.assert_allclose(basis @ matrix @ basis.T, t, atol=1e-4)


@jax.jit
def density(matrix: jax.Array) -> gso.SpectralDensity:
    return gso.spectral_density(times(matrix), LIKE, KEY, num_steps=8, num_probes=200)


def test_spectral_density() -> None:
    """Its moments are those of the spectrum, as the quadrature is exact for polynomials."""
    found = density(jnp.asarray(A, jnp.float32))
    np.testing.assert_allclose(np.sum(found.weights, axis=1), 1, rtol=1e-5)
    assert np.all(found.weights >= 0)
    np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1, rtol=1e-3)
    for power in (1, 2, 3, 4):
        samples = np.sum(np.asarray(found.weights, np.float64) * found.nodes**power, axis=1)
        exact = np.mean(np.linalg.eigvalsh(A) ** power)
        assert abs(samples.mean() - exact) <= 5 * samples.std() / np.sqrt(200)
    mean = np.trapezoid(found.density * found.grid, found.grid)
    np.testing.assert_allclose(mean, np.mean(np.sum(found.weights * found.nodes, 1)), atol=1e-2)


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_spectral_density_of_one_eigenvalue_is_finite(value: float) -> None:
    found = density(value * jnp.eye(30))
    np.testing.assert_allclose(np.trapezoid(found.density, found.grid), 1, rtol=1e-2)
    assert abs(found.grid[np.argmax(found.density)] - value) < 0.01


def test_outer_eigenvalues_come_first() -> None:
    spectrum = jnp.concatenate([jnp.linspace(-1, 1, 28), jnp.array([5.0, -9.0])])

    @jax.jit
    def compute(matrix: jax.Array) -> tuple:
        operator = times(matrix)
        values = gso.lanczos_eigenvalues(operator, LIKE, KEY, num_steps=10)
        return values, gso.dominant_eigenpair(operator, LIKE, KEY)

    values, (value, vector) = compute(jnp.diag(spectrum))
    np.testing.assert_allclose([values[0], values[-1], value], [-9, 5, -9], rtol=1e-5)
    assert jax.tree.map(jnp.shape, vector) == {"a": (2, 5), "b": (20,)}
    np.testing.assert_allclose(abs(vector["b"][-1]), 1, rtol=1e-5)


def test_conjugate_gradient() -> None:
    b = np.random.default_rng(1).normal(size=30)
    definite = A @ A / 30

    @jax.jit
    @jax.vmap
    def solve(matrix: jax.Array, damping: jax.Array, b: jax.Array) -> tuple:
        return gso.conjugate_gradient(times(matrix), split(b), damping=damping, tolerance=1e-5)

    matrices = np.stack([definite, definite, definite, np.zeros((30, 30))])
    dampings, sides = [0.0, 0.5, 0.5, 0.0], np.stack([b, b, 0 * b, b])
    found = solve(*(jnp.asarray(x, jnp.float32) for x in (matrices, dampings, sides)))
    flat = np.concatenate([found.solution["a"].reshape(4, 10), found.solution["b"]], axis=1)
    want = np.linalg.solve(definite + 0.5 * np.eye(30), b)
    np.testing.assert_allclose(flat[1], want, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(flat[2], 0)  # nothing to solve
    # No solution: said, not silent.
    np.testing.assert_array_equal(found.converged[1:], [True, True, False])
    residual = np.linalg.norm(definite @ flat[0] - b) / np.linalg.norm(b)
    np.testing.assert_allclose(found.residual[0], residual, rtol=0.1, atol=1e-5)


def test_asymmetry() -> None:
    compute = jax.jit(lambda matrix: gso.asymmetry(times(matrix), LIKE, KEY))
    assert compute(jnp.asarray(A, jnp.float32)) < 1e-5
    assert compute(jnp.asarray(np.triu(A), jnp.float32)) > 1e-3
    assert compute(jnp.zeros((30, 30))) == 0


def test_narrow_dtypes() -> None:
    """bfloat16 in and out, float32 between: the basis stays orthogonal."""

    @jax.jit
    def compute(b: jax.Array) -> tuple:
        def operator(v: jax.Array) -> jax.Array:
            return v * jnp.arange(8, dtype=v.dtype)

        solution = gso.conjugate_gradient(operator, b, damping=1.0).solution
        return gso.lanczos_tridiagonal(operator, b, KEY, num_steps=5), solution

    found, solution = compute(jnp.ones(8, jnp.bfloat16))
    assert found.basis.dtype == jnp.float32
    np.testing.assert_allclose(found.basis @ found.basis.T, np.eye(5), atol=1e-5)
    assert solution.dtype == jnp.bfloat16


def test_errors() -> None:
    operator = times(jnp.eye(30))
    for bad in (0, 31, 2.0):
        with pytest.raises(ValueError, match=rf"spectral_density: num_steps must be .* got {bad}"):
            gso.spectral_density(operator, LIKE, KEY, num_steps=bad)
    with pytest.raises(ValueError, match=r"spectral_density: num_probes must be .* got 0"):
        gso.spectral_density(operator, LIKE, KEY, num_steps=2, num_probes=0)
    with pytest.raises(ValueError, match=r"spectral_density: width must be > 0; got 0"):
        gso.spectral_density(operator, LIKE, KEY, num_steps=2, width=0)
    with pytest.raises(ValueError, match=r"conjugate_gradient: damping must be >= 0; got -1"):
        gso.conjugate_gradient(operator, LIKE, damping=-1)
    with pytest.raises(ValueError, match=r"conjugate_gradient: max_iters must be .* got 0"):
        gso.conjugate_gradient(operator, LIKE, max_iters=0)
    with pytest.raises(ValueError, match=r"dominant_eigenpair: num_iters must be .* got -3"):
        gso.dominant_eigenpair(operator, LIKE, KEY, num_iters=-3)
    with pytest.raises(ValueError, match=r"b\['a'\] has no counterpart in operator\(b\)"):
        gso.conjugate_gradient(lambda v: v["a"], LIKE)
