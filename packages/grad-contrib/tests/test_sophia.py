"""Sophia against its equations, and Hutchinson's estimate against the Hessian."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import (
    HutchinsonState,
    SophiaState,
    hutchinson_estimator_diag_hessian,
    sophia,
)
from grad_core import GradientTransformationExtraArgs, apply_updates
from grad_testing.problems import quadratic, stochastic_least_squares, valley

CURVATURE = np.array([0.5, 2.0, -1.0, 4.0])
START = np.array([1.0, 2.0, -3.0, 0.5])
NOISE = np.random.default_rng(0).normal(size=(12, 4))


def bowl(x):
    return jnp.sum(CURVATURE * x**2) / 2


def paper(rate, weight_decay=1e-4, b1=0.965, b2=0.99, eps=1e-8, gamma=0.01, rho=1.0, k=10):
    """The equations in float64, with the exact diagonal for the estimate; yields parameters."""
    x, m, h = START, np.zeros(4), np.zeros(4)
    for t, g in enumerate(NOISE):
        m = b1 * m + (1 - b1) * g
        u = np.clip(m / (1 - b1 ** (t + 1)) / np.maximum(gamma * h, eps), -rho, rho)
        h = b2 * h + (1 - b2) * CURVATURE if t % k == 0 else h
        x = x - rate(t) * (u + weight_decay * x)
        yield x


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {}),
        (
            {"k": 3, "gamma": 3.0, "rho": 0.5, "weight_decay": 0.1},
            {"update_interval": 3, "gamma": 3.0, "clip_threshold": 0.5, "weight_decay": 0.1},
        ),
        (
            {"k": 2, "gamma": 90.0, "eps": 0.5, "b2": 0.9, "b1": 0.5},
            {"update_interval": 2, "gamma": 90.0, "eps": 0.5, "b2": 0.9, "b1": 0.5},
        ),
    ],
)
def test_the_equations(how, theirs, ours):
    """The Hessian is diagonal, so that random signs give it exactly."""

    def rate(t):
        return 0.1 / (1 + t * np.float64(1))

    with jax.enable_x64(True):
        tx = sophia(rate, **ours)
        params = jnp.asarray(START)
        state = tx.init(params)

        def update(g, state, params):
            return tx.update(g, state, params, obj_fn=bowl)

        update = jax.jit(update) if how == "jit" else update
        for g, x in zip(NOISE, paper(rate, **theirs), strict=True):
            updates, state = update(jnp.asarray(g), state, params)
            params = apply_updates(params, updates)
            np.testing.assert_allclose(params, x, rtol=1e-12)


def test_hutchinson_is_unbiased_and_its_variance_is_known():
    matrix = np.random.default_rng(1).normal(size=(4, 4))
    hessian = matrix + matrix.T
    tx = hutchinson_estimator_diag_hessian(jax.random.key(3))

    def loss(params):
        x = jnp.concatenate([params["a"], params["b"]])
        return x @ hessian @ x / 2

    params = {"a": jnp.ones(3), "b": jnp.ones(1)}

    def step(state, _):
        estimate, state = tx.update(params, state, params, obj_fn=loss)
        return state, jnp.concatenate([estimate["a"], estimate["b"]])

    n = 20_000
    _, estimates = jax.lax.scan(step, tx.init(params), length=n)
    variance = np.sum(hessian**2, axis=1) - np.diag(hessian) ** 2
    error = np.mean(np.float64(estimates), axis=0) - np.diag(hessian)
    assert np.all(np.abs(error) < 5 * np.sqrt(variance / n))
    np.testing.assert_allclose(np.var(estimates, axis=0), variance, rtol=0.05)


def test_absent_updates_have_no_estimate():
    tx = hutchinson_estimator_diag_hessian()
    params = {"a": jnp.ones(2), "b": jnp.ones(3)}
    loss = lambda p: jnp.sum(p["a"] ** 3) + jnp.sum(p["b"] ** 2)  # noqa: E731
    updates, _ = tx.update({"a": jnp.ones(2), "b": None}, tx.init(params), params, obj_fn=loss)
    np.testing.assert_allclose(updates["a"], 6.0)
    assert updates["b"] is None


def test_the_hessian_is_estimated_only_when_it_is_due():
    calls = []

    def estimate(updates, state, params=None, **extra_args):
        calls.append(sorted(extra_args))
        return jax.tree.map(jnp.ones_like, params), state

    estimator = GradientTransformationExtraArgs(lambda params: (), estimate)
    tx = sophia(0.1, update_interval=3, hessian_diagonal_fn=estimator)
    params = jnp.ones(2)
    state = tx.init(params)
    for _ in range(7):
        _, state = tx.update(params, state, params, batch=1.0)
    assert calls == [["batch"]] * 3
    np.testing.assert_allclose(state[0].nu, 1 - 0.99**3, rtol=1e-5)


@pytest.mark.parametrize(
    "problem", [quadratic(), valley(), stochastic_least_squares()], ids=lambda p: p.name
)
def test_it_descends(problem):
    tx = sophia(0.02, gamma=1.0)

    def step(carry, i):
        params, state = carry

        def loss(p):
            return problem.loss(p, i)

        updates, state = tx.update(jax.grad(loss)(params), state, params, obj_fn=loss)
        return (apply_updates(params, updates), state), None

    carry = problem.start, tx.init(problem.start)
    (params, _), _ = jax.lax.scan(step, carry, jnp.arange(problem.steps))
    assert problem.full_loss(params) < 0.5 * problem.full_loss(problem.start)


def test_without_curvature_or_eps_steps_are_signs():
    tx = sophia(1.0, eps=0.0, clip_threshold=0.5, weight_decay=0.0)
    params = jnp.ones(3)
    g = jnp.array([2.0, -1e-30, 0.0])
    updates, _ = tx.update(g, tx.init(params), params, obj_fn=jnp.sum)
    np.testing.assert_array_equal(updates, [-0.5, 0.5, 0.0])


@pytest.mark.parametrize("compiled", [False, True])
def test_win_rate(compiled, capfd):
    """Of the four elements three are within the threshold, and it is printed at each second."""
    tx = sophia(0.1, b1=0.0, eps=1.0, verbose=True, print_win_rate_every_n_steps=2)
    update = jax.jit(tx.update, static_argnames="obj_fn") if compiled else tx.update
    params = jnp.ones(4)
    state = tx.init(params)
    for _ in range(5):
        g = jnp.array([0.5, -0.2, 3.0, 0.0])
        _, state = update(g, state, params, obj_fn=jnp.sum)
    jax.effects_barrier()
    assert capfd.readouterr().out.splitlines() == ["Sophia: win rate 0.750"] * 2
    quiet = sophia(0.1, print_win_rate_every_n_steps=1)
    quiet.update(params, quiet.init(params), params, obj_fn=jnp.sum)
    assert not capfd.readouterr().out


def test_the_state_is_upstreams():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = sophia(0.1).init(params)
    assert len(state) == 3
    assert type(state[0]) is SophiaState
    assert state[0]._fields == ("count", "mu", "nu", "hessian_fn_state")
    assert state[0].mu["w"].dtype == jnp.bfloat16
    assert state[0].nu["w"].dtype == jnp.float32
    narrow = sophia(0.1, mu_dtype="float32", nu_dtype="bfloat16").init(params)[0]
    assert (narrow.mu["w"].dtype, narrow.nu["w"].dtype) == (jnp.float32, jnp.bfloat16)
    assert type(state[0].hessian_fn_state) is HutchinsonState
    np.testing.assert_array_equal(state[0].hessian_fn_state.key, jax.random.PRNGKey(0))
    for seed in (7, jax.random.PRNGKey(7), jax.random.key(7)):
        key = hutchinson_estimator_diag_hessian(seed).init(params).key
        key = key if key.ndim else jax.random.key_data(key)
        np.testing.assert_array_equal(key, jax.random.PRNGKey(7))


def test_bad_input():
    refused = {
        "b1": {1.5: "must be in [0, 1]; got 1.5"},
        "eps": {-1.0: "must be >= 0; got -1.0"},
        "clip_threshold": {-1.0: "must be >= 0; got -1.0"},
        "update_interval": {0: "must be at least 1; got 0", 0.5: "must be an integer; got 0.5"},
        "print_win_rate_every_n_steps": {-1: "must be at least 0; got -1"},
        "hessian_diagonal_fn": {None: "must be a gradient transformation"},
        "verbose": {1: "must be True or False; got 1"},
    }
    for name, cases in refused.items():
        for value, text in cases.items():
            with pytest.raises((ValueError, TypeError), match=re.escape(f"sophia: {name} {text}")):
                sophia(0.1, **{name: value})
    with pytest.raises(
        TypeError, match=r"random_seed must be a random key or an integer; got 0\.5"
    ):
        hutchinson_estimator_diag_hessian(0.5)
    tx, x = sophia(0.1), jnp.ones(2)
    with pytest.raises(ValueError, match=r"^sophia .*update\(\) needs the extra argument 'obj_fn'"):
        tx.update(x, tx.init(x), x)
