"""Schedules as values, and where they are called."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import Real, ScaleByScheduleState, Schedule, schedule

PARAMS = {"w": jnp.ones(3), "b": jnp.ones(())}


@schedule
def halving(init_value: Real, every: int = 1) -> Schedule:
    """Halves a value."""
    return lambda count: init_value * 0.5 ** (count // every)


def test_schedules_are_values():
    one = halving(8.0)
    assert repr(one) == "halving(init_value=8.0)"
    assert repr(halving(8.0, every=2)) == "halving(init_value=8.0, every=2)"
    assert one == halving(init_value=8.0)
    assert hash(one) == hash(halving(8.0))
    assert one != halving(4.0)
    assert one != halving(8)
    assert halving.__doc__ == "Halves a value."
    with pytest.raises(ValueError, match="halving: init_value must be a number; got nan"):
        halving(float("nan"))


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_schedules_survive_copies(again):
    assert again(halving(8.0)) == halving(8.0)
    assert float(again(halving(8.0))(2)) == 2.0


def test_transformations_with_schedules_are_values():
    tx = grad_core.scale_by_learning_rate(halving(8.0))
    assert repr(tx) == "scale_by_learning_rate(learning_rate=halving(init_value=8.0))"
    assert tx == grad_core.scale_by_learning_rate(halving(8.0))
    assert pickle.loads(pickle.dumps(tx)) == tx
    assert tx != grad_core.scale_by_learning_rate(halving(7.0))


def run(tx, steps):
    state, found = tx.init(PARAMS), []
    for _ in range(steps):
        updates, state = tx.update(PARAMS, state)
        found.append(float(updates["b"]))
    return found, state


def test_the_count_starts_at_zero():
    for step_size in (halving(8.0), lambda count: 8.0 * 0.5**count):
        found, state = run(grad_core.scale_by_schedule(step_size), 4)
        assert found == [8.0, 4.0, 2.0, 1.0]
        assert isinstance(state, ScaleByScheduleState)
        assert int(state.count) == 4


def eagerly(seen):
    def step_size(count):
        assert not isinstance(count, jax.core.Tracer)
        seen.append(int(count))
        return 0.1 if count < 2 else 0.2  # a branch that traced code could not take

    return step_size


@pytest.mark.parametrize("wrap", ["alone", "chain", "named_chain", "masked", "partition", "nested"])
def test_users_schedules_are_called_with_concrete_counts(wrap):
    seen = []
    inner = grad_core.scale_by_schedule(eagerly(seen))
    tx = {
        "alone": lambda: inner,
        "chain": lambda: grad_core.chain(grad_core.scale(1.0), inner, grad_core.scale(1.0)),
        "named_chain": lambda: grad_core.named_chain(("a", grad_core.scale(1.0)), ("b", inner)),
        "masked": lambda: grad_core.masked(inner, {"w": False, "b": True}),
        "partition": lambda: grad_core.partition({"w": grad_core.identity(), "b": inner}),
        "nested": lambda: grad_core.chain(grad_core.masked(grad_core.chain(inner), "b")),
    }[wrap]()
    found, _ = run(tx, 3)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.2], rtol=1e-6)
    assert seen == [0, 1, 2]


def test_schedules_that_are_pytrees_are_called_eagerly_too():
    def step_size(base, count):
        assert not isinstance(count, jax.core.Tracer)
        return base * (1 + int(count))

    found, _ = run(grad_core.scale_by_schedule(jax.tree_util.Partial(step_size, 0.5)), 2)
    assert found == [0.5, 1.0]


def test_under_jit_users_schedules_are_traced():
    seen = []

    def step_size(count):
        seen.append(isinstance(count, jax.core.Tracer))
        return 0.5**count

    tx = grad_core.scale_by_schedule(step_size)
    update = jax.jit(tx.update)
    state = tx.init(PARAMS)
    for expected in (1.0, 0.5, 0.25):
        updates, state = update(PARAMS, state)
        assert float(updates["b"]) == expected
    assert seen == [True]


def test_our_schedules_share_code():
    traces = []

    @schedule
    def noted(value: Real) -> Schedule:
        def at(count):
            traces.append(value)
            return value * jnp.ones_like(count, float)

        return at

    assert run(grad_core.scale_by_schedule(noted(2.0)), 2)[0] == [2.0, 2.0]
    first = len(traces)
    assert run(grad_core.scale_by_schedule(noted(3.0)), 2)[0] == [3.0, 3.0]
    assert len(traces) == first


def test_values_of_schedules_keep_double_precision():
    with jax.enable_x64(True):
        tx = grad_core.scale_by_schedule(lambda count: 0.1)
        updates, _ = tx.update(jnp.ones(2, jnp.float64), tx.init(jnp.ones(2)))
        assert updates.dtype == jnp.float64
        np.testing.assert_allclose(updates, 0.1, rtol=1e-15)
