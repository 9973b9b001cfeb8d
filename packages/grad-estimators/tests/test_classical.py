"""Score function, pathwise and measure-valued estimates against closed forms on normals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(8)
COUNT = 100_000
MU, S = 1.0, 0.7
PARAMS = [jnp.array(MU), jnp.log(S)]
UNCOUPLED = functools.partial(ge.measure_valued_jacobians, coupling=False)
ESTIMATORS = {
    "score": ge.score_function_jacobians,
    "pathwise": ge.pathwise_jacobians,
    "coupled": ge.measure_valued_jacobians,
    "uncoupled": UNCOUPLED,
}


@functools.cache
def estimates(power):
    """The Jacobians of x**power, by estimator, as [mean, log-scale]."""

    @jax.jit
    def run():
        return {
            name: estimator(lambda x: x**power, PARAMS, ge.multi_normal, KEY, COUNT)
            for name, estimator in ESTIMATORS.items()
        }

    return jax.tree.map(lambda x: np.asarray(x, np.float64), run())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize(("power", "exact"), [(1, [1, 0]), (2, [2 * MU, 2 * S**2])])
def test_unbiased(name, power, exact):
    for jacobian, gradient in zip(estimates(power)[name], exact, strict=True):
        assert jacobian.shape == (COUNT,)
        error = max(jacobian.std() / COUNT**0.5, 1e-7)
        assert abs(jacobian.mean() - gradient) < 4 * error


@pytest.mark.parametrize(
    ("name", "power", "exact"),
    [
        ("score", 1, [MU**2 / S**2 + 2, 2 * MU**2 + 10 * S**2]),
        ("pathwise", 1, [0, S**2]),
        ("coupled", 1, [4 / np.pi - 1, S**2]),
        ("uncoupled", 1, [2 / np.pi - 0.5, 4 * S**2]),
        ("pathwise", 2, [4 * S**2, None]),
        ("coupled", 2, [(2 * MU) ** 2 * (4 / np.pi - 1), None]),
    ],
)
def test_variances(name, power, exact):
    for jacobian, variance in zip(estimates(power)[name], exact, strict=True):
        if variance is not None:
            np.testing.assert_allclose(jacobian.var(), variance, rtol=0.05, atol=1e-12)


def test_variances_of_a_cosine_by_its_frequency():
    @jax.jit
    def run(k):
        params = [jnp.array(0.3), jnp.log(S)]
        return [
            jnp.var(estimator(lambda x: jnp.cos(k * x), params, ge.multi_normal, KEY, COUNT)[0])
            for estimator in (
                ge.score_function_jacobians,
                ge.pathwise_jacobians,
                ge.measure_valued_jacobians,
            )
        ]

    score, pathwise, measure = np.array([run(k) for k in (1.0, 2.0, 4.0, 8.0)]).T
    assert pathwise[0] < score[0]
    assert (pathwise[1:] > score[1:]).all()
    assert (measure < np.minimum(score, pathwise)).all()
    np.testing.assert_allclose(pathwise[2:], np.array([4, 8]) ** 2 / 2, rtol=0.05)


def test_the_founding_example():
    weights = jnp.array([1.0, -2.0, 0.5])
    params = [jnp.array([0.5, 1.0, -1.0]), jnp.array([-1.0, 0.0, 0.3])]
    jacobians = ge.pathwise_jacobians(
        lambda x: jnp.sum(x * weights), params, ge.multi_normal, jax.random.PRNGKey(0), 1000
    )
    assert type(jacobians) is list
    assert [jacobian.shape for jacobian in jacobians] == [(1000, 3), (1000, 3)]
    np.testing.assert_allclose(jacobians[0], np.tile(weights, (1000, 1)), rtol=1e-6)


def test_several_coordinates_and_a_product_of_them():
    params = (jnp.array([0.5, -0.2]), jnp.array([-0.5, 0.1]))

    @jax.jit
    def run():
        def f(x):
            return x[0] * x[1] + x[0] ** 2

        return [e(f, params, ge.multi_normal, KEY, COUNT) for e in ESTIMATORS.values()]

    exact = [[-0.2 + 2 * 0.5, 0.5], [2 * np.exp(-1), 0]]
    for jacobians in run():
        assert type(jacobians) is tuple
        for jacobian, gradient in zip(jacobians, exact, strict=True):
            error = np.std(jacobian, 0) / COUNT**0.5
            assert (np.abs(np.mean(jacobian, 0) - np.array(gradient)) < 4 * error).all()


def test_low_precision_is_computed_in_float32():
    estimators = (ge.score_function_jacobians, ge.measure_valued_jacobians)

    @jax.jit
    def run(params):
        return [e(lambda x: x**2, params, ge.multi_normal, KEY, 4) for e in estimators]

    found = run([jnp.array(x, jnp.float16) for x in (1.0, -0.5)])
    assert all(jacobian.dtype == jnp.float16 for jacobian in jax.tree.leaves(found))
    exact = run([jnp.array(x, jnp.float32) for x in (1.0, -0.5)])
    np.testing.assert_allclose(np.float32(found), np.float32(exact), rtol=1e-3)
