"""What is wrong with training on several devices is caught, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from grad_core import GradientTransformation, chain, scale, trace
from grad_testing.devices import make_mesh
from grad_testing.training import require_same_training, train, train_sharded

P = PartitionSpec
PARAMS = {"bias": np.zeros(8, np.float32), "kernel": np.ones((8, 16), np.float32)}
SPECS = {"bias": P("model"), "kernel": P("data", "model")}
BATCHES = [np.full((16, 8), i, np.float32) for i in range(1, 4)]


def loss(params, x):
    return jnp.mean(jnp.square(x - params["bias"])) + jnp.mean(jnp.square(params["kernel"]))


def momentum(init=lambda p: 0 * p, kept=lambda m: m, rate=lambda: 0.1):
    """Momentum by hand, to be made wrong in one place."""

    def update(gradients, state, params=None):
        state = jax.tree.map(lambda m, g: kept(0.9 * m + g), state, gradients)
        return jax.tree.map(lambda m: -rate() * m, state), state

    return GradientTransformation(lambda params: jax.tree.map(init, params), update)


def compare(optimizer, mesh):
    found = train_sharded(optimizer, loss, PARAMS, BATCHES, mesh, SPECS, P("data"))
    require_same_training(found, train(optimizer, loss, PARAMS, BATCHES))


@pytest.mark.parametrize(
    "optimizer", [chain(trace(0.9), scale(-0.1)), momentum()], ids=["ours", "by_hand"]
)
def test_what_is_right_passes(optimizer, mesh):
    compare(optimizer, mesh)


def test_a_state_made_without_its_sharding(mesh):
    forgetful = momentum(init=lambda p: jnp.zeros(p.shape, p.dtype))
    with pytest.raises(AssertionError, match=r"after init under jit, state\['bias'\] is sharded"):
        compare(forgetful, mesh)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_an_update_that_loses_the_sharding(devices):
    """On explicit meshes; else ``out_shardings`` put the state in its place, whatever it was."""
    mesh = make_mesh(explicit=True, devices=devices)
    gathering = momentum(kept=lambda m: jax.sharding.reshard(m, P()))
    with pytest.raises(AssertionError, match=r"after training, state\['bias'\] is sharded"):
        compare(gathering, mesh)


def test_numbers_that_depend_on_how_many_devices_there_are(mesh):
    """As when a mean over devices was meant, and a sum is taken."""
    summing = momentum(rate=lambda: 0.1 * max(1, jax.sharding.get_abstract_mesh().size))
    with pytest.raises(AssertionError, match=r"trained.params\['bias'\]"):
        compare(summing, mesh)


def test_a_difference_beyond_rounding():
    once = train(momentum(), loss, PARAMS, BATCHES)
    off = once._replace(params={**once.params, "kernel": once.params["kernel"] * (1 + 1e-5)})
    with pytest.raises(AssertionError, match="kernel"):
        require_same_training(off, once)
    require_same_training(off, once, rounding=2e-5)
