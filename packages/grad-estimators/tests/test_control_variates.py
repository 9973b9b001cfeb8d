"""Control variates: unbiased, also where the original was not, and exact where they can be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(5)
COUNT = 100_000
PARAMS = [jnp.array([0.3, 0.5]), jnp.array([-1.0, -0.5])]


def quadratic(x):
    return 3 * x[0] ** 2 + x[0] * x[1] - x[1] + 2


def jacobians_of(function, control_variate, estimator, count, *args, key=KEY, params=PARAMS):
    return ge.control_variates_jacobians(
        function, control_variate, estimator, params, ge.multi_normal, key, count, *args
    )


def test_a_moving_average_is_unbiased():
    """Two samples a call. The original's baseline saw them: at first it gave half the gradient."""
    params, calls = [jnp.zeros(1), jnp.zeros(1)], 3

    @jax.jit
    @jax.vmap
    def run(key):
        def step(state, key):
            jacobians, state = jacobians_of(
                jnp.sum,
                ge.moving_avg_baseline,
                ge.score_function_jacobians,
                2,
                state,
                key=key,
                params=params,
            )
            return state, jnp.mean(jacobians[0])

        return jax.lax.scan(step, (0.0, 0), jax.random.split(key, calls))[1]

    gradients = np.asarray(run(jax.random.split(KEY, COUNT)), np.float64)
    error = gradients.std(0) / COUNT**0.5
    assert (np.abs(gradients.mean(0) - 1) < 4 * error).all()


@pytest.mark.parametrize("zero_debias", [True, False])
@pytest.mark.parametrize("heuristic", [True, False])
@pytest.mark.parametrize("decay", [0.99, 0.5, 0.0, 1.0])
def test_a_moving_average_is_that_of_its_definition(zero_debias, heuristic, decay):
    baseline = ge.moving_avg_baseline(jnp.sum, decay, zero_debias, heuristic)
    means = np.random.default_rng(0).normal(3, 1, size=(20, 1)).astype(np.float32)
    state, average, weight = None, 0.0, 0.0
    found, expected = [], []
    for i, mean in enumerate(means):
        state = baseline.update_state(None, mean[:, None], state)
        d = min(decay, (1 + i) / (10 + i)) if heuristic else decay
        average = d * average + (1 - d) * mean[0]
        weight = d * weight + (1 - d)
        expected.append(average / weight if zero_debias and weight else average)
        found.append(float(baseline.control_variate(None, None, state)))
        assert int(state[1]) == i + 1
    np.testing.assert_allclose(found, expected, rtol=2e-5)
    assert baseline.expected_value(None, state) == found[-1]


def test_a_constant_is_its_own_average():
    """In the original, debiasing compounded: 3, 151, 5000, 130000."""
    baseline = ge.moving_avg_baseline(lambda x: 3.0)
    state = None
    for _ in range(4):
        state = baseline.update_state(None, jnp.zeros((5, 2)), state)
        np.testing.assert_allclose(state[0], 3, rtol=1e-6)


def test_a_baseline_lowers_the_variance_of_the_score_function():
    def f(x):
        return jnp.sum(x) + 10

    @jax.jit
    def run():
        plain = ge.score_function_jacobians(f, PARAMS, ge.multi_normal, KEY, 10_000)
        state = (jnp.array(10.8), jnp.array(100))
        return plain, *jacobians_of(
            f, ge.moving_avg_baseline, ge.score_function_jacobians, 10_000, state
        )

    plain, reduced, _ = run()
    for before, after in zip(plain, reduced, strict=True):
        assert (10 * np.var(after, 0) < np.var(before, 0)).all()
    np.testing.assert_allclose(np.mean(reduced[0], 0), [1, 1], atol=0.05)


ESTIMATORS = [ge.score_function_jacobians, ge.pathwise_jacobians]


def test_the_delta_method_is_exact_for_quadratic_functions():
    """Then f less its Taylor polynomial is zero: every sample gives the gradient."""

    @jax.jit
    def run():
        return [jacobians_of(quadratic, ge.control_delta_method, e, 5)[0] for e in ESTIMATORS]

    m, s = np.asarray(PARAMS[0], float), np.exp(np.asarray(PARAMS[1], float))
    exact = [[6 * m[0] + m[1], m[0] - 1], [6 * s[0] ** 2, 0]]
    for jacobians in run():
        for jacobian, gradient in zip(jacobians, exact, strict=True):
            np.testing.assert_allclose(jacobian, [gradient] * 5, atol=2e-4)


def test_the_delta_method_lowers_variances_and_stays_unbiased():
    """Also with coefficients, and with the explicit dependence of h on the parameters."""

    def f(x):
        return jnp.sum(jnp.sin(x)) + x[0] * x[1]

    score, pathwise = ESTIMATORS
    cases = [(score, True), (pathwise, False)]

    @jax.jit
    def run():
        plain = [e(f, PARAMS, ge.multi_normal, KEY, COUNT) for e, _ in cases]
        reduced = [
            jacobians_of(f, ge.control_delta_method, e, COUNT, None, coefficients)[0]
            for e, coefficients in cases
        ]
        return plain, reduced

    plain, reduced = run()
    m, s = (np.asarray(p, float) for p in (PARAMS[0], jnp.exp(PARAMS[1])))
    damping = np.exp(-(s**2) / 2)
    exact = [damping * np.cos(m) + m[::-1], -(s**2) * damping * np.sin(m)]
    for of_plain, of_reduced in zip(plain, reduced, strict=True):
        for before, jacobian, gradient in zip(of_plain, of_reduced, exact, strict=True):
            error = np.std(jacobian, 0) / COUNT**0.5
            assert (np.abs(np.mean(jacobian, 0) - gradient) < 4 * error).all()
            assert (2 * np.var(jacobian, 0) < np.var(before, 0)).all()


def test_the_expectation_of_the_delta_method():
    delta = ge.control_delta_method(quadratic)

    @jax.jit
    def run():
        samples = ge.multi_normal(*PARAMS).sample((COUNT,), KEY)
        values = jax.vmap(lambda x: delta.control_variate(PARAMS, x, None))(samples)
        return values, jax.vmap(quadratic)(samples), delta.expected_value(PARAMS, None)

    values, exact, expectation = run()
    np.testing.assert_allclose(values, exact, rtol=1e-4, atol=1e-4)
    assert abs(np.mean(values) - expectation) < 4 * np.std(values) / COUNT**0.5


def test_coefficients_are_those_of_least_variance():
    """For h = 2 f - 1, the best multiple is 1/2."""

    def twice(f):
        return (
            lambda params, x, state: 2 * f(x) - 1,
            lambda params, state: jnp.float32(0),
            lambda params, samples, state: state,
        )

    coefficients = jax.jit(
        lambda: ge.estimate_control_variate_coefficients(
            jnp.sum, twice, ge.pathwise_jacobians, PARAMS, ge.multi_normal, KEY, 50, eps=0.0
        )
    )()
    # By the mean, the Jacobians of x have no variance: 0 / 0 without eps.
    np.testing.assert_allclose(coefficients[1], 0.5, rtol=1e-5)


def test_states_of_users_pass():
    def counting(f):
        return (
            lambda params, x, state: jnp.float32(0),
            lambda params, state: jnp.float32(0),
            lambda params, samples, state: {"n": state["n"] + samples.shape[0]},
        )

    jacobians, state = jacobians_of(jnp.sum, counting, ge.pathwise_jacobians, 4, {"n": 3})
    assert state == {"n": 7}
    np.testing.assert_array_equal(jacobians[0], np.ones((4, 2)))


def test_bad_control_variates():
    text = "control_variates_jacobians: control_variate_from_function must return three functions"
    for bad in (3, lambda f: f, lambda f: (f, f)):
        with pytest.raises(TypeError, match=text):
            jacobians_of(jnp.sum, bad, ge.pathwise_jacobians, 4)
    with pytest.raises(ValueError, match="moving_avg_baseline: decay must be in \\[0, 1\\]"):
        ge.moving_avg_baseline(jnp.sum, 1.5)
    with pytest.raises(ValueError, match="estimate_cv_coeffs_num_samples must be >= 2; got 1"):
        jacobians_of(jnp.sum, ge.moving_avg_baseline, ge.pathwise_jacobians, 4, None, True, 1)
