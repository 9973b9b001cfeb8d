"""DiCE: derivatives of every order, by enumeration of a graph and against closed forms."""

import itertools
import re

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_estimators as ge

KEY = jax.random.key(0)


def log_p(x, logit):
    return -jax.nn.softplus((1 - 2 * x) * logit)


def nodes(theta, x, y):
    """A coin y whose logit depends on the coin x, and a parameter."""
    return {"x": log_p(x, theta[0]), "y": log_p(y, theta[1] + x * theta[0] ** 2)}


def costs(theta, x, y):
    return {"first": theta[1] ** 2 * (x + 0.5), "second": (x - 2 * y - theta[0]) ** 2}


OUTCOMES = jnp.array(list(itertools.product([0.0, 1.0], repeat=2))).T
THETA = jnp.array([0.7, -0.4])


def expected_cost(theta):
    p = jnp.exp(sum(nodes(theta, *OUTCOMES).values()))
    return p @ sum(costs(theta, *OUTCOMES).values())


def expected_objective(theta, baselines, causes=("x", "y")):
    """The mean of the objective's derivatives: probabilities are weights here, and constant."""
    log_probs = nodes(theta, *OUTCOMES)
    p = jax.lax.stop_gradient(jnp.exp(sum(log_probs.values())))
    each = costs(theta, *OUTCOMES)
    graph = [(each["first"], ["x"]), (each["second"], causes)]
    return p @ ge.dice_objective(log_probs, graph, baselines)


def test_derivatives_of_a_graph_are_exact_in_expectation():
    """Up to the third, with baselines or without; and not where a cost lacks one of its causes."""

    def functions(theta):
        return jnp.stack(
            [
                expected_cost(theta),
                expected_objective(theta, None),
                expected_objective(theta, {"x": 1.3, "y": -0.6}),
                expected_objective(theta, None, causes=["y"]),
            ]
        )

    @jax.jit
    def derivatives(theta):
        gradient = jax.jacfwd(functions)
        hessian = jax.jacfwd(gradient)
        return functions(theta), gradient(theta), hessian(theta), jax.jacfwd(hessian)(theta)

    for order, (exact, plain, with_baselines, wrong) in enumerate(derivatives(THETA)):
        np.testing.assert_allclose(plain, exact, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(with_baselines, exact, rtol=1e-4, atol=1e-4)
        assert order == 0 or np.max(np.abs(wrong - exact)) > 0.1


def test_derivatives_of_samples():
    """Of E[x**2] = loc**2 + exp(2 log_scale), from 100 blocks of 1000 samples."""

    @jax.jit
    @jax.vmap
    def derivatives(key):
        def f(params, estimator):
            return estimator(lambda x: x**2, [params[0], params[1]], ge.multi_normal, key, 1000)

        params = jnp.array([0.5, -0.2])
        gradient = jax.jacfwd(lambda params: f(params, ge.dice_surrogate))
        hessian = jax.jacfwd(gradient)
        first_order_only = jax.jacfwd(jax.jacfwd(lambda params: f(params, ge.rloo_surrogate)))
        return (
            gradient(params),
            hessian(params),
            jax.jacfwd(hessian)(params),
            first_order_only(params),
        )

    square = np.exp(2 * -0.2)
    third = np.zeros((2, 2, 2))
    third[1, 1, 1] = 8 * square
    exact = [[2 * 0.5, 2 * square], [[2, 0], [0, 4 * square]], third]
    *found, wrong = map(np.asarray, derivatives(jax.random.split(KEY, 100)))
    for samples, expected in zip(found, exact, strict=True):
        error = np.std(samples, axis=0) / 10
        assert np.all(np.abs(np.mean(samples, axis=0) - np.array(expected)) <= 4 * error)
    error = np.std(wrong, axis=0) / 10
    assert np.any(np.abs(np.mean(wrong, axis=0) - np.array(exact[1])) > 10 * error)


def test_a_baseline_changes_the_variance_and_not_the_mean():
    def coin(logit):
        return distrax.Bernoulli(logits=logit)

    @jax.jit
    def variances(baseline):
        (jacobian,) = ge.dice_jacobians(
            lambda x: (x + 1.0) ** 2, [0.0], coin, KEY, 100_000, baseline
        )
        return jnp.mean(jacobian), jnp.var(jacobian)

    # g is (4 - b) / 2 or (b - 1) / 2: of mean 3/4, and of variance ((5 - 2 b) / 4)**2.
    for b in (0.0, 1.0, 2.5):
        mean, variance = variances(b)
        np.testing.assert_allclose(variance, ((5 - 2 * b) / 4) ** 2, rtol=0.05, atol=1e-6)
        assert abs(mean - 0.75) <= 4 * (variance / 100_000) ** 0.5 + 1e-6


def test_the_magic_box_is_one_with_all_its_derivatives():
    @jax.jit
    def derivatives(x):
        def f(x):
            return ge.magic_box(2 * x)

        return f(x), jax.grad(f)(x), jax.grad(jax.grad(f))(x)

    np.testing.assert_allclose(derivatives(3.0), [1, 2, 4])
    np.testing.assert_allclose(derivatives(-jnp.inf), [1, 0, 0])
    assert np.all(np.isnan(derivatives(jnp.nan)[0]))


def test_errors():
    log_probs = {"x": jnp.zeros(3), "y": jnp.zeros(3)}
    text = "dice_objective: 'z' has no log probability; those given are of 'x', 'y'. Add it"
    for cost, baselines in ((["x", "z"], None), (["x"], {"z": 1.0})):
        with pytest.raises(ValueError, match=re.escape(text)):
            ge.dice_objective(log_probs, [(jnp.ones(3), cost)], baselines)
