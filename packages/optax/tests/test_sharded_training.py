"""Training the examples' models on several devices is training them on one."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

import optax
from grad_testing.training import require_same_training, train, train_sharded

P = PartitionSpec
STEPS = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """What is trained; parameters and batches are NumPy's."""

    loss: Any
    params: Any
    specs: Any
    batches: list[Any]
    matrices: Any = None
    """The function that tells Muon which parameters are matrices."""


@pytest.fixture(scope="module")
def digits(example):
    """It is not written for explicit meshes: `auto_axes` makes them automatic inside of it."""
    module = example("digits")
    data, _ = module.digits()
    params = module.init_params(jax.random.key(0))
    specs = {
        "dense0": {"kernel": P("data", "model"), "bias": P("model")},
        "dense1": {"kernel": P(("model", "data"), None), "bias": P()},  # 10 units: not to be split
    }
    rows = np.arange(STEPS * 64).reshape(STEPS, 64)
    batches = [module.Data(*(np.asarray(x)[picked] for x in data)) for picked in rows]
    loss = jax.sharding.auto_axes(module.loss_fn, out_sharding=P())
    return Model(loss, jax.device_get(params), specs, batches)


@pytest.fixture(scope="module")
def transformer(example):
    module = example("transformer")
    params = module.init_params(jax.random.key(0), layers=1, width=32)
    text = module.read(None)
    batches = list(text[: STEPS * 16 * 17].reshape(STEPS, 16, 17))
    specs = module.by_name(module.SPECS, params)
    matrices = functools.partial(module.by_name, module.MATRICES)
    return Model(module.loss_fn, jax.device_get(params), specs, batches, matrices)


# Optimizers, for each kind of state. Where a gradient is nothing but rounding, the usual eps turns
# it into a whole step of either sign; with this one, a step is a smooth function of the gradient.
EPS = 1e-3
adamw = functools.partial(optax.adamw, eps=EPS)


def clipped_adamw(_):
    """Two moments, a count, a norm over all shards."""
    schedule = optax.linear_schedule(1e-3, 1e-2, STEPS)
    return optax.chain(optax.clip_by_global_norm(0.1), adamw(schedule))


def adafactor(_):
    """Means over rows and over columns."""
    return optax.adafactor(1e-2, min_dim_size_to_factor=8, eps=EPS**2)


def muon(model):
    """Momentum of matrices, moments of all else, in a partition."""
    return optax.contrib.muon(1e-2, eps=EPS, muon_weight_dimension_numbers=model.matrices)


def accumulation(_):
    """A sum of gradients, and a state in a state that most steps leave alone."""
    return optax.MultiSteps(adamw(1e-2), every_k_schedule=3)


def momentum(_):
    return optax.sgd(0.1, momentum=0.9, nesterov=True)


def masters(_):
    """Float32 copies of bfloat16 parameters."""
    return optax.wrappers.master_weights(adamw(1e-2))


OPTIMIZERS = {
    "digits": [clipped_adamw, momentum, accumulation, masters],
    "transformer": [clipped_adamw, adafactor, muon, accumulation],
}
LAYOUTS = ["data_parallel", "fully_sharded", "two_dimensional"]
KINDS = ["automatic", "explicit"]


def cases():
    """All combinations; the quick tier has each optimizer on each kind of mesh, and each layout."""
    for model, optimizers in OPTIMIZERS.items():
        numbered = (enumerate(values) for values in (optimizers, LAYOUTS, KINDS))
        for (i, optimizer), (j, layout), (k, kind) in itertools.product(*numbered):
            name = "-".join((model, optimizer.__name__, layout, kind))
            marks = pytest.mark.full if (i + j + k) % len(LAYOUTS) else ()
            yield pytest.param(model, optimizer, layout, kind, id=name, marks=marks)


def mesh_of(devices, layout, kind):
    """Eight devices if there are, or four, or two; two in a row along `model` in two dimensions."""
    count = max(n for n in (2, 4, 8) if n <= len(devices))
    columns = 2 if layout == "two_dimensional" else 1
    grid = np.asarray(devices[:count]).reshape(-1, columns)
    axis_type = AxisType.Explicit if kind == "explicit" else AxisType.Auto
    return Mesh(grid, ("data", "model"), axis_types=(axis_type, axis_type))


def in_bfloat16(model):
    """The model with parameters in bfloat16, which it casts to float32."""

    def cast(params, dtype):
        return jax.tree.map(lambda p: p.astype(dtype), params)

    def loss(params, batch):
        return model.loss(cast(params, "float32"), batch)

    return dataclasses.replace(model, loss=loss, params=cast(model.params, "bfloat16"))


@functools.cache
def on_one_device(model, optimizer):
    """The model as the optimizer takes it, and how it ends."""
    if optimizer is masters:
        model = in_bfloat16(model)
    return model, train(optimizer(model), model.loss, model.params, model.batches)


def share_of_a_device(tree):
    """The part of all bytes that the first device has."""
    arrays = jax.tree.leaves(tree)
    return sum(x.addressable_shards[0].data.nbytes for x in arrays) / sum(x.nbytes for x in arrays)


@pytest.fixture(autouse=True)
def _exact_products():
    """Accelerators round what they multiply."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.mark.parametrize(("model", "optimizer", "layout", "kind"), [*cases()])
def test_as_on_one_device(model, optimizer, layout, kind, devices, request):
    model, expected = on_one_device(request.getfixturevalue(model), optimizer)
    whole = jax.tree.map(lambda _: P(), model.specs)
    specs = whole if layout == "data_parallel" else model.specs
    mesh = mesh_of(devices, layout, kind)
    found = train_sharded(
        optimizer(model), model.loss, model.params, model.batches, mesh, specs, P("data")
    )
    # What is rounded to bfloat16 may be rounded to either neighbour, which are 2^-7 of it apart.
    require_same_training(found, expected, 2**-7 if optimizer is masters else None)
    assert float(found.losses[-1]) < float(found.losses[0])
    share = share_of_a_device((found.params, found.state))
    if layout == "data_parallel":
        assert share == 1
    else:  # what is replicated is small
        assert share * mesh.size < 1.25
