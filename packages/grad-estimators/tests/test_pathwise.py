"""Pathwise estimates of every distribution that has them, and errors for those that have none."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(2)
COUNT = 20_000  # implicit derivatives are slow
A, B = 1.7, 0.8


def transformed(loc, scale):
    return distrax.Transformed(distrax.Normal(loc, scale), distrax.Lambda(jnp.exp))


def moments_of_beta(a, b):
    return (a / (a + b)) ** 2 + a * b / ((a + b) ** 2 * (a + b + 1))


# The distribution, its parameters, and E[sum(x**2)] as a function of them.
CASES = {
    "Gamma": (distrax.Gamma, [A, B], lambda a, b: a * (a + 1) / b**2),
    "Beta": (distrax.Beta, [A, B], moments_of_beta),
    "Dirichlet": (
        lambda a, b: distrax.Dirichlet(jnp.stack([a, b])),
        [A, B],
        lambda a, b: moments_of_beta(a, b) + moments_of_beta(b, a),
    ),
    "exp of a normal": (transformed, [0.3, 0.4], lambda m, s: np.exp(2 * m + 2 * s**2)),
    "Laplace": (distrax.Laplace, [0.3, 0.4], lambda m, s: m**2 + 2 * s**2),
    "Uniform": (distrax.Uniform, [0.3, 1.4], lambda a, b: (a**2 + a * b + b**2) / 3),
    "Logistic": (distrax.Logistic, [0.3, 0.4], lambda m, s: m**2 + (np.pi * s) ** 2 / 3),
    "covariance": (
        lambda m, s: distrax.MultivariateNormalTri(
            jnp.stack([m, m]), jnp.stack([jnp.stack([s, 0 * s]), jnp.stack([s, s])])
        ),
        [0.3, 0.4],
        lambda m, s: 2 * m**2 + 3 * s**2,
    ),
}


def test_reparameterized_and_implicit_distributions():
    @jax.jit
    def run():
        return {
            name: ge.pathwise_jacobians(
                lambda x: jnp.sum(x**2), [jnp.float32(p) for p in params], build, KEY, COUNT
            )
            for name, (build, params, _) in CASES.items()
        }

    for name, jacobians in run().items():
        _, params, moment = CASES[name]
        for i, jacobian in enumerate(jacobians):
            up, down = (
                moment(*(p + s * (i == j) for j, p in enumerate(params))) for s in (1e-4, -1e-4)
            )
            error = np.std(jacobian) / COUNT**0.5
            assert abs(np.mean(jacobian) - (up - down) / 2e-4) < 4 * error + 1e-5, name


MIXTURE = [jnp.zeros(2), jnp.array([0.0, 3.0])]


@pytest.mark.parametrize(
    ("kind", "dist_builder", "params", "i"),
    [
        ("Bernoulli", distrax.Bernoulli, [jnp.zeros(2)], 0),
        ("Categorical", distrax.Categorical, [jnp.zeros(2)], 0),
        (
            "MixtureSameFamily",
            lambda loc, logits: distrax.MixtureSameFamily(
                distrax.Categorical(logits), distrax.Normal(loc, 1.0)
            ),
            MIXTURE[::-1],
            1,
        ),
    ],
)
def test_samples_that_are_not_differentiable(kind, dist_builder, params, i):
    text = rf"samples of {kind} are not differentiable in params\[{i}\]. Use score_function_"
    with pytest.raises(TypeError, match=f"pathwise_jacobians: {text}jacobians"):
        ge.pathwise_jacobians(jnp.sum, params, dist_builder, KEY, 3)
    with pytest.raises(TypeError, match=f"pathwise_surrogate: {text}surrogate"):
        jax.jit(lambda p: ge.pathwise_surrogate(jnp.sum, p, dist_builder, KEY, 3))(params)


def test_a_parameter_that_is_not_used_has_zero_gradient():
    jacobians = ge.pathwise_jacobians(
        jnp.sum, [jnp.ones(2), jnp.ones(3)], lambda m, _: ge.multi_normal(m, 0.0), KEY, 3
    )
    np.testing.assert_array_equal(jacobians[1], np.zeros((3, 3)))


def test_any_object_with_samples_and_a_density():
    class Shifted:
        def __init__(self, shift):
            self.shift = shift

        def sample(self, *, seed, sample_shape):
            return self.shift + jax.random.exponential(seed, sample_shape)

        def log_prob(self, value):
            return self.shift - value

    (jacobian,) = ge.pathwise_jacobians(lambda x: x**2, [jnp.array(1.0)], Shifted, KEY, 4)
    assert (jacobian >= 2).all()
    (jacobian,) = ge.score_function_jacobians(lambda x: x, [1.0], Shifted, KEY, 4)
    assert (jacobian >= 1).all()


NORMAL = [jnp.ones(2), jnp.zeros(2)]


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"function": 3}, TypeError, "function must be callable; got 3"),
        ({"function": lambda x: x}, ValueError, r"a scalar for one sample of shape \(2,\); got"),
        ({"function": lambda x: (x[0], x[1])}, TypeError, "function must return a scalar"),
        ({"function": lambda x: x[0] + 0j}, TypeError, "must return a real scalar"),
        ({"params": jnp.ones(2)}, TypeError, "params must be a list or a tuple"),
        ({"params": [jnp.ones(2), jnp.zeros(2, int)]}, TypeError, "array 1 is of int32"),
        ({"dist_builder": None}, TypeError, "dist_builder must be callable; got None"),
        ({"rng": 0}, TypeError, r"rng must be a random key; got 0 \(int\). Make one with"),
        ({"rng": jnp.zeros(2)}, TypeError, "rng must be a random key"),
        ({"rng": jax.random.split(KEY)}, ValueError, r"rng must be one random key.*shape \(2,\)"),
        ({"rng": jnp.zeros((3, 2), jnp.uint32)}, ValueError, "rng must be one random key"),
        ({"num_samples": 0}, ValueError, "num_samples must be >= 1; got 0"),
        ({"num_samples": -3}, ValueError, "num_samples must be >= 1; got -3"),
        ({"num_samples": 2.0}, TypeError, "num_samples must be an integer; got 2.0"),
    ],
)
def test_bad_input(changes, error, text):
    good = {
        "function": jnp.sum,
        "params": NORMAL,
        "dist_builder": ge.multi_normal,
        "rng": KEY,
        "num_samples": 3,
    }
    with pytest.raises(error, match=f"score_function_jacobians: .*{text}"):
        ge.score_function_jacobians(**{**good, **changes})


@pytest.mark.parametrize(
    "name", ["score_function_surrogate", "pathwise_jacobians", "measure_valued_surrogate"]
)
def test_all_estimators_check_their_arguments(name):
    with pytest.raises(ValueError, match=f"{name}: num_samples must be >= 1; got 0"):
        getattr(ge, name)(jnp.sum, NORMAL, ge.multi_normal, KEY, 0)
