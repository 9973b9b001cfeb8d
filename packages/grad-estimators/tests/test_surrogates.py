"""Every surrogate is the mean of f, and its gradient the mean of the Jacobians."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(1)
COUNT = 7
NORMAL = [jnp.array([0.5, -1.0]), jnp.array([0.1, -0.3])]


def with_baseline(name):
    def call(function, params, dist_builder, rng, num_samples):
        result, _ = getattr(ge, name)(
            function,
            ge.moving_avg_baseline,
            ge.score_function_jacobians,
            params,
            dist_builder,
            rng,
            num_samples,
            (3.0, 5),
            estimate_cv_coeffs=True,
        )
        return result

    return call


PAIRS = {
    "score_function": (ge.score_function_jacobians, ge.score_function_surrogate),
    "pathwise": (ge.pathwise_jacobians, ge.pathwise_surrogate),
    "measure_valued": (ge.measure_valued_jacobians, ge.measure_valued_surrogate),
    "control_variates": (
        with_baseline("control_variates_jacobians"),
        with_baseline("control_variates_surrogate"),
    ),
}


CASES = [
    *((name, ge.multi_normal, NORMAL) for name in PAIRS),
    ("pathwise", distrax.Laplace, [jnp.array([0.5, 2.0]), jnp.array([1.0, 3.0])]),
    ("measure_valued", distrax.Categorical, (jnp.array([[0.5, -1.0, 2.0], [0.0, 0.1, 0.3]]),)),
    ("score_function", distrax.Bernoulli, (jnp.array([0.5, -1.0]),)),
]


@pytest.mark.parametrize(("name", "dist_builder", "params"), CASES)
def test_value_and_gradients(name, dist_builder, params):
    jacobian_form, surrogate_form = PAIRS[name]
    weights = jnp.array([2.0, -3.0])

    def f(weights):
        return lambda x: jnp.sum(weights * x) ** 2

    @jax.jit
    def run():
        def loss(weights, params):
            return surrogate_form(f(weights), params, dist_builder, KEY, COUNT)

        jacobians = jacobian_form(f(weights), params, dist_builder, KEY, COUNT)
        return jacobians, jax.value_and_grad(loss, (0, 1))(weights, params)

    jacobians, (value, (by_weights, by_params)) = run()
    for jacobian, gradient in zip(jacobians, by_params, strict=True):
        np.testing.assert_allclose(gradient, np.mean(jacobian, 0), rtol=1e-4, atol=1e-5)
    # f is of degree 2 in the weights: by Euler, weights . gradient = 2 f.
    np.testing.assert_allclose(np.dot(weights, by_weights), 2 * value, rtol=1e-5)


def test_the_value_is_the_mean_of_f_at_the_samples():
    @jax.jit
    def run():
        values = [
            surrogate(jnp.sum, NORMAL, ge.multi_normal, KEY, COUNT)
            for name, (_, surrogate) in PAIRS.items()
            if name != "control_variates"
        ]
        return values, ge.pathwise_jacobians(jnp.sum, NORMAL, ge.multi_normal, KEY, COUNT)

    values, (_, by_log_scale) = run()
    expected = np.sum(NORMAL[0]) + np.sum(by_log_scale) / COUNT  # x = mean + dx / d log-scale
    np.testing.assert_allclose(values, [expected] * 3, rtol=1e-5)


def test_inside_a_training_loop():
    """Gradient descent on E[(x - 3)^2] finds the mean 3 and a small scale."""

    @jax.jit
    def train(params):
        def step(params, key):
            def loss(params):
                return ge.pathwise_surrogate(
                    lambda x: jnp.sum((x - 3) ** 2), params, ge.multi_normal, key, 8
                )

            return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params)), None

        return jax.lax.scan(step, params, jax.random.split(KEY, 100))[0]

    mean, log_scale = train(NORMAL)
    np.testing.assert_allclose(mean, [3, 3], atol=0.05)
    assert (log_scale < -1.5).all()
