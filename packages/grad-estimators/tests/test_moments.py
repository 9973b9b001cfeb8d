"""Moments in batches: equal to those of all samples at once, in the memory of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(0)
PARAMS = [jnp.array([0.5, -1.0]), jnp.array([0.1, -0.3])]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 3), (9, 3), (2, 5), (4, 1)])
def test_moments_of_all_batches(count, batch_size):
    drawn = []

    def recorded(function, params, dist_builder, rng, num_samples):
        x = 5 + jax.random.normal(rng, (num_samples, 2))
        jax.debug.callback(lambda x: drawn.append(x), x)
        return [x]

    mean, variance = ge.jacobian_moments(
        recorded, jnp.sum, [jnp.zeros(2)], ge.multi_normal, KEY, count, batch_size=batch_size
    )
    jax.effects_barrier()
    samples = np.concatenate(drawn)
    assert samples.shape == (count, 2)
    assert len(np.unique(samples)) == 2 * count
    np.testing.assert_allclose(mean[0], samples.mean(0), rtol=1e-5)
    np.testing.assert_allclose(variance[0], samples.var(0), rtol=1e-4, atol=1e-6)


def compiled(count):
    def run(key):
        return ge.jacobian_moments(
            ge.score_function_jacobians, jnp.sum, PARAMS, ge.multi_normal, key, count, batch_size=64
        )

    return jax.jit(run).lower(KEY).compile()


def test_memory_is_that_of_a_batch():
    few, many = compiled(640), compiled(64_000)
    keys = 64_000 // 64 * 3 * 4  # of two words, and a count, for each batch
    more = many.memory_analysis().temp_size_in_bytes - few.memory_analysis().temp_size_in_bytes
    assert more < 4 * keys
    mean, variance = many(KEY)
    m, s = (np.asarray(p, float) for p in (PARAMS[0], jnp.exp(PARAMS[1])))
    error = np.sqrt(np.array(variance) / 64_000)
    assert (np.abs(np.array(mean) - [[1, 1], [0, 0]]) < 4 * error).all()
    # f z / s, with f = sum(m) + s . z
    exact = (np.sum(m) ** 2 + np.sum(s**2) + 2 * s**2) / s**2 - 1
    np.testing.assert_allclose(variance[0], exact, rtol=0.05)


def test_containers_and_dtypes_are_those_of_the_parameters():
    params = (jnp.ones(2, jnp.bfloat16), jnp.zeros(2))
    mean, variance = ge.jacobian_moments(
        ge.pathwise_jacobians, jnp.sum, params, ge.multi_normal, KEY, 4, batch_size=2
    )
    for tree in (mean, variance):
        assert type(tree) is tuple
        assert [x.dtype for x in tree] == [jnp.bfloat16, jnp.float32]


def test_bad_batches():
    with pytest.raises(ValueError, match="jacobian_moments: batch_size must be >= 1; got 0"):
        ge.jacobian_moments(
            ge.pathwise_jacobians, jnp.sum, PARAMS, ge.multi_normal, KEY, 4, batch_size=0
        )
