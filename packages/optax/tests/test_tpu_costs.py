"""What steps cost on a TPU, told by its compiler: no TPU is needed, and the figures never vary.

Memory is all that elementwise optimizers wait for, so the measure is bytes moved over the fewest
possible: reading parameters, gradients and statistics once, writing parameters and statistics once.
"""

import math

import jax
import pytest

import optax

# XLA counts twice what it prefetches into the memory on the chip, so it shall not.
OPTIONS = {"xla_vf_vmem_memory_space_assignment": "false"}
MARGIN = 1.02


def shapes_of_27m_parameters():
    """The GPT-like tree of tools/bench.py: 8 blocks, width 512, 4096 tokens."""
    d, f = 512, 4 * 512
    block = {"qkv": (d, 3 * d), "out": (d, d), "up": (d, f), "down": (f, d)}
    biases = {f"{name}/bias": (shape[-1],) for name, shape in block.items()}
    norms = {f"norm{i}/{name}": (d,) for i in (1, 2) for name in ("scale", "bias")}
    outer = {"wte": (4096, d), "wpe": (64, d), "norm/scale": (d,), "norm/bias": (d,)}
    inner = {**block, **biases, **norms}
    return {
        **outer,
        **{f"block{i}/{name}": shape for i in range(8) for name, shape in inner.items()},
    }


def compile_step(tx, device):
    """``update`` and `apply_updates` on the 27M parameters, with buffers donated; their number."""
    sharding = jax.sharding.SingleDeviceSharding(device)

    def placed(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    abstract = {
        name: jax.ShapeDtypeStruct(shape, "float32")
        for name, shape in shapes_of_27m_parameters().items()
    }
    params = jax.tree.map(placed, abstract)
    state = jax.tree.map(placed, jax.eval_shape(tx.init, abstract))

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).trace(params, state, params).lower()
    size = sum(x.size for x in abstract.values())
    assert 27e6 < size < 28e6
    return lowered.compile(compiler_options=OPTIONS), size


@pytest.mark.tpu
@pytest.mark.parametrize(
    ("make", "statistics"),
    [
        (lambda: optax.adamw(1e-3), 2),
        (lambda: optax.adam(1e-3), 2),
        (lambda: optax.lion(1e-3), 1),
        (lambda: optax.sgd(1e-3, momentum=0.9), 1),
        (lambda: optax.sgd(1e-3, momentum=0.9, nesterov=True), 1),
        (lambda: optax.sgd(1e-3), 0),
    ],
    ids=["adamw", "adam", "lion", "momentum", "nesterov", "sgd"],
)
def test_steps_move_the_fewest_bytes(tpu_device, make, statistics):
    compiled, size = compile_step(make(), tpu_device)
    reads, writes = 2 + statistics, 1 + statistics
    least = 4 * size * (reads + writes)
    assert compiled.cost_analysis()["bytes accessed"] <= MARGIN * least
    assert compiled.memory_analysis().temp_size_in_bytes == 0


@pytest.mark.tpu
def test_clipping_reads_the_gradients_once_more(tpu_device):
    """Once for their norm; and, where its square overflowed, once again, in a branch of its own.

    The compiler's analysis counts both branches, the one that hardly ever runs too.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
    recipe = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    compiled, size = compile_step(recipe, tpu_device)
    assert compiled.cost_analysis()["bytes accessed"] <= MARGIN * 4 * size * (7 + 1 + 1)
    largest = 4 * max(math.prod(shape) for shape in shapes_of_27m_parameters().values())
    assert compiled.memory_analysis().temp_size_in_bytes <= largest
