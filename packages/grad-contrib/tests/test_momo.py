"""MoMo and MoMo-Adam against the minimum of their models, and their algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib.momo import MomoAdamState, MomoState, momo, momo_adam
from grad_core import MissingArgumentError, apply_updates

START = np.array([1.0, -2.0, 0.5])
TARGET = np.array([4.0, 1.0, -3.0])


def loss(x, t):
    """Of a quadratic around the target, its curvature rising and falling; and its gradient."""
    curvature = 1 + 0.5 * np.sin(3 * t)
    return 3 + curvature * np.sum((x - TARGET) ** 2) / 2, curvature * (x - TARGET)


def run(tx, steps=12):
    """The parameters after each step, and the last state, in float64."""
    seen = []
    with jax.enable_x64(True):
        params = {"a": jnp.asarray(START[:2]), "b": jnp.asarray(START[2])}
        state = tx.init(params)
        for t in range(1, steps + 1):
            value, g = loss(np.array([*params["a"], params["b"]]), t)
            updates, state = tx.update({"a": g[:2], "b": g[2]}, state, params, value=value)
            params = apply_updates(params, updates)
            seen.append([*params["a"], params["b"]])
    return np.array(seen), state


class Means:
    """The means of the paper, in float64, of MoMo or of MoMo-Adam with `b2`."""

    def __init__(self, beta, b2=None, eps=None):
        self.beta, self.b2, self.eps, self.t = beta, b2, eps, 0
        self.f = self.gamma = 0.0
        self.d = self.v = np.zeros(3)

    def update(self, f, g, x):
        self.t += 1
        beta = 0.0 if self.b2 is None and self.t == 1 else self.beta
        self.f = beta * self.f + (1 - beta) * f
        self.gamma = beta * self.gamma + (1 - beta) * (g @ x)
        self.d = beta * self.d + (1 - beta) * g
        if self.b2 is None:
            self.rho, self.metric = 1.0, np.ones(3)
        else:
            self.rho = 1 - self.beta**self.t
            self.v = self.b2 * self.v + (1 - self.b2) * g**2
            self.metric = np.sqrt(self.v / (1 - self.b2**self.t)) + self.eps


OPTIMIZERS = {
    "momo": (lambda *args: momo(args[0], 0.8, *args[1:]), Means(0.8)),
    "momo_adam": (
        lambda *args: momo_adam(args[0], 0.8, 0.9, 0.05, *args[1:]),
        Means(0.8, 0.9, 0.05),
    ),
}


@pytest.fixture(params=OPTIMIZERS)
def made(request):
    make, means = OPTIMIZERS[request.param]
    return make, Means(means.beta, means.b2, means.eps)


@pytest.mark.parametrize("rate", [0.05, 2.0, 100.0])
@pytest.mark.parametrize("w", [0.0, 0.3])
def test_steps_go_to_the_minimum_of_the_model(made, rate, w):
    """Found by bisection of the slope s in [0, 1] of the maximum, where it has a kink."""
    make, means = made
    lower_bound = 2.5
    found, _ = run(make(rate, lower_bound, w))
    x = START
    for t, seen in enumerate(found, start=1):
        value, g = loss(x, t)
        means.update(value, g, x)
        rho, metric, d = means.rho, means.metric, means.d

        def minimum(s, x=x, rho=rho, metric=metric, d=d):
            return (metric * x / rate - s * d / rho) / (metric * (1 / rate + w))

        def above(y, means=means, d=d, rho=rho):
            return means.f - means.gamma + d @ y - rho * lower_bound

        low, high = 0.0, 1.0
        if above(minimum(1.0)) < 0:
            for _ in range(80):
                middle = (low + high) / 2
                low, high = (middle, high) if above(minimum(middle)) > 0 else (low, middle)
        x = minimum(high)
        np.testing.assert_allclose(seen, x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("w", [0.0, 0.3])
def test_an_adapting_bound(made, w):
    make, means = made
    rate, first = 3.0, 0.5
    found, state = run(make(lambda count: rate / (1 + count), first, w, True), steps=20)
    x, bound, bounds = START, first, []
    for t, seen in enumerate(found, start=1):
        value, g = loss(x, t)
        means.update(value, g, x)
        a, rho = rate / t, means.rho
        height = (1 + a * w) * (means.f - means.gamma) + means.d @ x
        if height < (1 + a * w) * rho * bound:
            bound = max(height / (2 * (1 + a * w) * rho), first)
        norm = means.d @ (means.d / means.metric)
        size = min(a / rho, max(height - (1 + a * w) * rho * bound, 0) / norm)
        bound = max((means.f - means.gamma + means.d @ x - size * norm / 2) / rho, first)
        bounds.append(bound)
        x = (x - size * means.d / means.metric) / (1 + a * w)
        np.testing.assert_allclose(seen, x, rtol=1e-9)
    np.testing.assert_allclose(state.lb, bound, rtol=1e-9)
    assert max(bounds) > first  # it has adapted


@pytest.mark.parametrize("tx", [momo(adapt_lower_bound=True), momo_adam(adapt_lower_bound=True)])
def test_zero_and_huge_gradients_are_finite(tx):
    params = jnp.ones(3)
    state = tx.init(params)
    for size in (0.0, 1e30, 1.0):
        updates, state = tx.update(jnp.full(3, size), state, params, value=1.0)
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(updates))
    assert jnp.isfinite(state.lb)


def test_states():
    params = jnp.zeros(2, jnp.bfloat16)
    assert type(momo().init(params)) is MomoState
    state = momo_adam(lower_bound=-1.5).init(params)
    assert type(state) is MomoAdamState
    assert state.lb == -1.5
    assert (state.exp_avg.dtype, state.exp_avg_sq.dtype) == (jnp.bfloat16, jnp.float32)


def test_bad_input():
    with pytest.raises(ValueError, match=re.escape("momo: weight_decay must be >= 0; got -1.0.")):
        momo(weight_decay=-1.0)
    params = jnp.ones(2)
    for tx in (momo(), momo_adam()):
        with pytest.raises(MissingArgumentError, match="value"):
            tx.update(params, tx.init(params), params)
