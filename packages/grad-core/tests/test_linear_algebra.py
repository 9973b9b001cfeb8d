"""Eigenvalues, inverse roots and least squares, against closed forms, NumPy and SciPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import linear_algebra


def symmetric(eigenvalues, seed=0):
    """A symmetric matrix with the given eigenvalues, and its eigenvectors, in float64."""
    n = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    return (q * eigenvalues) @ q.T, q


class TestGlobalNorm:
    def test_value(self):
        tree = {"a": jnp.array([3.0, 4.0]), "b": (jnp.array(12.0), None)}
        assert linear_algebra.global_norm(tree) == 13

    def test_issue_examples(self):
        half = linear_algebra.global_norm([jnp.full(1000, 200, jnp.float16)])
        np.testing.assert_allclose(half, 200 * math.sqrt(1000), rtol=1e-6)
        large = linear_algebra.global_norm([jnp.full(3, 1e20), jnp.full(1, 1e20)])
        np.testing.assert_allclose(large, 2e20, rtol=1e-5)

    def test_zero_gradient_and_empty(self):
        assert jnp.all(jax.grad(linear_algebra.global_norm)(jnp.zeros(3)) == 0)
        assert linear_algebra.global_norm({}) == 0


class TestPowerIteration:
    @pytest.mark.parametrize("sign", [1, -1])
    @pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])
    def test_finds_the_dominant_pair(self, sign, size):
        matrix, q = symmetric(np.array([0.5, 2.0, -1.0, 6.0]))
        value, vector = linear_algebra.power_iteration(jnp.float32(sign * size * matrix))
        np.testing.assert_allclose(value, sign * size * 6, rtol=1e-5)
        np.testing.assert_allclose(abs(q[:, 3] @ vector), 1, rtol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)

    def test_functions_of_trees(self):
        def apply(v):
            return {"a": 2 * v["a"], "b": (-5 * v["b"][0],)}

        v0 = {"a": jnp.ones(2), "b": (jnp.ones(1),)}
        value, vector = linear_algebra.power_iteration(apply, v0=v0)
        np.testing.assert_allclose(value, -5, rtol=1e-6)
        np.testing.assert_allclose(np.abs(vector["b"][0]), [1], rtol=1e-6)
        np.testing.assert_allclose(vector["a"], [0, 0], atol=1e-5)

    def test_start_seed_and_count(self):
        matrix = jnp.diag(jnp.array([2.0, 1.0]))
        # From an eigenvector it stays there; one step from (1, 1) gives (2, 1).
        value, _ = linear_algebra.power_iteration(matrix, v0=jnp.array([0.0, 1.0]))
        assert value == 1
        _, vector = linear_algebra.power_iteration(matrix, v0=jnp.ones(2), num_iters=1)
        np.testing.assert_allclose(vector, np.array([2, 1]) / math.sqrt(5), rtol=1e-6)
        first, second = (
            linear_algebra.power_iteration(matrix, key=jax.random.key(i), num_iters=0)[1]
            for i in (0, 1)
        )
        assert not np.allclose(first, second)

    def test_stops_at_the_tolerance(self):
        calls = []

        def apply(v):
            jax.debug.callback(lambda: calls.append(1))
            return jnp.array([2.0, 1.0]) * v

        for tolerance in (1e-1, 1e-4):
            calls.clear()
            linear_algebra.power_iteration(apply, v0=jnp.ones(2), error_tolerance=tolerance)
            jax.effects_barrier()
            # The residual relative to the eigenvalue is about 2^-(k+1) after k products more.
            assert len(calls) == pytest.approx(-math.log2(tolerance), abs=2)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.int32])
    def test_dtypes(self, dtype):
        value, vector = linear_algebra.power_iteration(jnp.array([[2, 1], [1, 2]], dtype))
        expected = jnp.float32 if dtype == jnp.int32 else dtype
        assert value.dtype == vector.dtype == expected
        assert float(value) == pytest.approx(3, rel=1e-2)

    def test_hermitian(self):
        value, _ = linear_algebra.power_iteration(jnp.array([[2, 1j], [-1j, 2]]))
        np.testing.assert_allclose(value, 3, rtol=1e-5)

    def test_zero_matrix_jit_and_vmap(self):
        batch = jnp.stack([jnp.zeros((2, 2)), jnp.eye(2), 3 * jnp.eye(2)])
        values, vectors = jax.jit(jax.vmap(linear_algebra.power_iteration))(batch)
        np.testing.assert_allclose(values, [0, 1, 3], rtol=1e-6)
        assert jnp.all(jnp.isfinite(vectors))

    def test_errors(self):
        with pytest.raises(ValueError, match=r"power_iteration: matrix .* got \(2, 3\)"):
            linear_algebra.power_iteration(jnp.ones((2, 3)))
        with pytest.raises(ValueError, match="power_iteration: v0 must be given"):
            linear_algebra.power_iteration(lambda v: v)


class TestMatrixInversePthRoot:
    @pytest.mark.parametrize(
        ("p", "size"), [*((p, 1.0) for p in (1, 2, 3, 4, 5, 6, 7, 8, 20)), (4, 1e20), (3, 1e-20)]
    )
    def test_every_power(self, p, size):
        eigenvalues = np.array([0.05, 0.3, 1.0, 2.0, 7.0])
        matrix, q = symmetric(eigenvalues)
        root, error = linear_algebra.matrix_inverse_pth_root(
            jnp.float32(size * matrix), p, ridge_epsilon=0.0
        )
        expected = (q * (size * eigenvalues) ** (-1 / p)) @ q.T
        # Rounding moves the smallest eigenvalue by about p * eps of the largest.
        accuracy = 4 * p * 140 * np.finfo(np.float32).eps * np.abs(expected).max()
        np.testing.assert_allclose(root, expected, rtol=0, atol=accuracy)
        assert error < 1e-4

    def test_ridge_is_relative_to_the_largest_eigenvalue(self):
        eigenvalues = np.array([1.0, 2.0, 5.0])
        matrix, q = symmetric(eigenvalues)
        root, _ = linear_algebra.matrix_inverse_pth_root(jnp.float32(matrix), 2, ridge_epsilon=0.1)
        np.testing.assert_allclose(root, (q * (eigenvalues + 0.5) ** -0.5) @ q.T, atol=1e-5)

    def test_singular_and_zero_matrices(self):
        root, _ = linear_algebra.matrix_inverse_pth_root(jnp.diag(jnp.array([1.0, 0.0])), 2)
        np.testing.assert_allclose(root, np.diag([1, 1e3]), rtol=1e-4)
        root, _ = linear_algebra.matrix_inverse_pth_root(jnp.zeros((2, 2)), 2)
        np.testing.assert_allclose(root, 1e3 * np.eye(2), rtol=1e-4)

    def test_few_iterations_tell_their_error(self):
        matrix = jnp.diag(jnp.array([1.0, 1e-4]))
        _, error = linear_algebra.matrix_inverse_pth_root(matrix, 4, num_iters=2)
        assert error > 0.1
        _, error = linear_algebra.matrix_inverse_pth_root(matrix, 4)
        assert error < 1e-5

    @pytest.mark.parametrize("p", [3, 4])
    def test_traced_p_jit_and_vmap(self, p):
        matrices = jnp.stack([jnp.eye(2), 16 * jnp.eye(2)])
        roots, _ = jax.jit(jax.vmap(linear_algebra.matrix_inverse_pth_root, in_axes=(0, None)))(
            matrices, p
        )
        expected = np.stack([np.eye(2), 16 ** (-1 / p) * np.eye(2)])
        np.testing.assert_allclose(roots, expected, atol=1e-5)

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.int32])
    def test_dtypes(self, dtype):
        root, error = linear_algebra.matrix_inverse_pth_root(4 * jnp.eye(2, dtype=dtype), 2)
        assert root.dtype == (jnp.float32 if dtype == jnp.int32 else dtype)
        assert error.dtype == jnp.float32
        np.testing.assert_allclose(np.float64(root), 0.5 * np.eye(2), rtol=1e-2)

    def test_hermitian(self):
        matrix = np.array([[2, 1j], [-1j, 2]])
        root, _ = linear_algebra.matrix_inverse_pth_root(jnp.complex64(matrix), 2)
        np.testing.assert_allclose(root @ root @ matrix, np.eye(2), atol=1e-4)

    @pytest.mark.parametrize("p", [0, -2, 1.5])
    def test_p_must_be_a_positive_integer(self, p):
        with pytest.raises(ValueError, match="p must be a positive integer"):
            linear_algebra.matrix_inverse_pth_root(jnp.eye(2), p)

    def test_matrix_must_be_square(self):
        with pytest.raises(ValueError, match=r"matrix_inverse_pth_root: matrix .* got \(3,\)"):
            linear_algebra.matrix_inverse_pth_root(jnp.ones(3), 2)


class TestNnls:
    @pytest.mark.parametrize("shape", [(8, 4), (20, 10), (6, 6)])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_is_optimal(self, shape, seed):
        """The conditions of Karush, Kuhn and Tucker, which no implementation can argue with."""
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=shape), rng.normal(size=shape[0])
        x = np.float64(linear_algebra.nnls(jnp.float32(a), jnp.float32(b), iters=3000))
        gradient = a.T @ (a @ x - b)
        assert np.all(x >= 0)
        assert np.all(gradient >= -1e-3)
        np.testing.assert_allclose(gradient[x > 1e-3], 0, atol=1e-3)

    def test_agrees_with_scipy(self):
        optimize = pytest.importorskip("scipy.optimize")
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=(20, 5)), rng.normal(size=20)
        expected, _ = optimize.nnls(a, b)
        assert 0 < np.sum(expected > 0) < 5
        actual = linear_algebra.nnls(jnp.float32(a), jnp.float32(b), iters=500)
        np.testing.assert_allclose(actual, expected, atol=1e-5)
        unrolled = linear_algebra.nnls(jnp.float32(a), jnp.float32(b), iters=500, unroll=5)
        np.testing.assert_allclose(unrolled, expected, atol=1e-5)
        bound = float(np.linalg.norm(a) ** 2)
        given = linear_algebra.nnls(jnp.float32(a), jnp.float32(b), iters=500, L=bound)
        np.testing.assert_allclose(given, expected, atol=1e-5)

    def test_is_accelerated(self):
        # The condition number is 1e4: plain gradient descent would need some 1e4 steps.
        a = jnp.diag(jnp.array([1.0, 1e-2]))
        x = linear_algebra.nnls(a, a @ jnp.array([1.0, 1.0]), iters=600)
        np.testing.assert_allclose(x, [1, 1], atol=1e-2)

    def test_columns_are_problems_of_their_own(self):
        rng = np.random.default_rng(0)
        a, b = jnp.float32(rng.normal(size=(8, 3))), jnp.float32(rng.normal(size=(8, 2)))
        both = linear_algebra.nnls(a, b, 300)
        one_by_one = jnp.stack([linear_algebra.nnls(a, b[:, i], 300) for i in (0, 1)], axis=1)
        np.testing.assert_allclose(both, one_by_one, atol=1e-5)

    def test_gradient_is_the_least_squares_gradient_on_the_support(self):
        a = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        b = np.array([4.0, -9.0, 1.0])  # the second coordinate is held at zero
        gradient = jax.grad(lambda b: linear_algebra.nnls(jnp.float32(a), b, 300).sum())
        expected = np.linalg.pinv(a[:, :1])[0]
        np.testing.assert_allclose(gradient(jnp.float32(b)), expected, atol=1e-4)

    def test_edge_cases(self):
        assert jnp.all(linear_algebra.nnls(jnp.zeros((3, 2)), jnp.ones(3), 10) == 0)
        assert jnp.all(linear_algebra.nnls(jnp.eye(2), -jnp.ones(2), 10) == 0)
        assert jnp.all(linear_algebra.nnls(jnp.eye(2), jnp.ones(2), 0) == 0)
        integers = linear_algebra.nnls(jnp.eye(2, dtype=int), jnp.array([1, -2]), 50)
        np.testing.assert_allclose(integers, [1, 0], atol=1e-5)
        half = linear_algebra.nnls(jnp.eye(2, dtype=jnp.float16), jnp.ones(2, jnp.float16), 50)
        assert half.dtype == jnp.float16

    def test_jit_and_vmap(self):
        solve = jax.jit(jax.vmap(lambda b: linear_algebra.nnls(jnp.eye(2), b, 50)))
        np.testing.assert_allclose(
            solve(jnp.array([[1.0, -1.0], [-2.0, 3.0]])), [[1, 0], [0, 3]], atol=1e-5
        )

    @pytest.mark.parametrize("shapes", [((3,), (3,)), ((3, 2), (2,)), ((2, 3, 2), (3,))])
    def test_shapes_must_fit(self, shapes):
        with pytest.raises(ValueError, match=r"nnls: A must be of shape \(m, n\)"):
            linear_algebra.nnls(jnp.ones(shapes[0]), jnp.ones(shapes[1]), 10)
