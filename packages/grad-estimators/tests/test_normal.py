"""`multi_normal` against scipy's density and the moments of its samples."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_estimators import multi_normal

scipy_stats = pytest.importorskip("scipy.stats")  # jax brings scipy

LOC, LOG_SCALE = np.array([1.0, -2.0, 0.5]), np.array([0.3, -1.0, 0.0])
KEY = jax.random.key(0)


@pytest.mark.parametrize("shape", [(), (4,), (2, 4)])
def test_density(shape):
    points = np.random.default_rng(0).normal(size=(*shape, 3))
    expected = scipy_stats.norm.logpdf(points, LOC, np.exp(LOG_SCALE)).sum(-1)
    found = multi_normal(LOC, LOG_SCALE).log_prob(points)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_scale_for_all_coordinates():
    points = np.random.default_rng(0).normal(size=(4, 3))
    expected = scipy_stats.norm.logpdf(points, LOC, np.exp(0.7)).sum(-1)
    np.testing.assert_allclose(multi_normal(LOC, 0.7).log_prob(points), expected, rtol=1e-5)


def test_a_number_has_a_density_of_its_own():
    found = multi_normal(0.0, 0.0).log_prob(jnp.zeros(2))
    np.testing.assert_allclose(found, [-0.5 * np.log(2 * np.pi)] * 2, rtol=1e-6)


def test_samples_have_the_mean_and_the_scale():
    samples = multi_normal(LOC, LOG_SCALE).sample((100_000,), KEY)
    scale = np.exp(LOG_SCALE)
    np.testing.assert_allclose(samples.mean(0), LOC, atol=4 * scale.max() / 100_000**0.5)
    np.testing.assert_allclose(samples.std(0), scale, rtol=4 / (2 * 100_000) ** 0.5)


def test_both_ways_to_ask_for_samples():
    normal = multi_normal(LOC, LOG_SCALE)
    first = normal.sample((2, 5), KEY)
    assert first.shape == (2, 5, 3)
    np.testing.assert_array_equal(normal.sample(seed=KEY, sample_shape=(2, 5)), first)
    np.testing.assert_array_equal(normal.sample(5, KEY), normal.sample((5,), KEY))
    assert normal.sample(key=KEY).shape == (3,)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_samples_keep_the_dtype(dtype):
    normal = multi_normal(jnp.zeros(3, dtype), jnp.zeros(3, dtype))
    assert normal.sample((2,), KEY).dtype == dtype


def test_samples_are_differentiable():
    def mean_square(loc, log_scale):
        return jnp.mean(multi_normal(loc, log_scale).sample((100_000,), KEY) ** 2)

    d_loc, d_log_scale = jax.grad(mean_square, (0, 1))(0.5, -0.5)
    np.testing.assert_allclose(d_loc, 2 * 0.5, rtol=0.02)
    np.testing.assert_allclose(d_log_scale, 2 * np.exp(-1.0), rtol=0.02)


def test_it_is_a_pytree_with_its_parameters_as_leaves():
    normal = multi_normal(LOC, LOG_SCALE)
    assert [x.shape for x in jax.tree.leaves(normal)] == [(3,), (3,)]
    doubled = jax.jit(lambda n: jax.tree.map(lambda x: 2 * x, n))(normal)
    assert type(doubled) is type(normal)
    np.testing.assert_allclose(doubled.params[0], 2 * LOC)
    np.testing.assert_allclose(doubled.log_scale, 2 * LOG_SCALE)
    assert repr(multi_normal(0.0, 1.0)).startswith("multi_normal(loc=")


def test_bad_input():
    normal = multi_normal(LOC, LOG_SCALE)
    for keys in ({}, {"key": KEY, "seed": KEY}):
        with pytest.raises(TypeError, match="multi_normal: sample\\(\\) needs one random key"):
            normal.sample((2,), **keys)
    text = "multi_normal: log_prob() takes points of shape (..., 3,); got (2,)."
    with pytest.raises(ValueError, match=re.escape(text)):
        normal.log_prob(np.zeros(2))
