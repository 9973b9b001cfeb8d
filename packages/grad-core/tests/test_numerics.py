"""Counters, safe elementwise functions and norms, against closed forms and NumPy in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import numerics
from grad_core.gradients import scale_gradient

FLOATS = (jnp.float16, jnp.bfloat16, jnp.float32)


def assert_close(actual, expected, rtol=1e-6, atol=0.0):
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=rtol, atol=atol)


class TestIncrement:
    @pytest.mark.parametrize("increment", [numerics.safe_increment, numerics.safe_int32_increment])
    @pytest.mark.parametrize(
        "dtype", [jnp.int8, jnp.uint8, jnp.int16, jnp.int32, jnp.uint32, *FLOATS]
    )
    def test_adds_one_and_saturates(self, increment, dtype):
        limits = jnp.iinfo if jnp.issubdtype(dtype, jnp.integer) else jnp.finfo
        largest = jnp.asarray(limits(dtype).max, dtype)
        assert increment(jnp.asarray(3, dtype)) == 4
        assert increment(largest) == largest
        assert increment(largest).dtype == dtype

    def test_last_step_before_saturation(self):
        assert int(numerics.safe_increment(jnp.int8(126))) == 127

    def test_python_number_gives_a_strong_type(self):
        assert not numerics.safe_increment(3).weak_type

    @pytest.mark.parametrize("count", [True, 1j])
    def test_refuses_bool_and_complex(self, count):
        with pytest.raises(ValueError, match=r"safe_increment: count must be of an integer or"):
            numerics.safe_increment(count)


class TestOneMinusPower:
    @pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 1 - 1e-6, 1 - 1e-9])
    @pytest.mark.parametrize("count", [1, 7, 1000])
    def test_static_decay_keeps_all_digits(self, decay, count):
        # 1 - d^n = (1 - d) (1 + d + ... + d^(n-1)) does not cancel either.
        exact = (1 - decay) * math.fsum(decay**i for i in range(count))
        assert_close(numerics.one_minus_power(decay, jnp.int32(count)), exact, rtol=1e-6)

    @pytest.mark.parametrize("decay", [0.0, 0.3, 0.9, 0.999, 0.99999])
    def test_traced_decay_keeps_all_digits_of_its_float32_value(self, decay):
        rounded = float(np.float32(decay))
        exact = (1 - rounded) * math.fsum(rounded**i for i in range(5))
        actual = jax.jit(numerics.one_minus_power)(jnp.float32(decay), 5)
        assert_close(actual, exact, rtol=1e-6)

    def test_end_points(self):
        assert numerics.one_minus_power(1.0, 5) == 0
        assert numerics.one_minus_power(0.9, 0) == 0
        assert numerics.one_minus_power(0.0, 0) == 0
        assert numerics.one_minus_power(jnp.float32(0.0), 0) == 0
        assert_close(numerics.one_minus_power(-0.5, 3), 1.125)
        assert_close(numerics.one_minus_power(jnp.float32(-0.5), 3), 1.125)

    def test_gradient_in_the_decay(self):
        assert_close(jax.grad(numerics.one_minus_power)(jnp.float32(0.9), 3), -3 * 0.9**2)

    def test_float64(self):
        with jax.enable_x64(True):
            actual = numerics.one_minus_power(0.999, jnp.int32(3))
            assert actual.dtype == jnp.float64
            assert_close(actual, 1 - 0.999**3, rtol=1e-13)


class TestElementwise:
    def test_abs_sq(self):
        assert_close(numerics.abs_sq(jnp.array([3 + 4j, -1j])), [25, 1])
        assert_close(numerics.abs_sq(jnp.array([-3.0])), [9])
        assert isinstance(numerics.abs_sq(np.array([2.0])), np.ndarray)
        assert_close(jax.grad(lambda x: numerics.abs_sq(x)[0])(jnp.zeros(1)), [0])

    @pytest.mark.parametrize("x", [3.0, None, [1.0]])
    def test_abs_sq_wants_arrays(self, x):
        with pytest.raises(ValueError, match="abs_sq: x must be a jax or numpy array"):
            numerics.abs_sq(x)

    def test_safe_sqrt(self):
        x = jnp.array([0.0, 4.0])
        assert_close(numerics.safe_sqrt(x), [0, 2])
        assert_close(jax.grad(lambda x: numerics.safe_sqrt(x).sum())(x), [0, 0.25])
        assert jnp.isnan(numerics.safe_sqrt(jnp.array(-1.0)))

    def test_safe_divide(self):
        x, y = jnp.array([1.0, 1.0]), jnp.array([0.0, 4.0])
        assert_close(numerics.safe_divide(x, y), [0, 0.25])
        by_x, by_y = jax.grad(lambda x, y: numerics.safe_divide(x, y).sum(), (0, 1))(x, y)
        assert_close(by_x, [0, 0.25])
        assert_close(by_y, [0, -1 / 16])

    def test_dtypes(self):
        assert numerics.widen(jnp.float16(1)).dtype == jnp.float32
        assert numerics.widen(jnp.complex64(1j)).dtype == jnp.complex64
        assert numerics.inexact_dtype(jnp.int32(1)) == jnp.float32
        assert numerics.inexact_dtype(jnp.int32(1), jnp.bfloat16(1)) == jnp.bfloat16
        assert numerics.real_dtype(jnp.complex64(1j)) == jnp.float32
        assert numerics.real_dtype(jnp.bfloat16(1)) == jnp.bfloat16


class TestRootSumSquares:
    @pytest.mark.parametrize("size", [1e-35, 1e-25, 1e-12, 1e-3, 1.0, 1e10, 1e19, 1e20, 1e36])
    def test_has_no_overflow_and_no_underflow(self, size):
        x = np.random.default_rng(0).normal(size=1000) * size
        expected = math.sqrt(math.fsum(np.float64(np.float32(x)) ** 2))
        for norm in (numerics.root_sum_squares, jax.jit(numerics.root_sum_squares)):
            assert_close(norm([jnp.float32(x[:10]), jnp.float32(x[10:])]), expected, rtol=1e-5)

    def test_large_and_tiny_leaves_together(self):
        assert_close(numerics.root_sum_squares([jnp.array([3e20, 4e20]), jnp.array(1e-25)]), 5e20)

    def test_low_precision_is_accumulated_in_float32(self):
        norm = numerics.root_sum_squares([jnp.full(1000, 200, jnp.float16)])
        assert norm.dtype == jnp.float32
        assert_close(norm, 200 * math.sqrt(1000))
        many = numerics.root_sum_squares([jnp.ones(2**20, jnp.bfloat16)])
        assert_close(many, 2**10)

    def test_integers_complex_numbers_and_python_numbers(self):
        assert_close(numerics.root_sum_squares([jnp.array([3, 4])]), 5)
        assert_close(numerics.root_sum_squares([jnp.array([3 + 4j]), 12]), 13)
        # Inside a trace, beside a tracer.
        assert_close(jax.jit(lambda x: numerics.root_sum_squares([x, 4.0, np.zeros(2)]))(3.0), 5)

    def test_non_finite(self):
        assert jnp.isinf(numerics.root_sum_squares([jnp.array([1.0, jnp.inf])]))
        assert jnp.isnan(numerics.root_sum_squares([jnp.array([1.0, jnp.nan])]))

    @pytest.mark.parametrize("size", [1e-25, 1.0, 1e20])
    def test_gradient_is_the_unit_vector(self, size):
        x = size * jnp.array([3.0, -4.0])
        gradient = jax.grad(lambda x: numerics.root_sum_squares([x]))
        assert_close(gradient(x), [0.6, -0.8])
        assert_close(jax.vmap(gradient)(jnp.stack([x, jnp.zeros(2)])), [[0.6, -0.8], [0, 0]])
        assert_close(jax.grad(lambda x: numerics.root_sum_squares([x[:1], x[1:]]))(x), [0.6, -0.8])

    def test_gradient_of_complex_input_is_the_conjugate_unit(self):
        x = jnp.array([3 + 4j])
        gradient = jax.grad(lambda x: numerics.root_sum_squares([x]))(x)
        expected = jax.grad(lambda x: jnp.abs(x[0]))(x)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)
        np.testing.assert_allclose(gradient, [0.6 - 0.8j], rtol=1e-6)

    def test_second_derivatives(self):
        # The Hessian of ||x|| is (I - u u^T) / ||x||.
        x = jnp.array([3.0, 4.0])
        u = np.array([0.6, 0.8])
        hessian = jax.hessian(lambda x: numerics.root_sum_squares([x]))
        assert_close(hessian(x), (np.eye(2) - np.outer(u, u)) / 5, rtol=1e-5)
        assert jnp.all(jnp.isfinite(hessian(jnp.zeros(2))))

    def test_vmap_is_a_loop(self):
        xs = jnp.array([[3e20, 4e20], [3.0, 4.0], [3e-25, 4e-25], [0.0, 0.0]])
        norms = jax.vmap(lambda x: numerics.root_sum_squares([x]))(xs)
        assert_close(norms, [5e20, 5, 5e-25, 0])

    def test_constants_of_compiled_code(self):
        for x in (np.zeros(3), np.array([3.0, 4.0]), np.full(4, 2e15)):
            norm = jax.jit(lambda x=x: numerics.root_sum_squares([jnp.asarray(x, jnp.float32)]))
            assert_close(norm(), np.linalg.norm(x), rtol=1e-6)

    def test_float64(self):
        with jax.enable_x64(True):
            for size in (1e-250, 1.0, 1e250):
                norm = numerics.root_sum_squares([size * jnp.array([3.0, 4.0])])
                assert norm.dtype == jnp.float64
                assert_close(norm, 5 * size, rtol=1e-14)


class TestSafeNorm:
    @pytest.mark.parametrize("ord", [None, 1, 2, 3, 0.5, np.inf, -np.inf, 0])
    @pytest.mark.parametrize("axis", [0, 1, -1])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_vector_norms_are_numpys(self, ord, axis, keepdims):
        x = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
        expected = np.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
        actual = numerics.safe_norm(jnp.asarray(x), 0.0, ord, axis, keepdims)
        assert_close(actual, expected, rtol=1e-5)

    @pytest.mark.parametrize("ord", [None, "fro", "nuc", 1, -1, 2, -2, np.inf])
    @pytest.mark.parametrize("axis", [None, (0, 1)])
    @pytest.mark.parametrize("keepdims", [False, True])
    def test_matrix_norms_are_numpys(self, ord, axis, keepdims):
        x = np.array([[1.0, -2.0, 3.0], [0.5, 4.0, -1.0]])
        expected = np.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
        actual = numerics.safe_norm(jnp.asarray(x), 0.0, ord, axis, keepdims)
        assert actual.shape == expected.shape
        assert_close(actual, expected, rtol=1e-5)

    @pytest.mark.parametrize("ord", [None, 1, 2, np.inf])
    @pytest.mark.parametrize("axis", [None, 0])
    def test_floor_has_no_gradient(self, ord, axis):
        def norm(x):
            return jnp.sum(numerics.safe_norm(x, 1.0, ord, axis))

        for x in (jnp.zeros(3), jnp.full(3, 1e-3)):
            assert norm(x) == 1
            assert_close(jax.grad(norm)(x), [0, 0, 0])
        assert_close(norm(jnp.array([0.0, 2.0, 0.0])), 2)
        assert jax.grad(norm)(jnp.array([0.0, 2.0, 0.0]))[1] == 1

    @pytest.mark.parametrize("axis", [None, 1])
    def test_gradient_at_zero_is_zero_without_floor(self, axis):
        gradient = jax.grad(lambda x: numerics.safe_norm(x, 0.0, axis=axis).sum())
        assert_close(gradient(jnp.zeros((2, 2))), np.zeros((2, 2)))

    @pytest.mark.parametrize("axis", [None, 0])
    def test_extremes(self, axis):
        for size in (1e-25, 1e20):
            assert_close(numerics.safe_norm(size * jnp.array([3.0, 4.0]), 0.0, axis=axis), 5 * size)
        low = numerics.safe_norm(jnp.full(1000, 200, jnp.float16), 0.0, axis=axis)
        assert low.dtype == jnp.float16
        assert_close(low, 200 * math.sqrt(1000), rtol=1e-3)

    def test_dtypes(self):
        assert numerics.safe_norm(jnp.array([3, 4]), 0.0).dtype == jnp.float32
        assert numerics.safe_norm(jnp.array([3j, 4]), 0.0) == 5
        assert numerics.safe_norm(np.array([3.0, 4.0], np.float32), 0.0) == 5

    def test_root_mean_squares(self):
        x = jnp.array([1.0, -7.0])
        assert_close(numerics.safe_root_mean_squares(x, 1e-3), 5)
        assert_close(numerics.safe_root_mean_squares(1e25 * x, 1e-3), 5e25)
        assert_close(numerics.safe_root_mean_squares(jnp.array([3 + 4j, 0]), 1e-3), 5 / 2**0.5)
        # d rms / dx = x / (n rms)
        assert_close(jax.grad(numerics.safe_root_mean_squares)(x, 0.0), [0.1, -0.7])
        assert_close(jax.grad(numerics.safe_root_mean_squares)(jnp.zeros(2), 0.0), [0, 0])
        assert_close(numerics.safe_root_mean_squares(jnp.zeros(2), 0.25), 0.25)
        assert_close(numerics.safe_root_mean_squares(jnp.zeros(0), 0.25), 0.25)
        assert numerics.safe_root_mean_squares(jnp.ones(2, jnp.float16), 0.0).dtype == jnp.float16


class TestScaleGradient:
    @pytest.mark.parametrize("scale", [0, 1, -1.0, 0.25, np.float32(2.0)])
    def test_value_and_gradient(self, scale):
        def f(x):
            return jnp.sum(scale_gradient({"a": x}, scale)["a"] ** 2)

        x = jnp.array([1.0, -3.0])
        value, gradient = jax.value_and_grad(f)(x)
        assert value == 10
        assert_close(gradient, float(scale) * 2 * x)

    def test_traced_scale_forward_mode_and_hessian(self):
        x = jnp.array([1.0, -3.0])

        def f(x, s):
            return jnp.sum(scale_gradient(x, s) ** 2)

        assert_close(jax.jit(jax.grad(f))(x, 0.5), x)
        assert_close(jax.jvp(lambda x: scale_gradient(x, 0.5), (x,), (x,))[1], 0.5 * x)
        # The derivative of the gradient, 2 * s * x.
        assert_close(jax.hessian(f)(x, 0.5), np.eye(2))
        assert jax.grad(f, 1)(x, 0.5) == 0

    def test_zero_stops_gradients_that_are_not_finite(self):
        gradient = jax.grad(lambda x: jnp.sqrt(scale_gradient(x, 0)))(0.0)
        assert gradient == 0

    def test_leaves_without_gradient_pass(self):
        tree = {"i": jnp.array([1, 2]), "n": None, "h": jnp.ones(2, jnp.float16)}
        out = scale_gradient(tree, 0.5)
        assert out["n"] is None
        assert out["i"].dtype == jnp.int32
        gradient = jax.grad(lambda x: scale_gradient(x, jnp.float32(0.5)).sum())(tree["h"])
        assert gradient.dtype == jnp.float16
        assert_close(gradient, [0.5, 0.5])
