"""Antithetic and quasi-Monte-Carlo samples: their distribution, and the errors of their means."""

import functools

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

scipy_stats = pytest.importorskip("scipy.stats")

KEY = jax.random.key(0)
COUNT = 4096
ONE, TWO = jnp.array(0.5), jnp.array(2.0)
KINDS = {
    "ours": (ge.multi_normal, (ONE, TWO), scipy_stats.norm(0.5, np.exp(2)).cdf),
    "normal": (distrax.Normal, (ONE, TWO), scipy_stats.norm(0.5, 2).cdf),
    "uniform": (distrax.Uniform, (ONE, TWO), scipy_stats.uniform(0.5, 1.5).cdf),
    "logistic": (distrax.Logistic, (ONE, TWO), scipy_stats.logistic(0.5, 2).cdf),
    "laplace": (distrax.Laplace, (ONE, TWO), scipy_stats.laplace(0.5, 2).cdf),
    "gumbel": (distrax.Gumbel, (ONE, TWO), scipy_stats.gumbel_r(0.5, 2).cdf),
}


@functools.cache
def samples():
    """Samples of each kind: antithetic ones, and evenly spread ones."""
    wraps = (ge.antithetic, ge.quasi_monte_carlo)

    @jax.jit
    def run():
        return {
            kind: [wrap(build)(*args).sample(seed=KEY, sample_shape=(COUNT,)) for wrap in wraps]
            for kind, (build, args, _) in KINDS.items()
        }

    return jax.tree.map(lambda x: np.asarray(x, np.float64), run())


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_distribution(kind):
    mirrored, even = (scipy_stats.kstest(x, KINDS[kind][2]) for x in samples()[kind])
    assert mirrored.pvalue > 0.01
    assert even.pvalue > 0.01
    assert even.statistic < 0.002  # independent samples are 1/64 away


def test_discrete_and_transformed_samples():
    logits = jnp.array([0.3, 1.0, -1.0])
    lower = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    builders = [
        (distrax.Categorical, (logits,)),
        (distrax.Bernoulli, (logits,)),
        (distrax.MultivariateNormalTri, (jnp.ones(2), lower)),
    ]

    @jax.jit
    def run():
        return [
            ge.quasi_monte_carlo(build)(*args).sample(seed=KEY, sample_shape=COUNT)
            for build, args in builders
        ]

    classes, bits, normals = run()
    shares = np.bincount(classes) / COUNT
    np.testing.assert_allclose(shares, np.asarray(jax.nn.softmax(logits)), atol=0.002)
    np.testing.assert_allclose(np.mean(bits, 0), jax.nn.sigmoid(logits), atol=0.002)
    np.testing.assert_allclose(np.mean(normals, 0), [1, 1], atol=0.01)
    np.testing.assert_allclose(np.cov(normals.T), lower @ lower.T, rtol=0.05)


def test_pairs_are_mirrored():
    x = ge.antithetic(ge.multi_normal)(jnp.ones(3), jnp.zeros(3)).sample(
        seed=KEY, sample_shape=(5, 2)
    )
    np.testing.assert_allclose(x[:, 0] - 1, 1 - x[:, 1], rtol=1e-5, atol=1e-6)
    assert len(np.unique(x)) == 30


def test_errors_of_means():
    """Everything unbiased; antithetic better than independent samples, even spread better yet."""
    params = [jnp.linspace(0.1, 0.8, 5), jnp.linspace(-1.0, 0.0, 5)]

    def f(x):
        return jnp.sum(jnp.sin(x)) + 0.1 * jnp.sum(x) ** 2

    def means(dist_builder):
        def mean(key):
            jacobians = ge.pathwise_jacobians(f, params, dist_builder, key, 256)
            return jnp.concatenate([jnp.mean(j, 0) for j in jacobians])

        return jax.jit(jax.vmap(mean))(jax.random.split(KEY, 100))

    builders = (
        ge.multi_normal,
        ge.antithetic(ge.multi_normal),
        ge.quasi_monte_carlo(ge.multi_normal),
    )
    m, s = (np.asarray(p, float) for p in (params[0], jnp.exp(params[1])))
    damping = np.exp(-(s**2) / 2)
    exact = np.concatenate(
        [
            damping * np.cos(m) + 0.2 * np.sum(m),
            -(s**2) * damping * np.sin(m) + 0.2 * s**2,
        ]
    )
    pathwise = [np.asarray(means(b), np.float64) for b in builders]
    for gradients in pathwise:
        error = gradients.std(0) / 100**0.5
        assert (np.abs(gradients.mean(0) - exact) < 4 * error + 1e-6).all()
    independent, mirrored, even = (g.var(0).mean() for g in pathwise)
    assert even < mirrored / 4 < independent / 8


def test_the_distribution_is_still_itself():
    normal = ge.antithetic(ge.multi_normal)(jnp.ones(2), jnp.zeros(2))
    plain = ge.multi_normal(jnp.ones(2), jnp.zeros(2))
    np.testing.assert_array_equal(normal.log_prob(jnp.zeros(2)), plain.log_prob(jnp.zeros(2)))
    np.testing.assert_array_equal(normal.log_scale, [0, 0])
    np.testing.assert_array_equal(
        normal.sample(seed=KEY, sample_shape=()), plain.sample(seed=KEY, sample_shape=())
    )
    with pytest.raises(AttributeError):
        _ = normal.no_such_thing


def test_bad_input():
    with pytest.raises(ValueError, match="antithetic: the number of samples must be even; got 3"):
        ge.pathwise_jacobians(jnp.sum, [ONE, TWO], ge.antithetic(ge.multi_normal), KEY, 3)
    with pytest.raises(TypeError, match="quasi_monte_carlo: no quantile function of Gamma"):
        ge.pathwise_jacobians(jnp.sum, [ONE, TWO], ge.quasi_monte_carlo(distrax.Gamma), KEY, 4)
