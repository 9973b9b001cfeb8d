"""Two real processes train, and keep checkpoints, as one does.

The functions of the first half run in other processes: first in two with 4 devices each, then in
one with 8, then in two again. The tests compare what they return.
"""

import fcntl
import functools
import importlib.util
import os
import pickle
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import optax
from grad_testing import run_processes
from grad_testing.checking import numbered, require_close
from grad_testing.devices import make_mesh
from grad_testing.training import Trained, require_sharded

STEPS = 3
BEFORE = 1  # steps before a checkpoint, which is amid an accumulation

OPTIMIZERS = {
    "clipped_adamw": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), optax.adamw(optax.linear_schedule(0.1, 0.01, STEPS))
    ),
    "adafactor": lambda: optax.adafactor(0.1, min_dim_size_to_factor=8, momentum=0.9),
    "muon": lambda: optax.contrib.muon(0.02),
    "accumulated_adam": lambda: optax.MultiSteps(optax.adam(0.1), 2).gradient_transformation(),
    "lbfgs": lambda: optax.lbfgs(),
}
CASES = [(name, kind) for name in OPTIMIZERS for kind in ("automatic", "explicit")]
KEPT = ["clipped_adamw", "adafactor", "accumulated_adam"]  # in checkpoints

SHAPES = {"bias": (16,), "in": (8, 16), "out": (16, 8), "scale": ()}
# The axis "data" spans both processes.
ROWS = {"bias": ("data",), "in": ("data", None), "out": ("data", "model"), "scale": ()}
COLUMNS = {"bias": (), "in": (None, "data"), "out": (None, ("model", "data")), "scale": ()}
COPIES = dict.fromkeys(SHAPES, ())


# What runs in other processes.


def planted():
    """A fault: updates of matrices are larger in the second process."""

    def update(updates, state, params=None):
        factor = 1 + jax.process_index()
        return jax.tree.map(lambda u: factor * u if u.ndim == 2 else u, updates), state

    faulty = optax.GradientTransformation(optax.init_empty_state, update)
    return optax.chain(faulty, optax.sgd(0.1))


class Training(NamedTuple):
    """An optimizer, and where the parameters and the state of a small network belong."""

    optimizer: optax.GradientTransformationExtraArgs
    mesh: Mesh
    like_params: dict[str, NamedSharding]
    like_state: optax.OptState


def training(optimizer, kind, specs, devices=None):
    optimizer = optax.with_extra_args_support(optimizer)
    mesh = make_mesh(explicit=kind == "explicit", devices=devices)
    like_params = {name: on(mesh, *spec) for name, spec in specs.items()}
    like_state = optax.state_sharding(optimizer, abstract_params(), like_params)
    return Training(optimizer, mesh, like_params, like_state)


def on(mesh, *entries):
    return NamedSharding(mesh, PartitionSpec(*entries))


def abstract_params():
    return {name: jax.ShapeDtypeStruct(shape, "float32") for name, shape in SHAPES.items()}


def loss(params, batch, mesh):
    """That of a network of two layers, which gathers parameters where it uses them."""
    is_explicit = AxisType.Explicit in mesh.axis_types
    gather = jax.sharding.reshard if is_explicit else jax.lax.with_sharding_constraint
    whole = jax.tree.map(lambda p: gather(p, on(mesh)), params)
    x, y = batch
    hidden = jnp.tanh(x @ whole["in"] + whole["bias"])
    return jnp.mean((whole["scale"] * hidden @ whole["out"] - y) ** 2)


def train(t, params, state, steps, checkpoint=None):
    """Takes steps, each on a batch of its own, half of which is in either process."""

    def step(params, state, batch):
        value_fn = functools.partial(loss, batch=batch, mesh=t.mesh)
        value, grads = jax.value_and_grad(value_fn)(params)
        updates, state = t.optimizer.update(
            grads, state, params, value=value, grad=grads, value_fn=value_fn
        )
        return optax.apply_updates(params, updates), state, value

    step = jax.jit(step, out_shardings=(t.like_params, t.like_state, on(t.mesh)))
    losses = []
    for i in steps:
        if i == BEFORE and checkpoint is not None:
            save(checkpoint, params, state)
        batch = jax.device_put(numbered([(16, 8), (16, 8)], i), on(t.mesh, "data"))
        params, state, value = step(params, state, batch)
        losses.append(value)
    return Trained(params, state, losses)


def train_from_the_start(t, checkpoint=None):
    drawn = numbered(list(SHAPES.values()), 100)
    values = {name: x / 4 for name, x in zip(SHAPES, drawn, strict=True)}
    with jax.set_mesh(t.mesh):
        params = jax.device_put(values, t.like_params)
        by_itself = jax.jit(t.optimizer.init)(params)
        as_said = jax.jit(t.optimizer.init, out_shardings=t.like_state)(params)
        require_sharded(by_itself, t.like_state, "after init under jit, state")
        return {
            "states of init": [by_itself, as_said],
            "trained": train(t, params, as_said, range(STEPS), checkpoint),
        }


def has_orbax():
    return importlib.util.find_spec("orbax") is not None


def save(folder, params, state):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, {"params": params, "state": state})


def train_from(checkpoint, t):
    import orbax.checkpoint as ocp

    def target(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    params = abstract_params()
    state = jax.eval_shape(t.optimizer.init, params)
    targets = {
        "params": jax.tree.map(target, params, t.like_params),
        "state": jax.tree.map(target, state, t.like_state),
    }
    with jax.set_mesh(t.mesh), ocp.StandardCheckpointer() as checkpointer:
        restored = checkpointer.restore(checkpoint, targets)
        require_sharded(restored["state"], t.like_state, "from a checkpoint, state")
        return {
            "restored": restored,
            "trained": train(t, restored["params"], restored["state"], range(BEFORE, STEPS)),
        }


def train_all(folder):
    """Every optimizer on either kind of mesh, with checkpoints of some; and the planted fault."""
    made = {"planted": train_from_the_start(training(planted(), "automatic", ROWS))}
    for name, kind in CASES:
        is_kept = has_orbax() and name in KEPT and kind == "automatic"
        t = training(OPTIMIZERS[name](), kind, ROWS)
        made[f"{name}-{kind}"] = train_from_the_start(t, folder / name if is_kept else None)
    return made


def train_with_copies():
    return train_from_the_start(training(planted(), "automatic", COPIES))


def restore_all(folder):
    """Other shardings, and the other kind of mesh, than the checkpoints were made on."""
    if not has_orbax():
        return {}
    return {
        name: train_from(folder / name, training(OPTIMIZERS[name](), "explicit", COLUMNS))
        for name in KEPT
    }


def train_in_one_process(folder, theirs):
    one_device = jax.devices()[:1]
    return {
        "8 devices": train_all(folder),
        "1 device": {
            name: train_from_the_start(training(make(), "automatic", ROWS, one_device))
            for name, make in OPTIMIZERS.items()
        },
        "restored": restore_all(theirs),
    }


# What is compared.


def once(folder, make):
    """What ``make`` returns; of the processes that run tests, only the first that asks makes it."""
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made"
        if not made.exists():
            made.write_bytes(pickle.dumps(make()))
    return pickle.loads(made.read_bytes())


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """What two processes made, then one, then two from the checkpoints of that one."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "two_processes"
    folder.mkdir(exist_ok=True)

    def make():
        two = run_processes(train_all, folder / "of_two")
        one = run_processes(
            train_in_one_process, folder / "of_one", folder / "of_two", processes=1, devices=8
        )
        return {"two": two, "one": one, "two again": run_processes(restore_all, folder / "of_one")}

    return once(folder, make)


cases = pytest.mark.parametrize("case", [f"{name}-{kind}" for name, kind in CASES])
kept = pytest.mark.parametrize("name", KEPT)
needs_orbax = pytest.mark.skipif(not has_orbax(), reason="orbax-checkpoint is not installed")


@cases
def test_training_equals_that_of_one_process(results, case):
    due = results["one"]["8 devices"][case]["trained"]
    require_close(results["two"][case]["trained"], due, "in two processes")


@cases
def test_training_equals_that_on_one_device(results, case):
    due = results["one"]["1 device"][case.partition("-")[0]]["trained"]
    require_close(results["two"][case]["trained"], due, "in two processes")


@cases
def test_init_equals_that_of_one_process(results, case):
    """With its shardings said, or, which are the same, by itself."""
    due = results["one"]["8 devices"][case]["states of init"]
    require_close(results["two"][case]["states of init"], due, "in two processes")
    require_close(*due, "by itself and as said")


@needs_orbax
@kept
def test_one_process_goes_on_from_the_checkpoint_of_two(results, name):
    assert_goes_on(results["one"]["restored"][name], results["two"][f"{name}-automatic"], name)


@needs_orbax
@kept
def test_two_processes_go_on_from_the_checkpoint_of_one(results, name):
    due = results["one"]["8 devices"][f"{name}-automatic"]
    assert_goes_on(results["two again"][name], due, name)


def assert_goes_on(found, due, name):
    """From a state of the types that it had, to where one would have come."""
    types = jax.eval_shape(OPTIMIZERS[name]().init, abstract_params())
    assert jax.tree.structure(found["restored"]["state"]) == jax.tree.structure(types)
    params, state, losses = due["trained"]
    require_close(found["trained"], Trained(params, state, losses[BEFORE:]), "after a checkpoint")


# Planted faults.


def test_shards_that_depend_on_the_process_are_found(results):
    due = results["one"]["8 devices"]["planted"]["trained"]
    with pytest.raises(AssertionError, match=r"in two processes: \.params\['"):
        require_close(results["two"]["planted"]["trained"], due, "in two processes")


@pytest.mark.full
def test_copies_that_depend_on_the_process_are_found():
    with pytest.raises(AssertionError, match=r"params\['in'\] has copies that differ"):
        run_processes(train_with_copies)
