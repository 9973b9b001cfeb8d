"""How transformations run: compiled once, shared, and users' functions called eagerly."""

import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    add_decayed_weights,
    apply_updates,
    chain,
    clip_by_global_norm,
    ema,
    masked,
    partition,
    scale,
    scale_by_learning_rate,
    set_to_zero,
    trace,
)

_COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: (
        _COMPILED.append(event) if event == "/jax/core/compile/backend_compile_duration" else None
    )
)


class Compilations:
    """Counts what XLA compiles inside a `with`."""

    def __enter__(self):
        self.before = len(_COMPILED)
        return self

    def __exit__(self, *_):
        self.count = len(_COMPILED) - self.before


def tree(*sizes):
    """A tree of shapes that no other test has, so that nothing about it is compiled yet."""
    return {f"w{i}": jnp.asarray(np.ones((size, 3), np.float32)) for i, size in enumerate(sizes)}


def long_chain(rate, decay=0.9, mask=r"w[01]", step=None):
    return chain(
        clip_by_global_norm(1.0),
        chain(trace(decay), ema(decay)),
        add_decayed_weights(rate, mask),
        scale_by_learning_rate(rate if step is None else step),
    )


def not_traced(x):
    assert not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(x))


def test_compilations_are_counted():
    with Compilations() as compiled:
        jax.jit(lambda x: x * 2.5)(np.ones((101, 3)))
    assert compiled.count == 1


def test_an_eager_step_is_one_compilation_and_one_dispatch():
    params = tree(103, 107, 109)
    tx = long_chain(0.1)
    with Compilations() as init:
        state = tx.init(params)
    with Compilations() as update:
        updates, state = tx.update(params, state, params)
    with Compilations() as apply:
        params = apply_updates(params, updates)
    assert (init.count, update.count, apply.count) == (1, 1, 1)
    with Compilations() as again:
        updates, state = tx.update(params, state, params)
        apply_updates(params, updates)
    assert again.count == 0


@pytest.mark.parametrize(
    "other",
    [
        lambda: long_chain(0.2),
        lambda: long_chain(-0.3, decay=0.5),
        lambda: long_chain(0.1),
    ],
)
def test_other_numbers_compile_nothing(other):
    params = tree(113, 127)
    tx = long_chain(0.1)
    tx.update(params, tx.init(params), params)
    with Compilations() as compiled:
        tx = other()
        tx.update(params, tx.init(params), params)
    assert compiled.count == 0


def test_numbers_in_nested_and_masked_parts_compile_nothing():
    def make(rate):
        return partition(
            {
                "w0": chain(masked(scale(rate), {"w0": True, "w1": True}), ema(rate)),
                "w1": trace(rate),
            }
        )

    params = tree(131, 137)
    make(0.1).update(params, make(0.1).init(params))
    with Compilations() as compiled:
        first = make(0.5).update(params, make(0.5).init(params))[0]
    assert compiled.count == 0
    assert float(first["w0"][0, 0]) == 0.5


def test_another_users_schedule_compiles_no_update():
    params = tree(139, 149)
    tx = long_chain(0.1, step=lambda count: 0.1)
    tx.update(params, tx.init(params), params)
    other = long_chain(0.1, step=lambda count: 0.2)
    state = other.init(params)
    with Compilations() as compiled:
        other.update(params, state, params)
    assert compiled.count == 0


def test_functions_of_users_are_called_with_concrete_values():
    seen = []

    def mask(params):
        not_traced(params)
        seen.append("mask")
        return jax.tree.map(lambda p: bool((p > 0).all()), params)

    def labels(params):
        not_traced(params)
        seen.append("labels")
        return jax.tree.map(lambda p: "big" if float(jnp.abs(p).max()) > 2 else "small", params)

    def update(updates, state, params=None):
        not_traced((updates, state, params))
        seen.append("update")
        return updates, state

    foreign = GradientTransformation(lambda params: not_traced(params) or (), update)
    params = tree(5, 6)
    tx = chain(
        scale(2.0),
        masked(scale(3.0), mask),
        foreign,
        partition({"big": scale(0.5), "small": set_to_zero()}, labels),
        grad_core.stateless(lambda g, p: not_traced((g, p)) or g),
    )
    updates, _ = tx.update(params, tx.init(params), params)
    assert seen == ["mask", "labels", "mask", "update", "labels"]
    # labels see what the mask made of the updates: 6, and not 1
    assert float(updates["w0"][0, 0]) == 3.0


def test_foreign_transformations_in_the_middle():
    params = tree(151, 157)
    doubling = GradientTransformation(
        lambda params: jnp.zeros([], jnp.int32),
        lambda updates, state, params=None: (jax.tree.map(lambda g: 2 * g, updates), state + 1),
    )
    tx = chain(scale(3.0), trace(0.5), doubling, trace(0.5), scale(1.0))
    state = tx.init(params)
    expected, first, second = [], 0.0, 0.0
    for _ in range(3):
        first = 3 + 0.5 * first
        second = 2 * first + 0.5 * second
        expected.append(second)
    for value in expected:
        updates, state = tx.update(params, state)
        assert float(updates["w1"][0, 0]) == value
    assert int(state[2]) == 3


def test_extra_arguments_go_only_where_they_are_taken():
    seen = []

    def update(updates, state, params=None, **extra_args):
        seen.append(extra_args)
        return updates, state

    taking = GradientTransformationExtraArgs(lambda params: EmptyState(), update)
    refusing = GradientTransformation(
        lambda params: EmptyState(), lambda updates, state, params=None: (updates, state)
    )
    params = tree(3)
    tx = chain(scale(1.0), refusing, masked(chain(refusing, taking), ".*"), taking)
    extra = {"value": 1.0, "fn": len, "text": "a", "tree": params}
    tx.update(params, tx.init(params), params, **extra)
    assert seen == [extra, extra]
    # Ours ignore them, also when they are no arrays.
    scale(1.0).update(params, EmptyState(), params, **extra)
    chain(scale(1.0), trace(0.5)).update(
        params, chain(scale(1.0), trace(0.5)).init(params), **extra
    )


def run(tx, params, steps=3):
    state = tx.init(params)
    for _ in range(steps):
        updates, state = tx.update(params, state, params)
        params = apply_updates(params, updates)
    return params, state


def assert_same(one, two, rtol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol), one, two)


@pytest.mark.parametrize(
    "step", [None, lambda count: 0.1 / (1 + count)], ids=["number", "schedule"]
)
def test_compiled_by_the_user(step):
    params = tree(4, 5)
    tx = long_chain(0.1, step=step)
    expected = run(tx, params)
    assert_same(jax.jit(lambda p: run(tx, p))(params), expected)

    def body(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params)
        return (apply_updates(params, updates), state), None

    assert_same(jax.lax.scan(body, (params, tx.init(params)), length=3)[0], expected)
    with jax.disable_jit():
        assert_same(run(tx, params), expected)
    with jax.checking_leaks():
        assert_same(run(tx, params), expected)
        assert_same(jax.jit(lambda p: run(tx, p))(params), expected)


def test_vmap_over_learning_rates():
    params = tree(4)
    rates = jnp.array([0.1, 0.2, -0.3])
    batched = jax.vmap(lambda rate: run(long_chain(rate), params)[0])(rates)
    for i, rate in enumerate(rates):
        one = run(long_chain(float(rate)), params)[0]
        np.testing.assert_allclose(batched["w0"][i], one["w0"], rtol=1e-5)


def test_gradients_flow_through_hyperparameters():
    params = tree(2)
    slope = jax.grad(lambda rate: run(scale_by_learning_rate(rate), params, 1)[0]["w0"].sum())(0.1)
    assert float(slope) == -6.0
    loss = lambda rate: run(long_chain(rate), params)[0]["w0"].sum()  # noqa: E731
    estimate = (loss(0.1 + 1e-2) - loss(0.1 - 1e-2)) / 2e-2
    np.testing.assert_allclose(jax.grad(jax.checkpoint(loss))(0.1), estimate, rtol=2e-2)


def test_donated_states():
    params = tree(4, 5)
    tx = long_chain(0.1)
    expected = run(tx, params)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        updates, state = tx.update(params, state, params)
        return apply_updates(params, updates), state

    params = jax.tree.map(jnp.copy, params)
    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)
    assert_same((params, state), expected)


def test_inputs_are_left_alone():
    params = tree(4)
    tx = long_chain(0.1)
    state = tx.init(params)
    before = jax.tree.map(np.array, (params, state))
    first = tx.update(params, state, params)
    second = tx.update(params, state, params)
    assert_same(first, second, rtol=0)
    assert_same((params, state), before, rtol=0)


def test_shapes_stand_for_arrays_in_init():
    params = tree(4, 5)
    shapes = jax.eval_shape(lambda: params)
    for tx in (
        long_chain(0.1),
        long_chain(0.1, step=lambda count: 0.1),
        long_chain(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        partition({"w0": trace(0.5), "w1": set_to_zero()}),
    ):
        expected = tx.init(params)
        for found in (tx.init(shapes), jax.eval_shape(tx.init, params)):
            assert jax.tree.structure(found) == jax.tree.structure(expected)
            described = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (found, expected)]
            assert described[0] == described[1]


def test_threads():
    params = tree(11)
    expected = run(long_chain(0.1), params)
    found, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: found.append(run(long_chain(0.1), params))))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        assert_same(each, expected, rtol=0)


def test_switching_to_double_precision_and_back():
    tx = long_chain(0.1)
    params = tree(4)
    expected = run(tx, params)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        found, state = run(tx, wide)
        assert found["w0"].dtype == jnp.float64
        assert state[1][0].trace["w0"].dtype == jnp.float64
        assert_same(found, expected[0])
        assert run(tx, params)[0]["w0"].dtype == jnp.float32
    assert_same(run(tx, params), expected, rtol=0)


def test_extra_arguments_may_have_any_name():
    params = tree(3)
    tx = chain(scale(2.0), trace(0.5))
    tx.update(params, tx.init(params), params, self=1, node=2, count=3, t=4, g=5)
