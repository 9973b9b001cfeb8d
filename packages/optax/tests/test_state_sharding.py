"""`state_sharding` is right of every optimizer, and of what is built with them."""

import contextlib
import functools

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import grad_optimizers
import optax
from grad_core.sharding import state_sharding
from grad_testing import transformation_factories
from grad_testing.checking import numbered, require_close, subject_of
from grad_testing.training import require_sharded

OPTIMIZERS = transformation_factories(grad_optimizers)
SHAPES = {"bias": (8,), "square": (8, 8)}
SPECS = {"bias": ("data",), "square": ("model", "data")}


def trees():
    """Parameters and gradients."""
    return [dict(zip(SHAPES, numbered(list(SHAPES.values()), i), strict=True)) for i in range(2)]


def on(mesh, *entries):
    return NamedSharding(mesh, PartitionSpec(*entries))


def given(mesh):
    """The parameters' shardings."""
    return {name: on(mesh, *spec) for name, spec in SPECS.items()}


def is_explicit(mesh):
    return AxisType.Explicit in mesh.axis_types


def current(mesh):
    """The mesh as the current one, if it is explicit, as such meshes are used."""
    return jax.set_mesh(mesh) if is_explicit(mesh) else contextlib.nullcontext()


@functools.cache
def unsharded(optimizer):
    """The first state, and what an update makes of it, on one device."""
    params, gradients = trees()
    state = optimizer.init(params)
    return state, optimizer.update(gradients, state, params)


def assert_typed(types, shardings):
    """On explicit meshes, types say how ``init`` and ``update`` shard."""
    found = jax.tree_util.tree_flatten_with_path(types)[0]
    for (path, x), due in zip(found, jax.tree.leaves(shardings), strict=True):
        spec = () if x.sharding is None else x.sharding.spec
        entries, expected = ([*s, *[None] * (x.ndim - len(s))] for s in (spec, due.spec))
        assert entries == expected, f"state{jax.tree_util.keystr(path)} is sharded as {spec}"


def check(optimizer, mesh, expected):
    """Init and a step with these shardings, against unsharded ones; returns the shardings."""
    with current(mesh):
        params, gradients = (jax.device_put(tree, given(mesh)) for tree in trees())
        shardings = state_sharding(optimizer, params)
        types = jax.eval_shape(optimizer.init, params)
        assert jax.tree.structure(shardings) == jax.tree.structure(types)
        if is_explicit(mesh):
            assert_typed(types, shardings)
        state = jax.jit(optimizer.init, out_shardings=shardings)(params)
        require_close(state, expected[0], "the state of init")
        if is_explicit(mesh):
            assert_typed(jax.eval_shape(optimizer.update, gradients, state, params)[1], shardings)
        step = jax.jit(
            optimizer.update,
            in_shardings=(given(mesh), shardings, given(mesh)),
            out_shardings=(given(mesh), shardings),
        )
        made = step(gradients, state, params)
    require_close(made, expected[1], "what update makes")
    require_sharded(made[1], shardings, "state")
    for (path, x), sharding in zip(
        jax.tree_util.tree_flatten_with_path(types)[0], jax.tree.leaves(shardings), strict=True
    ):
        if x.shape == SHAPES["square"]:  # only moments of that parameter are of that shape
            assert sharding == given(mesh)["square"], jax.tree_util.keystr(path)
    return shardings


@pytest.mark.parametrize("factory", OPTIMIZERS, ids=lambda f: f.__name__)
def test_every_optimizer(factory, mesh):
    """Moments are sharded like parameters; states and updates equal unsharded ones."""
    optimizer = subject_of(factory).runner
    check(optimizer, mesh, unsharded(optimizer))


# Optimizers whose statistics are not like the parameters.


def test_adafactor_keeps_the_axes_of_rows_and_columns(mesh):
    """Of a square, whose shape does not tell them apart."""
    optimizer = optax.adafactor(1e-2, min_dim_size_to_factor=8, momentum=0.9)
    factored = check(optimizer, mesh, unsharded(optimizer))[0]
    assert factored.v_row["square"] == on(mesh, "model")
    assert factored.v_col["square"] == on(mesh, "data")
    assert factored.v == {"bias": on(mesh, "data"), "square": on(mesh)}
    assert factored.count == factored.v_row["bias"] == on(mesh)


def test_sm3_keeps_each_axis(mesh):
    optimizer = optax.sm3(1e-2)
    found = check(optimizer, mesh, unsharded(optimizer))[0]
    assert found.mu["square"] == [on(mesh, "model"), on(mesh, "data")]


def test_novograd_keeps_one_number_a_leaf(mesh):
    optimizer = optax.novograd(1e-2)
    found = check(optimizer, mesh, unsharded(optimizer))[0]
    assert found.nu == {"bias": on(mesh), "square": on(mesh)}


# What is built with optimizers.


def test_nested(mesh):
    """Chains, names, masks, partitions and injected hyperparameters, one in another."""
    schedule = optax.linear_schedule(0.1, 0.2, 10)
    optimizer = optax.named_chain(
        ("clip", optax.clip_by_global_norm(1.0)),
        (
            "parts",
            optax.partition(
                {
                    "bias": optax.inject_hyperparams(optax.adam)(schedule),
                    "square": optax.masked(optax.adafactor(min_dim_size_to_factor=8), ".*"),
                }
            ),
        ),
    )
    found = check(optimizer, mesh, unsharded(optimizer))["parts"].inner_states
    injected = found["bias"].inner_state
    assert {*injected.hyperparams.values()} == {on(mesh)}
    assert injected.inner_state[0].mu["bias"] == on(mesh, "data")
    factored = found["square"].inner_state.inner_state[0]
    assert factored.v_row["square"] == on(mesh, "model")


def test_a_scan_keeps_its_carry(mesh):
    """On explicit meshes the carry of a scan has to keep its shardings."""
    optimizer = optax.chain(optax.adafactor(1e-2, min_dim_size_to_factor=8), optax.sm3(1e-2))

    def train(params, state):
        def body(carry, _):
            params, state = carry
            updates, state = optimizer.update(params, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(body, (params, state), length=3)[0]

    with current(mesh):
        params = jax.device_put(trees()[0], given(mesh))
        shardings = state_sharding(optimizer, params)
        state = jax.jit(optimizer.init, out_shardings=shardings)(params)
        last, _ = jax.jit(train, out_shardings=(given(mesh), shardings))(params, state)
    expected, _ = jax.jit(train)(trees()[0], optimizer.init(trees()[0]))
    require_close(last, expected, "parameters after three steps")
    assert np.any(np.asarray(last["square"]) != np.asarray(params["square"]))
