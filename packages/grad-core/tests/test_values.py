"""Transformations as values: they print, compare, hash, pickle and copy as their call."""

import copy
import functools
import inspect
import math
import pickle
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    Real,
    chain,
    clip_by_global_norm,
    ema,
    masked,
    named_chain,
    partition,
    rule,
    scale,
    scale_by_learning_rate,
    set_to_zero,
    stateless,
    trace,
    transformation,
)

PARAMS = {"w": jnp.arange(3.0), "b": jnp.ones(())}
GRADS = {"w": jnp.ones(3), "b": jnp.full((), 2.0)}


def module_level(updates, params):
    return updates


def nothing(params):
    return ()


def passing(updates, state, params=None):
    return updates, state


LABELLED = {"w": scale(2.0), "b": set_to_zero()}
EXAMPLES = {
    "rule": lambda: ema(0.9, debias=False),
    "chain": lambda: chain(clip_by_global_norm(1.0), chain(trace(0.9), scale(-0.1))),
    "empty": lambda: chain(),
    "named": lambda: named_chain(("clip", clip_by_global_norm(1.0)), ("step", scale(-0.1))),
    "pattern": lambda: masked(trace(0.5), r".*w"),
    "partition": lambda: partition(LABELLED),
    "stateless": lambda: stateless(module_level),
    "foreign": lambda: chain(GradientTransformation(nothing, passing), scale(2.0)),
}


def pickled(x):
    return pickle.loads(pickle.dumps(x))


def same_leaves(tx):
    return jax.tree.map(lambda x: x, tx)


def same(one, two):
    return jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), one, two))


@pytest.mark.parametrize("make", EXAMPLES.values(), ids=EXAMPLES)
def test_equal_calls_make_equal_transformations(make):
    assert make() is not make()
    assert make() == make()
    assert hash(make()) == hash(make())
    assert make() != scale(17.0)
    assert repr(make()) == repr(make())


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, pickled, lambda tx: tx._replace(), same_leaves],
    ids=["copy", "deepcopy", "pickle", "replace", "tree_map"],
)  # fmt: skip
@pytest.mark.parametrize("name", EXAMPLES)
def test_copies_are_the_same_transformation(name, again):
    tx = EXAMPLES[name]()
    other = again(tx)
    assert type(other) is type(tx)
    assert repr(other).startswith(repr(tx).split("(")[0])
    by_identity = name == "partition" and again in (copy.deepcopy, pickled)  # of the dict
    if not by_identity:
        assert other == tx
        assert hash(other) == hash(tx)
        assert repr(other) == repr(tx)
    assert same(other.update(GRADS, other.init(PARAMS))[0], tx.update(GRADS, tx.init(PARAMS))[0])


@pytest.mark.parametrize("again", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
def test_copies_run_as_fast(again):
    # Inside chains, copies are our rules still, not a user's functions.
    for tx in (scale(2.0), chain(scale(2.0), masked(trace(0.5), "w"))):
        assert chain(tx).update.node.pure
        assert again(chain(tx)).update.node.pure
        assert chain(again(tx), scale(1.0)).update.node.pure


@pytest.mark.parametrize(
    ("tx", "shown"),
    [
        (lambda: scale(-0.5), "scale(step_size=-0.5)"),
        (lambda: ema(0.9), "ema(decay=0.9)"),
        (lambda: ema(decay=0.9, debias=False), "ema(decay=0.9, debias=False)"),
        (lambda: ema(0.9, True), "ema(decay=0.9)"),
        (lambda: chain(), "chain()"),
        (lambda: chain(scale(1.0), ema(0.5)), "chain(scale(step_size=1.0), ema(decay=0.5))"),
        (lambda: named_chain(("a", scale(1.0))), "named_chain(('a', scale(step_size=1.0)))"),
        (lambda: masked(scale(1.0), ".*"), "masked(inner=scale(step_size=1.0), mask='.*')"),
        (lambda: grad_core.identity(), "identity()"),
        (
            lambda: partition({"a": scale(1.0)}),
            "partition(transforms={'a': scale(step_size=1.0)})",
        ),
    ],
)
def test_they_print_as_they_were_written(tx, shown):
    assert repr(tx()) == shown
    assert repr(tx().init) == f"{shown}.init"
    assert repr(tx().update) == f"{shown}.update"


def test_replacing_a_function_makes_another_transformation():
    tx = trace(0.9)
    other = tx._replace(init=nothing)
    assert other != tx
    assert other.update == tx.update
    assert repr(other).startswith("GradientTransformation")
    assert "init=<function nothing" in repr(other)
    # A chain calls both as they are.
    assert chain(other).init(PARAMS) == ((),)


def test_init_and_update_differ():
    assert scale(1.0).init != scale(1.0).update
    assert scale(1.0).init == scale(1.0).init
    assert scale(1.0) != chain(scale(1.0))
    assert scale(1.0) != 1.0


@pytest.mark.parametrize(
    ("one", "two"),
    [(1, 1.0), (0.0, -0.0), (1.0, np.float32(1.0)), (np.float32(1), np.float64(1)), (0.1, 0.2)],
)
def test_arguments_compare_with_their_type(one, two):
    assert scale(one) != scale(two)
    assert scale(one) == scale(one)


def test_static_arguments_compare_with_their_type():
    @transformation
    def f(x: object) -> GradientTransformation:
        return scale(1.0)

    values = [1, 1.0, True, (1,), (1.0,), (True,), "1", None, math.nan, 0.0, -0.0, jnp.float32]
    for i, one in enumerate(values):
        for j, two in enumerate(values):
            assert (f(one) == f(two)) == (i == j), (one, two)
    assert f(float("nan")) == f(math.nan)
    assert hash(f(float("nan"))) == hash(f(math.nan))


@pytest.mark.parametrize(
    "make",
    [lambda: jnp.asarray(0.1), lambda: np.asarray(0.1)],
)
def test_arrays_compare_by_identity(make):
    one, two = make(), make()
    assert scale(one) == scale(one)
    assert hash(scale(one)) == hash(scale(one))
    assert scale(one) != scale(two)
    tx = pickled(scale(one))
    assert tx == tx
    np.testing.assert_allclose(tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0], 0.1, rtol=1e-6)


def test_dicts_lists_and_functions_compare_by_identity():
    mask = {"w": True, "b": False}
    assert masked(scale(1.0), mask) == masked(scale(1.0), mask)
    assert masked(scale(1.0), mask) != masked(scale(1.0), dict(mask))

    def f(updates, params):
        return updates

    assert stateless(f) == stateless(f)
    assert stateless(f) != stateless(lambda updates, params: updates)


def test_tracers_are_arguments():
    def f(x):
        tx = scale(x)
        assert tx == tx
        assert scale(x) == scale(x)
        assert scale(x) != scale(x + 1)
        assert isinstance(hash(tx), int)
        assert "scale(step_size=" in repr(tx)
        return tx.update(x, tx.init(x))[0]

    assert jax.jit(f)(3.0) == 9.0


def test_a_static_argument_does_not_trace_again():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def step(tx, updates, state):
        traces.append(tx)
        return tx.update(updates, state)

    for make in (EXAMPLES["chain"], EXAMPLES["named"], EXAMPLES["pattern"]):
        traces.clear()
        for _ in range(3):
            step(make(), GRADS, make().init(PARAMS))
        assert len(traces) == 1
    step(scale(2.0), GRADS, scale(2.0).init(PARAMS))
    step(scale(3.0), GRADS, scale(3.0).init(PARAMS))
    assert len(traces) == 3


def test_deep_nesting_costs_no_exponential_time():
    def deep():
        tx = scale(1.0)
        for _ in range(18):
            tx = chain(tx)
        return tx

    one, two = deep(), deep()
    start = time.perf_counter()
    assert hash(one) == hash(two)
    assert one == two
    assert repr(one) == repr(two)
    # If each level did twice the work of the next, this would take several seconds.
    assert time.perf_counter() - start < 0.5


SOURCE = '''
import grad_core

@grad_core.transformation
def mine(learning_rate: grad_core.LearningRate, flag: bool = False) -> (
    grad_core.GradientTransformationExtraArgs
):
    """Mine."""
    return grad_core.chain(ours(2.0), grad_core.scale_by_learning_rate(learning_rate))

@grad_core.example(1.0)
@grad_core.rule
def ours(factor: grad_core.Real = 1.0) -> grad_core.LeafRule:
    """Ours."""
    return grad_core.LeafRule(lambda g: factor * g)
'''


@pytest.fixture
def user_module(monkeypatch):
    module = types.ModuleType("a_users_module")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(SOURCE, module.__dict__)
    return module


def test_users_factories_make_values(user_module):
    tx = user_module.mine(0.5)
    assert repr(tx) == "mine(learning_rate=0.5)"
    assert repr(user_module.mine(0.5, True)) == "mine(learning_rate=0.5, flag=True)"
    assert tx == user_module.mine(learning_rate=0.5, flag=False)
    assert pickled(tx) == tx
    assert float(tx.update(GRADS, tx.init(PARAMS))[0]["b"]) == -2.0
    assert pickled(user_module.ours(3.0)) == user_module.ours(3.0)
    assert repr(chain(tx)) == "chain(mine(learning_rate=0.5))"
    with pytest.raises(ValueError, match="mine: learning_rate must be a number; got nan"):
        user_module.mine(math.nan)


def test_signature_and_documentation_are_kept(user_module):
    assert user_module.mine.__doc__ == "Mine."
    assert user_module.mine.__name__ == "mine"
    assert list(inspect.signature(user_module.mine).parameters) == ["learning_rate", "flag"]
    assert inspect.signature(user_module.ours).parameters["factor"].default == 1.0
    assert user_module.ours.__annotations__["return"] is GradientTransformation
    assert ema.__module__ == "grad_core.averaging"
    assert scale(1.0).init.__name__ == "init"
    assert scale(1.0).update.__qualname__ == "scale.update"


def test_annotations_for_type_checkers_alone_do_no_harm():
    module = types.ModuleType("another_users_module")
    exec(
        "from __future__ import annotations\n"
        "import typing, grad_core\n"
        "if typing.TYPE_CHECKING:\n"
        "    from elsewhere import Something\n"
        "@grad_core.transformation\n"
        "def mine(\n"
        "    rate: grad_core.LearningRate, extra: Something | None = None\n"
        ") -> grad_core.GradientTransformation:\n"
        "    return grad_core.scale(rate)\n",
        module.__dict__,
    )
    assert repr(module.mine(0.5)) == "mine(rate=0.5)"


def test_wrong_calls_name_the_factory():
    with pytest.raises(TypeError, match=r"scale.*step_size"):
        scale()
    with pytest.raises(TypeError, match=r"scale.*factor"):
        scale(factor=2.0)


def test_functions_can_be_called_by_keyword():
    tx = trace(0.5)
    state = tx.init(params=PARAMS)
    updates, _ = tx.update(updates=GRADS, state=state, params=PARAMS)
    assert same(updates, GRADS)


def test_kinds_of_pairs():
    assert type(scale(1.0)) is GradientTransformation
    assert type(chain()) is GradientTransformationExtraArgs
    assert type(scale_by_learning_rate(0.1)) is GradientTransformation
    assert isinstance(scale(1.0), tuple)
    assert len(scale(1.0)) == 2

    @rule
    def with_extra(factor: Real = 1.0) -> LeafRule:
        return LeafRule(lambda g, v: v * g, once=lambda value: {"v": value})

    assert type(with_extra()) is GradientTransformationExtraArgs
