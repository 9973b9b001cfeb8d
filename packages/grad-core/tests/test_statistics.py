"""First values of statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import copy_of, first_moment, full_like, second_moment, zeros_like
from grad_core.statistics import at_least_float32


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 0.0, 1e38])
@pytest.mark.parametrize("compiled", [False, True])
def test_zeros_whatever_the_parameter(bad, compiled):
    make = jax.jit(zeros_like) if compiled else zeros_like
    zeros = make(jnp.full((2, 3), bad))
    assert zeros.shape == (2, 3)
    assert zeros.dtype == jnp.float32
    assert not zeros.weak_type
    assert (zeros == 0).all()
    assert not np.signbit(zeros).any()


@pytest.mark.parametrize(
    ("dtype", "first", "second"),
    [
        (jnp.float16, jnp.float16, jnp.float32),
        (jnp.bfloat16, jnp.bfloat16, jnp.float32),
        (jnp.float32, jnp.float32, jnp.float32),
        (jnp.complex64, jnp.complex64, jnp.float32),
    ],
)
def test_the_dtypes_of_moments(dtype, first, second):
    p = jnp.ones(3, dtype)
    assert first_moment()(p).dtype == first
    assert second_moment()(p).dtype == second
    assert at_least_float32(p) == second
    assert first_moment(jnp.float32)(p).dtype == jnp.float32
    assert second_moment(jnp.bfloat16)(p).dtype == jnp.bfloat16


def test_the_dtypes_of_moments_under_x64():
    with jax.enable_x64(True):
        assert second_moment()(jnp.ones(3, jnp.float64)).dtype == jnp.float64
        assert second_moment()(jnp.ones(3, jnp.complex128)).dtype == jnp.float64
        assert second_moment()(jnp.ones(3, jnp.float32)).dtype == jnp.float32


def test_full_like():
    full = full_like(jnp.ones((2, 1), jnp.bfloat16), 0.5)
    assert full.dtype == jnp.bfloat16
    assert (full == 0.5).all()
    assert full_like(jnp.ones(2, jnp.float32), 2, jnp.int32).dtype == jnp.int32


def test_copies_outlive_what_is_donated():
    p = jnp.arange(3.0)
    copy = copy_of(p)
    assert copy.unsafe_buffer_pointer() != p.unsafe_buffer_pointer()
    p.delete()
    np.testing.assert_array_equal(copy, [0.0, 1.0, 2.0])
    assert copy_of(copy, jnp.bfloat16).dtype == jnp.bfloat16
    assert (copy_of(jax.ShapeDtypeStruct((2,), jnp.float16)) == 0).all()


def test_shapes_stand_for_arrays():
    p = jax.ShapeDtypeStruct((2, 3), jnp.bfloat16)
    assert zeros_like(p).shape == (2, 3)
    assert zeros_like(p).dtype == jnp.bfloat16
    assert second_moment()(p).dtype == jnp.float32
    assert (full_like(p, 2.0) == 2).all()


@pytest.mark.parametrize("p", [1.5, np.float64(1.5), np.ones((), np.float32)])
def test_numbers_are_arrays_of_no_dimension(p):
    zeros = zeros_like(p)
    assert zeros.shape == ()
    assert zeros.dtype == jnp.float32
