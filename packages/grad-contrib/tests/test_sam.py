"""Sharpness-aware minimization against its algorithm."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import NormalizeState, SAMState, normalize, sam
from grad_core import EmptyState, apply_updates, chain, current_learning_rate
from grad_optimizers import adam, sgd

START = np.array([1.0, -2.0, 3.0, 0.5])
ASCENT = chain(normalize(), sgd(0.3))


def gradient(x):
    return 4 * x**3 / 10 - x + 0.3


def paper(cycles, k, ascend, descend):
    """The algorithm in float64; the parameters before and after each cycle, and all between."""
    x = START
    for t in range(cycles):
        y = x
        for i in range(k - 1):
            y = y + ascend(i, gradient(y))
            yield y
        x = x - descend(t, gradient(y))
        yield x


def run(tx, steps, dtype=jnp.float32, **extra_args):
    params = jnp.asarray(START, dtype)
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(gradient(params), state, params, **extra_args)
        params = apply_updates(params, updates)
        yield params, state


def normalized(i, g):
    return 0.3 * g / np.linalg.norm(g)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_algorithm(k):
    expected = list(paper(4, k, normalized, lambda t, g: 0.1 / (1 + t) * g))
    tx = sam(sgd(lambda count: 0.1 / (1 + count)), ASCENT, sync_period=k)
    for i, ((params, state), y) in enumerate(zip(run(tx, 4 * k), expected, strict=True), start=1):
        np.testing.assert_allclose(params, y, rtol=2e-5)
        assert int(state.steps_since_sync) == i % k
    update = jax.jit(tx.update)
    compiled = run(tx._replace(update=update), 4 * k)
    for (params, _), y in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(params, y, rtol=2e-5)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_opaque_mode_makes_a_cycle_of_each_update(k):
    seen = []

    def grad_fn(params, i):
        seen.append(i)
        return gradient(params)

    transparent = list(run(sam(adam(0.1), ASCENT, k), 3 * k))[k - 1 :: k]
    opaque = sam(adam(0.1), ASCENT, k, opaque_mode=True)
    for (found, state), (expected, _) in zip(
        run(opaque, 3, grad_fn=grad_fn), transparent, strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert state.cache is None
    assert seen == [*range(k - 1)] * 3


def test_schedules_of_either_optimizer_see_their_own_counts():
    seen = {"outer": [], "adversarial": []}

    def schedule(name):
        return lambda count: seen[name].append(int(count)) or 0.1

    tx = sam(sgd(schedule("outer")), sgd(schedule("adversarial")), 3, reset_state=False)
    list(run(tx, 6))
    assert seen == {"outer": [0, 1], "adversarial": [0, 1, 2, 3]}


@pytest.mark.parametrize("reset", [True, False])
def test_reset_state(reset):
    momentum = sgd(0.1, momentum=0.9)
    tx = sam(sgd(0.05), momentum, sync_period=3, reset_state=reset)
    trace = np.zeros(4)

    def ascend(i, g):
        nonlocal trace
        trace = g + 0.9 * (np.zeros(4) if reset and i == 0 else trace)
        return 0.1 * trace

    expected = paper(3, 3, ascend, lambda t, g: 0.05 * g)
    for (params, _), y in zip(run(tx, 9), expected, strict=True):
        np.testing.assert_allclose(params, y, rtol=1e-4, atol=1e-6)


def test_the_mean_along_an_axis_in_opaque_mode():
    """Two devices that see half of the data each ascend together, and by the whole gradient."""
    data = jnp.array([[1.0, 2.0], [3.0, -1.0]])
    tx = sam(sgd(0.1), ASCENT, 3, opaque_mode=True, batch_axis_name="batch")

    def loss(x, data):
        return jnp.mean((x - data) ** 4)

    def step(params, data, mean):
        grad = jax.grad(loss)
        g, state = mean(grad(params, data)), tx.init(params)
        return tx.update(g, state, params, grad_fn=lambda p, i: grad(p, data))[0]

    params = jnp.array([0.3, 0.7])
    halves = jax.vmap(
        lambda d: step(params, d, lambda g: jax.lax.pmean(g, "batch")), axis_name="batch"
    )(data)
    tx = sam(sgd(0.1), ASCENT, 3, opaque_mode=True)
    whole = step(params, data, lambda g: g)
    np.testing.assert_allclose(halves, jnp.stack([whole, whole]), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("opaque", [True, False])
def test_zero_gradients_are_no_steps(dtype, opaque):
    tx = sam(sgd(0.1), ASCENT, opaque_mode=opaque)
    params = {"w": jnp.ones(3, dtype), "b": jnp.ones([], dtype)}
    zero = jax.tree.map(jnp.zeros_like, params)
    state = tx.init(params)
    for _ in range(4):
        extra_args = {"grad_fn": lambda p, i: zero} if opaque else {}
        updates, state = tx.update(zero, state, params, **extra_args)
        assert all((u == 0).all() for u in jax.tree.leaves(updates))
    assert all((u == 0).all() for u in jax.tree.leaves(normalize().update(zero, EmptyState())[0]))


def test_normalize_is_of_the_whole_tree_and_of_any_size():
    for size in (1e-30, 1.0, 1e30):
        tree = {"a": jnp.array([3.0 * size]), "b": jnp.array([4.0 * size])}
        updates, state = normalize().update(tree, normalize().init(tree))
        np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [0.6, 0.8], rtol=1e-6)
    assert type(state) is NormalizeState is EmptyState


def test_the_cache_outlives_donated_parameters():
    tx = sam(sgd(0.1), ASCENT)

    def step(params, state):
        updates, state = tx.update(gradient(params), state, params)
        return apply_updates(params, updates), state

    params = jnp.asarray(START, jnp.float32)
    state = tx.init(params)
    donating = jax.jit(step, donate_argnums=(0, 1))
    for expected, _ in run(tx, 4):
        params, state = donating(params, state)
        np.testing.assert_allclose(params, expected, rtol=1e-6)


def test_the_state_is_upstreams():
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = sam(adam(0.1), sgd(0.1)).init(params)
    assert type(state) is SAMState
    assert state._fields == ("steps_since_sync", "opt_state", "adv_state", "cache")
    assert state.cache["w"].dtype == jnp.bfloat16
    assert sam(adam(0.1), sgd(0.1), opaque_mode=True).init(params).cache is None
    assert current_learning_rate(sam(adam(0.1), sgd(0.5)), state) == jnp.float32(0.1)


def test_opaque_mode_needs_the_gradient_function():
    tx = sam(sgd(0.1), sgd(0.1), opaque_mode=True)
    with pytest.raises(ValueError, match=r"^sam: update\(\) needs the extra argument 'grad_fn'"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), jnp.ones(1))


def test_bad_input():
    refused = {
        "sync_period": {0: "must be at least 1; got 0", 1.5: "must be an integer; got 1.5"},
        "reset_state": {1: "must be True or False; got 1"},
        "opaque_mode": {"no": "must be True or False; got 'no'"},
        "batch_axis_name": {"batch": "must be None unless opaque_mode is True; got 'batch'"},
        "adv_optimizer": {0.1: "must be a gradient transformation, such as adam(1e-3); got 0.1"},
        "optimizer": {None: "must be a gradient transformation"},
    }
    for name, cases in refused.items():
        for value, text in cases.items():
            with pytest.raises((ValueError, TypeError), match=re.escape(f"sam: {name} {text}")):
                sam(**{"optimizer": sgd(0.1), "adv_optimizer": sgd(0.1), name: value})
