"""The snippets of the library's first README, as their users wrote them.

Two of them broke off after ``chain(``; they are completed here. Snippets that need what is not here
yet are left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optax
from optax import (
    chain,
    clip_by_global_norm,
    huber_loss,
    polynomial_schedule,
    scale,
    scale_by_adam,
    scale_by_schedule,
)


@pytest.fixture
def params():
    return {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}


@pytest.fixture
def grads():
    return {"w": jnp.array([0.3, 0.1, -0.2]), "b": jnp.array(-0.4)}


def assert_trees_equal(actual, expected, **tolerance):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 1e-6, **tolerance})


def test_quick_start():
    num_weights, learning_rate = 4, 0.1
    xs, ys = jnp.array([1.0, 2.0, -1.0, 0.5]), jnp.array(3.0)

    optimizer = optax.adam(learning_rate)
    # Obtain the `opt_state` that contains statistics for the optimizer.
    params = {"w": jnp.ones((num_weights,))}
    opt_state = optimizer.init(params)

    compute_loss = lambda params, x, y: optax.l2_loss(params["w"].dot(x), y)  # noqa: E731
    grads = jax.grad(compute_loss)(params, xs, ys)
    updates, opt_state = optimizer.update(grads, opt_state)
    new_params = optax.apply_updates(params, updates)

    # The residual is 2.5 - 3 = -0.5. Adam's first step has the length of the learning rate.
    np.testing.assert_allclose(grads["w"], -0.5 * xs, rtol=1e-6)
    np.testing.assert_allclose(new_params["w"], 1 + learning_rate * jnp.sign(xs), rtol=1e-6)

    params = new_params
    for _ in range(100):
        grads = jax.grad(compute_loss)(params, xs, ys)
        updates, opt_state = optimizer.update(grads, opt_state)
        params = optax.apply_updates(params, updates)
    assert float(compute_loss(params, xs, ys)) < 1e-3


def test_gradient_transformation(params, grads):
    tx = scale_by_adam()
    state = tx.init(params)  # init stats
    first, state = tx.update(grads, state, params)  # transform & update stats.

    assert int(state.count) == 1
    assert_trees_equal(state.mu, jax.tree.map(lambda g: 0.1 * g, grads))
    assert_trees_equal(state.nu, jax.tree.map(lambda g: 0.001 * g**2, grads))
    assert_trees_equal(first, jax.tree.map(jnp.sign, grads), rtol=1e-5)


def test_chain(params, grads):
    max_norm, learning_rate = 0.1, 0.01

    my_optimiser = chain(
        clip_by_global_norm(max_norm),
        scale_by_adam(eps=1e-4),
        scale(-learning_rate),
    )

    state = my_optimiser.init(params)
    updates, state = my_optimiser.update(grads, state, params)

    norm = np.sqrt(0.3**2 + 0.1**2 + 0.2**2 + 0.4**2)
    clipped = jax.tree.map(lambda g: g * max_norm / norm, grads)
    by_hand = jax.tree.map(lambda g: -learning_rate * g / (jnp.abs(g) + 1e-4), clipped)
    assert_trees_equal(updates, by_hand, rtol=1e-5)
    assert len(state) == 3


def test_polynomial_schedule():
    schedule_fn = polynomial_schedule(init_value=1.0, end_value=0.0, power=1, transition_steps=5)

    values = [schedule_fn(step_count) for step_count in range(6)]

    np.testing.assert_allclose(values, [1.0, 0.8, 0.6, 0.4, 0.2, 0.0], rtol=1e-6, atol=1e-7)


def test_schedule_in_a_chain(params, grads):
    max_norm, learning_rate = 10.0, 0.5

    schedule_fn = polynomial_schedule(
        init_value=-learning_rate, end_value=0.0, power=1, transition_steps=5
    )
    optimiser = chain(
        clip_by_global_norm(max_norm),
        scale_by_adam(),
        scale_by_schedule(schedule_fn),
    )

    state = optimiser.init(params)
    for factor in [1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]:
        updates, state = optimiser.update(grads, state, params)
        # With the same gradient at every step, Adam's direction is its sign.
        expected = jax.tree.map(lambda g, f=factor: -learning_rate * f * jnp.sign(g), grads)
        assert_trees_equal(updates, expected, rtol=1e-4, atol=1e-7)
        params = optax.apply_updates(params, updates)


def test_adamw_as_an_alias(params, grads):
    def scale_and_decay(step_size, weight_decay):
        return optax.stateless_with_tree_map(lambda g, p: step_size * (g + weight_decay * p))

    def adamw(learning_rate, b1, b2, eps, weight_decay):
        return chain(
            scale_by_adam(b1=b1, b2=b2, eps=eps),
            scale_and_decay(-learning_rate, weight_decay=weight_decay),
        )

    mine = adamw(0.1, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.03)
    theirs = optax.adamw(0.1, b1=0.8, b2=0.99, eps=1e-6, weight_decay=0.03)
    my_params, their_params = params, params
    my_state, their_state = mine.init(params), theirs.init(params)
    for _ in range(3):
        updates, my_state = mine.update(grads, my_state, my_params)
        my_params = optax.apply_updates(my_params, updates)
        updates, their_state = theirs.update(grads, their_state, their_params)
        their_params = optax.apply_updates(their_params, updates)
    assert_trees_equal(my_params, their_params)


def test_applying_updates(params, grads):
    tx = optax.sgd(0.1)
    state = tx.init(params)

    updates, state = tx.update(grads, state, params)  # transform & update stats.
    new_params = optax.apply_updates(params, updates)  # update the parameters.

    by_hand = jax.tree.map(lambda p, u: p + u, params, updates)
    jax.tree.map(np.testing.assert_array_equal, new_params, by_hand)


def test_losses_reduce_nothing():
    predictions = jnp.array([[0.5, 3.0], [-2.0, 1.0]])
    targets = jnp.array([[0.0, 0.0], [0.0, 1.0]])

    loss = huber_loss(predictions, targets)
    avg_loss = jnp.mean(huber_loss(predictions, targets))
    sum_loss = jnp.sum(huber_loss(predictions, targets))

    np.testing.assert_allclose(loss, [[0.125, 2.5], [1.5, 0.0]])
    assert float(avg_loss) == pytest.approx(4.125 / 4)
    assert float(sum_loss) == pytest.approx(4.125)
