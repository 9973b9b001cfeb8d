"""Weak derivatives of each family against quadrature, and what is exact of them."""

import functools
import types

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

scipy_stats = pytest.importorskip("scipy.stats")
scipy_integrate = pytest.importorskip("scipy.integrate")
tfd = pytest.importorskip("tensorflow_probability.substrates.jax").distributions

COUNT = 30_000
KEY = jax.random.key(3)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # TFP


def f(x, xp=jnp):
    """A function with a jump, so that the pathwise estimator would be wrong."""
    return xp.where(x > 1.3, x * x, xp.sin(3 * x))


def by_quadrature(density, params):
    """The gradient of E[f(x)] in each parameter, from central differences."""

    def expectation(*params):
        def integrand(x):
            return f(x, np) * density(x, *params)

        parts = [(1e-12, 1.3), (1.3, 40.0)]
        return sum(scipy_integrate.quad(integrand, *part, limit=500)[0] for part in parts)

    def derivative(i, step=1e-3):
        up, down = ([p + s * (i == j) for j, p in enumerate(params)] for s in (step, -step))
        return (expectation(*up) - expectation(*down)) / (2 * step)

    return [derivative(i) for i in range(len(params))]


def gamma_density(x, concentration, rate):
    return scipy_stats.gamma.pdf(x, concentration, scale=1 / rate)


FAMILIES = {
    "Gamma": (distrax.Gamma, gamma_density, [1.7, 1.2]),
    "Gamma of small shape": (distrax.Gamma, gamma_density, [0.3, 1.2]),
    "Exponential": (tfd.Exponential, lambda x, rate: gamma_density(x, 1, rate), [1.2]),
    "Weibull": (
        tfd.Weibull,
        lambda x, k, scale: scipy_stats.weibull_min.pdf(x, k, scale=scale),
        [1.7, 1.2],
    ),
}


@functools.cache
def estimates(dist_builder):
    """A compiled estimate, coupled and not, of arrays of parameters."""
    return jax.jit(
        lambda params: [
            ge.measure_valued_jacobians(f, params, dist_builder, KEY, COUNT, coupling)
            for coupling in (True, False)
        ]
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_continuous_families(name):
    dist_builder, density, params = FAMILIES[name]
    exact = by_quadrature(density, params)
    for jacobians in estimates(dist_builder)([jnp.float32(p) for p in params]):
        for jacobian, gradient in zip(jacobians, exact, strict=True):
            error = np.std(jacobian) / COUNT**0.5
            assert abs(np.mean(jacobian) - gradient) < 4 * error


def test_poisson():
    def expectation(rate):
        x = np.arange(60.0)
        return f(x, np) @ scipy_stats.poisson.pmf(x, rate)

    exact = (expectation(2.301) - expectation(2.299)) / 0.002
    (coupled,), (uncoupled,) = estimates(tfd.Poisson)([jnp.float32(2.3)])
    for jacobian in (coupled, uncoupled):
        assert abs(np.mean(jacobian) - exact) < 4 * np.std(jacobian) / COUNT**0.5
    assert np.var(coupled) < np.var(uncoupled) / 10


def enumerated(logits, f):
    """The gradient of E[f(x)] for one categorical of these logits, in float64."""
    p = np.exp(logits - np.max(logits))
    p /= p.sum()
    values = np.array([f(k) for k in range(len(p))], float)
    return p * (values - p @ values)


@pytest.mark.parametrize("by", ["logits", "probs"])
def test_one_categorical_is_exact(by):
    logits = np.array([0.5, -1.0, 2.0])

    def dist_builder(logits):
        if by == "logits":
            return distrax.Categorical(logits)
        return distrax.Categorical(probs=jax.nn.softmax(logits))

    (jacobian,) = jax.jit(
        lambda x: ge.measure_valued_jacobians(lambda k: 3.0**k, [x], dist_builder, KEY, 2)
    )(jnp.asarray(logits))
    exact = enumerated(logits, lambda k: 3.0**k)
    np.testing.assert_allclose(jacobian, [exact, exact], rtol=1e-5)


def test_bernoullis_are_unbiased_and_one_is_exact():
    logits = jnp.array([0.5, -1.0])
    p = np.asarray(jax.nn.sigmoid(logits), float)

    @jax.jit
    def run():
        one = ge.measure_valued_jacobians(
            lambda b: (b - 0.45) ** 2, [logits[0]], distrax.Bernoulli, KEY, 3
        )
        two = ge.measure_valued_jacobians(
            lambda b: b[0] * b[1], [logits], distrax.Bernoulli, KEY, COUNT
        )
        return one[0], two[0]

    one, two = run()
    np.testing.assert_allclose(one, [p[0] * (1 - p[0]) * (0.55**2 - 0.45**2)] * 3, rtol=1e-5)
    exact = p * (1 - p) * p[::-1]
    assert (np.abs(np.mean(two, 0) - exact) < 4 * np.std(two, 0) / COUNT**0.5).all()


def test_normals_of_distrax_are_those_of_our_own():
    builders = [
        lambda m, s: ge.multi_normal(m, jnp.log(s)),
        distrax.Normal,
        distrax.MultivariateNormalDiag,
        lambda m, s: distrax.Independent(distrax.Normal(m, s), 1),
    ]

    @jax.jit
    def run():
        params = [jnp.array([0.5, -1.0]), jnp.array([0.3, 2.0])]

        # A sum: differences in one coordinate do not depend on the others, so not on the sampler.
        def f(x):
            return jnp.sum(jnp.sin(x))

        return [ge.measure_valued_jacobians(f, params, b, KEY, 3) for b in builders]

    ours, *theirs = run()
    for jacobians in theirs:
        np.testing.assert_allclose(jacobians, ours, rtol=1e-4, atol=1e-5)


def test_a_family_can_be_added():
    class Rademacher(types.SimpleNamespace):
        """+1 with probability p, or else -1."""

        def sample(self, *, seed, sample_shape):
            return 2.0 * jax.random.bernoulli(seed, self.p, sample_shape) - 1

        def log_prob(self, value):
            return jnp.log(jnp.where(value > 0, self.p, 1 - self.p))

    @ge.register_weak_derivatives(Rademacher)
    def rademacher(dist, shape):
        def split(key, sample, coupled):
            return jnp.ones(shape), jnp.ones(shape), -jnp.ones(shape)

        return [ge.WeakDerivative(jnp.broadcast_to(dist.p, shape), split)]

    call = functools.partial(ge.measure_valued_jacobians, rng=KEY, num_samples=2)
    (jacobian,) = call(lambda x: 5 * x, [jnp.array(0.3)], lambda p: Rademacher(p=p))
    np.testing.assert_allclose(jacobian, [10, 10])


def test_unknown_families_are_told():
    text = (
        "measure_valued_jacobians: no weak derivative of Beta is known.*Poisson.*"
        "Use score_function_jacobians, or.*pathwise_jacobians"
    )
    with pytest.raises(TypeError, match=text):
        ge.measure_valued_jacobians(jnp.sum, [1.0, 2.0], distrax.Beta, KEY, 3)
    with pytest.raises(TypeError, match=r"measure_valued_surrogate: .*score_function_surrogate"):
        ge.measure_valued_surrogate(jnp.sum, [1.0, 2.0], distrax.Beta, KEY, 3)
