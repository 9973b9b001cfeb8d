"""What steps cost on a TPU, told by its compiler: no TPU is needed, and the figures never vary.

Memory is all that elementwise optimizers wait for, so the measure is bytes moved over the fewest
possible: reading parameters, gradients and statistics once, writing parameters and statistics once.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import pytest

import grad_optimizers
import optax
from grad_core import conformance_of, is_factory

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


def largest_leaf():
    return 4 * max(math.prod(shape) for shape in shapes_of_27m_parameters().values())


def compile_step(tx, device):
    """``update`` and `apply_updates` on the 27M parameters, donated, compiled; the least bytes."""
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
    assert 4 * 27e6 < bytes_of(params) < 4 * 28e6
    return lowered.compile(compiler_options=OPTIONS), 3 * bytes_of(params) + 2 * bytes_of(state)


def bytes_of(tree):
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def temporary_bytes(compiled):
    return compiled.memory_analysis().temp_size_in_bytes


def reductions(jaxpr):
    """The primitives that make fewer numbers than they take, in a jaxpr and those that it calls."""
    found = set()
    for eqn in jaxpr.eqns:
        values = itertools.chain(*map(as_tuple, eqn.params.values()))
        called = [inner for inner in map(jaxpr_of, values) if inner is not None]
        taken = [x.aval for x in eqn.invars if jnp.issubdtype(x.aval.dtype, jnp.inexact)]
        if called:
            found = found.union(*map(reductions, called))
        elif max((x.size for x in taken), default=0) > max(x.aval.size for x in eqn.outvars):
            found.add(eqn.primitive.name)
    return found


def as_tuple(value):
    return value if isinstance(value, tuple | list) else (value,)


def jaxpr_of(value):
    """The jaxpr that a parameter of an equation is, closed or not; None if it is none."""
    value = getattr(value, "jaxpr", value)
    return value if hasattr(value, "eqns") else None


def optimizer(name):
    """An optimizer as its module says to call it, and the extra arguments that it needs."""
    factory = getattr(grad_optimizers, name)
    known = conformance_of(factory)
    return factory(*known.args, **known.kwargs), known.extra_args


ALIASES = [
    name
    for name in grad_optimizers.__all__
    if is_factory(getattr(grad_optimizers, name)) and not name.startswith("scale_by_")
]


@pytest.mark.tpu
@pytest.mark.parametrize("name", ALIASES)
def test_elementwise_optimizers_move_the_fewest_bytes(tpu_device, name):
    tx, extra_args = optimizer(name)
    params = {"w": jnp.ones((2, 3)), "b": jnp.ones(2)}
    update = jax.make_jaxpr(lambda *args: tx.update(*args, **extra_args))
    reducing = reductions(update(params, tx.init(params), params).jaxpr)
    if reducing:
        pytest.skip(f"has to read leaves again: {', '.join(sorted(reducing))} over them")
    compiled, least = compile_step(tx, tpu_device)
    assert compiled.cost_analysis()["bytes accessed"] <= MARGIN * least
    assert temporary_bytes(compiled) <= largest_leaf()


@pytest.mark.tpu
@pytest.mark.parametrize(
    ("make", "statistics"),
    [
        (lambda: optax.adamw(1e-3), 2),
        (lambda: optax.sgd(1e-3, momentum=0.9), 1),
        (lambda: optax.sgd(1e-3, momentum=0.9, nesterov=True), 1),
        (lambda: optax.rmsprop(1e-3, centered=True, momentum=0.9), 3),
    ],
    ids=["adamw", "momentum", "nesterov", "centered"],
)
def test_steps_keep_no_more_than_their_statistics(tpu_device, make, statistics):
    compiled, least = compile_step(make(), tpu_device)
    size = sum(math.prod(shape) for shape in shapes_of_27m_parameters().values())
    assert least == pytest.approx(4 * size * (3 + 2 * statistics))
    assert compiled.cost_analysis()["bytes accessed"] <= MARGIN * least
    assert temporary_bytes(compiled) == 0


@pytest.mark.tpu
def test_clipping_reads_the_gradients_once_more(tpu_device):
    """Once for their norm; and, where its square overflowed, once again, in a branch of its own.

    The compiler's analysis counts both branches, the one that hardly ever runs too.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, 1000)
    recipe = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    compiled, least = compile_step(recipe, tpu_device)
    assert compiled.cost_analysis()["bytes accessed"] <= MARGIN * least * (7 + 1 + 1) / 7
    assert temporary_bytes(compiled) <= largest_leaf()
