"""Gradient descent against its equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import EmptyState, TraceState, apply_updates
from grad_optimizers import sgd

GRADS = np.random.RandomState(0).randn(6, 5)


@pytest.mark.parametrize("rate", [0.5, -0.5, lambda count: 0.5**count])
@pytest.mark.parametrize("momentum", [None, 0.0, 0.9, 1.0, 1, 0])
@pytest.mark.parametrize("nesterov", [False, True])
def test_against_the_equations(rate, momentum, nesterov):
    tx = sgd(rate, momentum, nesterov)
    state, total = tx.init(jnp.zeros(5)), np.zeros(5)
    decay = momentum or 0.0
    for count, g in enumerate(GRADS):
        total = g + decay * total
        direction = g + decay * total if nesterov else total
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        size = rate(count) if callable(rate) else rate
        np.testing.assert_allclose(updates, -size * direction, rtol=2e-6, atol=1e-6)


def test_momentum_of_a_constant_gradient_is_a_geometric_series():
    tx = sgd(1.0, momentum=0.5)
    state = tx.init(jnp.zeros(()))
    for t in range(1, 20):
        updates, state = tx.update(jnp.ones(()), state)
        assert float(updates) == -(2 - 2.0 ** (1 - t))


def test_a_quadratic_contracts_by_its_factor():
    params = jnp.array([8.0, -4.0])
    tx = sgd(0.25)
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.grad(lambda p: jnp.sum(p**2))(params), state, params)
        params = apply_updates(params, updates)
    np.testing.assert_array_equal(params, [1.0, -0.5])


def test_states_are_upstreams():
    params = jnp.ones(2)
    assert sgd(0.1).init(params) == (EmptyState(), EmptyState())
    state = sgd(0.1, 0.9).init(params)
    assert type(state[0]) is TraceState
    assert state[1] == EmptyState()
    assert sgd(lambda c: 0.1).init(params)[1]._fields == ("count",)


def test_the_accumulator_may_be_wider():
    params = jnp.ones(2, jnp.bfloat16)
    assert sgd(0.1, 0.9).init(params)[0].trace.dtype == jnp.bfloat16
    tx = sgd(1.0, 1.0, accumulator_dtype=jnp.float32)
    state = tx.init(params)
    assert state[0].trace.dtype == jnp.float32
    for _ in range(600):  # bfloat16 counts to 256
        _, state = tx.update(params, state)
    assert float(state[0].trace[0]) == 600.0


@pytest.mark.parametrize(
    ("momentum", "kind"), [(1.1, ValueError), (-0.1, ValueError), ("a", TypeError)]
)
def test_bad_momentum_is_named(momentum, kind):
    with pytest.raises(kind, match=r"^sgd: momentum must be "):
        sgd(0.1, momentum)


def test_values():
    assert repr(sgd(0.1)) == "sgd(learning_rate=0.1)"
    assert repr(sgd(0.1, 0.9, True)) == "sgd(learning_rate=0.1, momentum=0.9, nesterov=True)"
    assert sgd(0.1, 0.9) == sgd(learning_rate=0.1, momentum=0.9)
    assert sgd(0.1, None) != sgd(0.1, 0.0)
