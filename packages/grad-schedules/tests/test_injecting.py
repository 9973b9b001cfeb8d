"""Injected hyperparameters: which arguments become what, and what the state holds."""

import copy
import functools
import pickle
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_schedules import linear_schedule
from grad_schedules.injecting import (
    InjectStatefulHyperparamsState,
    inject_hyperparams,
    inject_stateful_hyperparams,
)
from grad_schedules.stateful import StatefulSchedule, WrappedSchedule

PARAMS = {"a": jnp.ones(3), "b": jnp.array(2.0)}


def halving(count):
    return 0.5**count


def descent(learning_rate, momentum=0.0, nesterov=False):
    return gc.chain(gc.trace(momentum, nesterov), gc.scale_by_learning_rate(learning_rate))


def run(tx, steps, params=PARAMS, state=None, **extra_args):
    state = tx.init(params) if state is None else state
    for _ in range(steps):
        updates, state = tx.update(params, state, params, **extra_args)
    return updates, state


def test_numbers_and_schedules_are_in_the_state_by_name():
    tx = inject_hyperparams(descent)(halving, momentum=0.5)
    state = tx.init(PARAMS)
    assert isinstance(state, InjectStatefulHyperparamsState)
    assert {name: float(x) for name, x in state.hyperparams.items()} == {
        "learning_rate": 1.0,
        "momentum": 0.5,
    }
    for i, rate in enumerate([1.0, 0.5, 0.25]):
        _, state = run(tx, 1, state=state)
        assert int(state.count) == i + 1
        assert float(state.hyperparams["learning_rate"]) == rate
        assert int(state.hyperparams_states["learning_rate"].count) == i + 1


@pytest.mark.parametrize("jit", [False, True])
def test_injected_is_as_made_directly(jit):
    tx = inject_hyperparams(descent)(halving, 0.5, nesterov=True)
    direct = descent(halving, 0.5, nesterov=True)
    step = jax.jit(tx.update) if jit else tx.update
    state, other = (jax.jit(tx.init) if jit else tx.init)(PARAMS), direct.init(PARAMS)
    for _ in range(3):
        updates, state = step(PARAMS, state, PARAMS)
        expected, other = direct.update(PARAMS, other, PARAMS)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), updates, expected)


def test_what_is_set_in_the_state_is_used_and_compiles_nothing():
    tx = gc.chain(gc.clip(10.0), inject_hyperparams(descent)(1.0))
    traces = []

    @jax.jit
    def update(updates, state):
        traces.append(1)
        return tx.update(updates, state)

    state = tx.init(PARAMS)
    updates, state = update(PARAMS, state)
    for rate in (0.5, 3, jnp.float32(0.25)):
        state = gc.tree.set(state, learning_rate=rate)
        updates, state = update(PARAMS, state)
        np.testing.assert_allclose(updates["a"], np.full(3, -float(rate)))
        np.testing.assert_allclose(gc.tree.get(state, "learning_rate"), rate)
        np.testing.assert_allclose(gc.current_learning_rate(tx, state), rate)
    assert len(traces) == 1
    state[1].hyperparams["learning_rate"] = 0.125  # as some have always done
    updates, state = tx.update(PARAMS, state)
    np.testing.assert_allclose(updates["a"], np.full(3, -0.125))
    assert state[1].hyperparams["learning_rate"].dtype == jnp.float32


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_hyperparameters_are_float32_at_least(dtype):
    """In bfloat16, a decay of 0.999 would be 1."""
    params = jnp.ones(3, dtype)
    tx = inject_hyperparams(gc.ema)(0.999)
    _, state = run(tx, 2, params)
    assert state.hyperparams["decay"].dtype == jnp.float32
    assert float(state.hyperparams["decay"]) == np.float32(0.999)


def test_hyperparameters_follow_float64_and_a_given_dtype():
    with jax.enable_x64(True):
        state = inject_hyperparams(gc.ema)(0.999).init(jnp.ones(3, "float64"))
        assert state.hyperparams["decay"].dtype == "float64"
        assert float(state.hyperparams["decay"]) == 0.999
    state = inject_hyperparams(gc.ema, hyperparam_dtype=jnp.bfloat16)(0.5).init(PARAMS)
    assert state.hyperparams["decay"].dtype == jnp.bfloat16


# Which arguments become what.


class Mask:
    """A pytree that is callable too, as modules of neural network libraries are."""

    def __init__(self, flag):
        self.flag = flag

    def __call__(self, count):
        raise AssertionError("called as a schedule")


jax.tree_util.register_pytree_node(Mask, lambda m: ((m.flag,), None), lambda _, xs: Mask(*xs))


def kinds_of(factory, *args, **kwargs):
    """The names of numbers and of schedules in the state."""
    state = inject_hyperparams(factory)(*args, **kwargs).init(PARAMS)
    schedules = set(state.hyperparams_states)
    return set(state.hyperparams) - schedules, schedules


def test_bare_lambdas_are_schedules_where_a_number_may_stand():
    def factory(bare, real: float, scalar: gc.Numeric, function: Callable[[Any], Any], flag: bool):
        assert callable(function)
        return gc.scale(bare * real * scalar)

    rates = dict.fromkeys(("bare", "real", "scalar", "function"), lambda count: 1.0)
    assert kinds_of(factory, **rates, flag=True) == (set(), {"bare", "real", "scalar"})


def test_callable_pytrees_and_masks_are_static():
    def factory(scale, tree):
        assert isinstance(tree, Mask)
        return gc.scale(scale)

    assert kinds_of(factory, 1.0, tree=Mask(True)) == ({"scale"}, set())
    numbers, schedules = kinds_of(gc.add_decayed_weights, 0.1, lambda tree: {"a": True, "b": False})
    assert (numbers, schedules) == ({"weight_decay"}, set())


def test_flags_dtypes_integers_and_none_are_static():
    def factory(a, b: int, c: int | None = 3, d=None, e="x", f=True, g: str = "y"):
        assert all(not isinstance(x, jax.Array) for x in (b, d, e, f, g))
        return gc.scale(a * b)

    assert kinds_of(factory, 2, 3) == ({"a"}, set())
    assert kinds_of(gc.trace, 0.5, True, jnp.float32) == ({"decay"}, set())


def test_static_args_override():
    seen = []

    def factory(a, b=0.5):
        seen.append(b)
        return gc.scale(a)

    for static in ("b", ("b",)):
        tx = inject_hyperparams(factory, static_args=static)(1.0)
        assert set(tx.init(PARAMS).hyperparams) == {"a"}
        assert type(seen[-1]) is float


def test_keyword_arguments_have_names_too():
    def factory(**kwargs):
        return gc.scale(kwargs["a"] * kwargs["b"])

    assert kinds_of(factory, a=1.0, b=halving) == ({"a"}, {"b"})


def test_partial_functions_and_classes_are_factories():
    partial = functools.partial(descent, momentum=0.5)
    assert kinds_of(partial, 1.0) == ({"learning_rate", "momentum"}, set())


# Stateful schedules.


class Following:
    """The sum of the extra arguments `loss` so far."""

    def init(self):
        return jnp.zeros([])

    def update(self, state, **extra_args):
        return state + extra_args["loss"]

    def __call__(self, state, **extra_args):
        return state


def test_stateful_schedules_see_extra_arguments():
    assert isinstance(Following(), StatefulSchedule)
    tx = inject_stateful_hyperparams(descent)(Following())
    state = tx.init(PARAMS)
    for i in range(3):
        updates, state = run(tx, 1, state=state, loss=2.0)
        np.testing.assert_allclose(updates["a"], np.full(3, -2.0 * i))
        np.testing.assert_allclose(state.hyperparams_states["learning_rate"], 2.0 * (i + 1))


def test_wrapped_schedules_count():
    schedule = WrappedSchedule(halving)
    state = schedule.init()
    values = []
    for _ in range(3):
        values.append(float(schedule(state)))
        state = schedule.update(state, anything=1)
    assert values == [1.0, 0.5, 0.25]
    assert isinstance(schedule, StatefulSchedule)


# Values.


def test_it_is_a_value():
    make = inject_hyperparams(gc.trace)
    tx = make(0.5)
    assert repr(tx) == "inject_hyperparams(trace)(decay=0.5)"
    assert tx == inject_hyperparams(gc.trace)(0.5)
    assert hash(tx) == hash(inject_hyperparams(gc.trace)(0.5))
    assert tx != make(0.25)
    assert tx != gc.trace(0.5)
    for other in (pickle.loads(pickle.dumps(tx)), copy.copy(tx), copy.deepcopy(tx)):
        assert other == tx
        assert other._replace(init=tx.init) == tx
    assert pickle.loads(pickle.dumps(make)) is make


def test_it_nests_in_itself_and_in_others():
    inner = inject_hyperparams(descent)(1.0, momentum=0.5)
    tx = gc.partition({"a": inner, "b": gc.chain(inner, gc.scale(2.0))})
    updates, state = run(tx, 1)
    np.testing.assert_allclose(updates["b"], -4.0)
    state = gc.tree.set(state, learning_rate=0.5)
    np.testing.assert_allclose(run(tx, 1, state=state)[0]["b"], -2.0 * 0.5 * 3)
    masked = gc.masked(inner, {"a": True, "b": False})
    np.testing.assert_allclose(run(masked, 1)[0]["b"], 2.0)
    twice = inject_hyperparams(lambda scale: gc.chain(inner, gc.scale(scale)))(halving)
    np.testing.assert_allclose(run(twice, 2)[0]["a"], -0.75)


def test_parameters_of_the_state_can_be_mapped():
    tx = inject_hyperparams(descent)(halving, momentum=0.5)
    state = tx.init(PARAMS)
    mapped = gc.tree.map_params(tx, lambda x: x + 1, state)
    np.testing.assert_allclose(mapped.inner_state[0].trace["a"], np.ones(3))
    np.testing.assert_allclose(mapped.hyperparams["momentum"], 0.5)


def test_derivatives_by_the_learning_rate():
    def loss(rate):
        tx = inject_hyperparams(descent)(rate)
        return jnp.sum(run(tx, 2)[0]["a"])

    np.testing.assert_allclose(jax.grad(loss)(0.5), -3.0, rtol=1e-6)
    rates = jnp.array([0.5, 1.0])
    np.testing.assert_allclose(jax.vmap(loss)(rates), [-1.5, -3.0], rtol=1e-6)


def test_init_takes_shapes():
    tx = inject_hyperparams(descent)(linear_schedule(1.0, 0.0, 10), 0.5)
    shapes = jax.eval_shape(lambda: PARAMS)
    assert jax.tree.structure(tx.init(shapes)) == jax.tree.structure(tx.init(PARAMS))
    jax.eval_shape(tx.init, PARAMS)


# Errors.


def test_bad_input():
    with pytest.raises(TypeError, match="inner_factory must be a function that makes"):
        inject_hyperparams(gc.trace(0.5))
    text = "static_args names rate, but trace takes decay, nesterov, accumulator_dtype"
    with pytest.raises(ValueError, match=re.escape(text)):
        inject_hyperparams(gc.trace, static_args="rate")
    with pytest.raises(ValueError, match=r"trace: decay must be in \[0, 1\]; got 1.5"):
        inject_hyperparams(gc.trace)(1.5)
    with pytest.raises(TypeError, match="trace: nesterov must be True or False; got 'yes'"):
        inject_hyperparams(gc.trace)(0.5, nesterov="yes")
    with pytest.raises(TypeError, match=r"inject_hyperparams\(trace\): .*unknown"):
        inject_hyperparams(gc.trace)(0.5, rate=1.0)
    tx = inject_hyperparams(lambda rate: rate)(0.5)
    with pytest.raises(TypeError, match="takes gradient transformations"):
        tx.init(PARAMS)
    made = inject_hyperparams(gc.trace)(0.5)
    with pytest.raises(ValueError, match="InjectStatefulHyperparamsState"):
        made.update(PARAMS, gc.trace(0.5).init(PARAMS))
