"""Optimistic descent against its equations."""

import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import TreeMismatchError, chain, scale
from grad_optimizers import scale_by_adam
from grad_optimizers.optimistic import (
    ScaleByOptimisticGradientState,
    ScheduledOptimisticGradientState,
    optimistic_adam,
    optimistic_adam_v2,
    optimistic_gradient_descent,
    scale_by_optimistic_gradient,
)

GRADS = np.float64(np.float32(np.random.RandomState(0).randn(8, 5)))


def predicted(directions, alphas, betas):
    """The sums of directions and their changes."""
    previous = [directions[0], *directions[:-1]]
    rows = zip(directions, previous, alphas, betas, strict=True)
    return [a * u + b * (u - old) for u, old, a, b in rows]


def run(tx):
    state, found = tx.init(jnp.zeros(5)), []
    for g in GRADS:
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        found.append(np.asarray(updates))
    return found, state


def test_gradient_descent():
    found, state = run(optimistic_gradient_descent(0.1, 0.5, 2.0))
    expected = predicted(list(-0.1 * GRADS), [0.5] * 8, [2.0] * 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert type(state[0]) is ScaleByOptimisticGradientState
    assert not state[0].is_initial_step


@pytest.mark.parametrize("nesterov", [False, True])
def test_adam(nesterov):
    def rate(count):
        return 0.1 / (1 + count)

    adam = (0.8, 0.9, 1e-4, 1e-5)
    directions, _ = run(scale_by_adam(*adam, nesterov=nesterov))
    rates = [rate(count) for count in range(8)]
    for make, alphas, betas in [
        (optimistic_adam(0.1, None, *adam, nesterov=nesterov), [0.1] * 8, [0.1] * 8),
        (optimistic_adam(0.1, 0.3, *adam, nesterov=nesterov), [0.1] * 8, [0.3] * 8),
        (optimistic_adam(rate, None, *adam, nesterov=nesterov), rates, rates),
        (optimistic_adam(rate, 0.3, *adam, nesterov=nesterov), rates, [0.3] * 8),
    ]:
        found, _ = run(make)
        expected = predicted([-u for u in directions], alphas, betas)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    b1, b2, eps, eps_root = adam
    found, _ = run(
        optimistic_adam_v2(
            0.1, alpha=0.5, beta=2.0, b1=b1, b2=b2, eps=eps, eps_root=eps_root, nesterov=nesterov
        )
    )
    expected = predicted([-0.1 * u for u in directions], [0.5] * 8, [2.0] * 8)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_scheduled_state():
    state = optimistic_adam(lambda count: 0.1).init(jnp.zeros(2))
    assert type(state[1]) is ScheduledOptimisticGradientState


def test_other_shapes_are_named():
    tx = chain(scale_by_optimistic_gradient(), scale(-1.0))
    with pytest.raises(TreeMismatchError, match=r"updates\['w'\] .*state.previous_gradient\['w'\]"):
        tx.update({"w": jnp.zeros(3)}, tx.init({"w": jnp.zeros(2)}))


def test_dtype_of_the_previous_gradient():
    tx = scale_by_optimistic_gradient(accumulator_dtype=jnp.float32)
    assert tx.init(jnp.zeros(2, jnp.bfloat16)).previous_gradient.dtype == jnp.float32
