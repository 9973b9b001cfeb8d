"""Discrete distributions: enumeration against sums in float64, every estimator against both."""

import itertools
from typing import NamedTuple

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

N = 100_000
KEY = jax.random.key(0)


class Problem(NamedTuple):
    """A distribution with its parameters, and f: of samples, and of codes (floats, one-hot)."""

    params: list
    build: object
    f: object
    f_of_code: object


MIX = np.array([[1.0, 0.5], [-0.7, 0.2], [0.3, -1.2]], np.float32)
WEIGHTS = np.array([1.0, -2.0, 0.7], np.float32)


def coins(theta, shift):
    return distrax.Bernoulli(logits=MIX @ theta + shift)


def coins_cost(x):
    return (x @ WEIGHTS + 1.5 * x[0] * x[2] - 0.3) ** 2


COINS = Problem([jnp.array([0.4, -0.3]), jnp.array(0.2)], coins, coins_cost, coins_cost)


def choices(logits):
    return distrax.Categorical(logits=logits)


TABLE = np.array([[1.0, -0.5, 2.0], [0.0, 3.0, 0.4], [-1.0, 0.7, 0.2]], np.float32)


def choices_cost_of_code(x):
    return (x[0] @ TABLE @ x[1] + 0.5 * x[0, 1]) ** 2


def choices_cost(x):
    return choices_cost_of_code(jax.nn.one_hot(x, 3))


CHOICES = Problem(
    [jnp.array([[0.3, -0.2, 0.5], [0.0, 1.0, -0.4]])], choices, choices_cost, choices_cost_of_code
)


def exact_coins_gradient():
    """d E[f] / d(theta, shift) in float64, by the rule of the product of three probabilities."""
    theta, shift = (np.asarray(p, np.float64) for p in COINS.params)
    p = 1 / (1 + np.exp(-(MIX.astype(np.float64) @ theta + shift)))
    d_logits = np.zeros(3)
    for x in itertools.product([0.0, 1.0], repeat=3):
        x = np.array(x)
        value = (x @ WEIGHTS.astype(np.float64) + 1.5 * x[0] * x[2] - 0.3) ** 2
        d_logits += np.prod(np.where(x > 0, p, 1 - p)) * value * (x - p)
    return [MIX.T.astype(np.float64) @ d_logits, d_logits.sum()]


def exact_choices_gradient():
    """d E[f] / d logits in float64, by the derivative of a softmax."""
    logits = np.asarray(CHOICES.params[0], np.float64)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    gradient = np.zeros((2, 3))
    for i, j in itertools.product(range(3), repeat=2):
        value = (TABLE[i, j].astype(np.float64) + 0.5 * (i == 1)) ** 2
        gradient += p[0, i] * p[1, j] * value * (np.eye(3)[[i, j]] - p)
    return [gradient]


def within_errors(jacobians, exact, errors=4):
    """Raises unless the mean of each Jacobian is the exact one, within standard errors."""
    for jacobian, value in zip(map(np.asarray, jacobians), exact, strict=True):
        error = np.std(jacobian, axis=0) / len(jacobian) ** 0.5
        distance = np.abs(np.mean(jacobian, axis=0, dtype=np.float64) - value)
        assert np.all(distance <= errors * error + 1e-5), (distance / error, value)


@pytest.mark.parametrize(
    ("problem", "exact"), [(COINS, exact_coins_gradient), (CHOICES, exact_choices_gradient)]
)
def test_the_gradient_is_exact(problem, exact):
    found = jax.jit(lambda p: ge.enumeration_jacobians(problem.f, p, problem.build))(problem.params)
    assert isinstance(found, list)
    for jacobian, expected in zip(found, exact(), strict=True):
        np.testing.assert_allclose(jacobian, expected[None], rtol=2e-5, atol=1e-6)


def test_the_surrogate_is_the_expectation_with_all_its_derivatives():
    @jax.jit
    def derivatives(p):
        def both(p):
            params = [jnp.log(p) - jnp.log1p(-p)]
            coin = lambda logit: distrax.Bernoulli(logits=logit)  # noqa: E731
            return ge.enumeration_surrogate(lambda x: (x + p) ** 2, params, coin)

        return both(p), jax.grad(both)(p), jax.hessian(both)(p)

    # E = p (1 + p)^2 + (1 - p) p^2 = p + 3 p^2: the gradient of f itself counts, too.
    p = 0.3
    np.testing.assert_allclose(derivatives(p), [p + 3 * p**2, 1 + 6 * p, 6], rtol=1e-4)


def test_it_can_stand_where_an_estimator_does():
    arguments = (COINS.f, COINS.params, COINS.build)
    repeated = jax.jit(lambda: ge.enumeration_jacobians(*arguments, KEY, 5))()
    assert [x.shape for x in repeated] == [(5, 2), (5,)]
    np.testing.assert_array_equal(repeated[0][0], repeated[0][4])


def test_all_forms_of_a_distribution_agree():
    """One-hot, whole or in independent parts, by logits or probabilities, from distrax or TFP."""
    tfd = pytest.importorskip("tensorflow_probability.substrates.jax").distributions
    exact = exact_choices_gradient()[0][None]

    @jax.jit
    def jacobians(logits):
        found = []
        for make in (distrax.Categorical, tfd.Categorical, distrax.OneHotCategorical):
            f = CHOICES.f_of_code if make is distrax.OneHotCategorical else CHOICES.f
            for build in (
                lambda logits, make=make: make(logits=logits),
                lambda logits, make=make: distrax.Independent(make(logits=logits), 1),
                lambda logits, make=make: make(probs=jax.nn.softmax(logits)),
            ):
                found += ge.enumeration_jacobians(f, [logits], build)
        return found

    for found in jacobians(CHOICES.params[0]):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_support():
    def trials(logit):
        return distrax.Multinomial(total_count=2, logits=jnp.stack([logit, jnp.zeros(())]))

    support = jnp.array([[0, 2], [1, 1], [2, 0]])
    arguments = (lambda x: 1.0 * x[0], [jnp.array(0.4)], trials)
    (found,) = jax.jit(lambda: ge.enumeration_jacobians(*arguments, support=support))()
    p = 1 / (1 + np.exp(-0.4))
    np.testing.assert_allclose(found, [2 * p * (1 - p)], rtol=1e-5)
    with pytest.raises(TypeError, match=r"enumeration_jacobians: .* got Multinomial\. Pass .*sup"):
        ge.enumeration_jacobians(*arguments)


def test_what_cannot_happen_costs_nothing():
    logits = jnp.array([0.0, 0.0, -jnp.inf])

    def f(x):
        return jnp.array([1.0, 3.0, jnp.inf])[x]

    @jax.jit
    @jax.value_and_grad
    def derivatives(logits):
        return ge.enumeration_surrogate(f, [logits], CHOICES.build)

    value, gradient = derivatives(logits)
    np.testing.assert_allclose(value, 2, rtol=1e-6)
    np.testing.assert_allclose(gradient, [-0.5, 0.5, 0], rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match=r"shape \(30,\) have 2\*\*30 outcomes, more than 1,048"):
        ge.enumeration_surrogate(COINS.f, [jnp.zeros(30)], lambda x: distrax.Bernoulli(logits=x))
    with pytest.raises(TypeError, match=r"got MultiNormal.*score_function_jacobians"):
        ge.enumeration_surrogate(COINS.f, [jnp.zeros(3), jnp.zeros(3)], ge.multi_normal)
    with pytest.raises(ValueError, match="num_samples must be >= 1; got 0"):
        ge.enumeration_jacobians(COINS.f, COINS.params, COINS.build, KEY, 0)


def control(weights, z):
    """A control variate for RELAX, for Bernoulli and categorical samples."""
    return jnp.sum(weights * jnp.tanh(z)) + jnp.sum(weights) * jnp.sum(jax.nn.sigmoid(z)) ** 2


WEIGHTS_OF_CONTROL = jnp.array([0.5, -0.2, 1.1])

UNBIASED = {  # what follows num_samples, whether f takes codes, whether Bernoulli only
    "score_function": ((), False, False),
    "rloo": ((), False, False),
    "dice": ((2.0,), False, False),
    "rebar": ((0.7, 0.8), True, False),
    "relax": ((control, WEIGHTS_OF_CONTROL), False, False),
    "arm": ((), False, True),
    "disarm": ((), False, True),
}
BIASED = {"gumbel_softmax": ((), True, False), "straight_through": ((), True, False)}


def estimates(problem, estimators):
    """Jacobians, surrogates, and the gradients of these with respect to params and a factor."""

    @jax.jit
    def compute(params, factor, key):
        found = {}
        for name, (rest, takes_code, binary_only) in estimators.items():
            if binary_only and problem is not COINS:
                continue
            f = problem.f_of_code if takes_code else problem.f
            jacobians = getattr(ge, f"{name}_jacobians")(f, params, problem.build, key, N, *rest)

            def surrogate(params, factor, name=name, f=f, rest=rest):
                estimator = getattr(ge, f"{name}_surrogate")
                return estimator(lambda x: factor * f(x), params, problem.build, key, N, *rest)

            value, gradients = jax.value_and_grad(surrogate, (0, 1))(params, factor)
            found[name] = jacobians, value, *gradients
        return found

    return compute(problem.params, 1.0, KEY)


PROBLEMS = [
    pytest.param(COINS, exact_coins_gradient, id="coins"),
    pytest.param(CHOICES, exact_choices_gradient, id="choices"),
]


@pytest.mark.parametrize(("problem", "exact"), PROBLEMS)
def test_unbiased_in_both_forms(problem, exact):
    expectation = jax.jit(ge.enumeration_surrogate, static_argnums=(0, 2))(
        problem.f, problem.params, problem.build
    )
    for jacobians, value, gradient, d_factor in estimates(problem, UNBIASED).values():
        within_errors(jacobians, exact())
        for jacobian, slope in zip(jacobians, gradient, strict=True):
            np.testing.assert_allclose(slope, np.mean(jacobian, 0), rtol=1e-3, atol=1e-4)
        # f is multiplied by a factor of 1, so that E[f] is the derivative, too.
        np.testing.assert_allclose(value, expectation, rtol=0.03)
        np.testing.assert_allclose(d_factor, value, rtol=1e-5)


@pytest.mark.parametrize(("problem", "exact"), PROBLEMS)
def test_biased_in_both_forms(problem, exact):
    for jacobians, value, gradient, d_factor in estimates(problem, BIASED).values():
        with pytest.raises(AssertionError):
            within_errors(jacobians, exact(), errors=10)
        for jacobian, slope in zip(jacobians, gradient, strict=True):
            np.testing.assert_allclose(slope, np.mean(jacobian, 0), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(d_factor, value, rtol=1e-5)
