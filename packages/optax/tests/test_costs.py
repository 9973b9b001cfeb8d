"""Costs that do not vary from run to run: executables, equations, traces."""

import contextlib

import jax
import jax.numpy as jnp
import pytest

import optax

COMPILED = "/jax/core/compile/backend_compile_duration"
_counters = []


def _listen(event, duration_secs, **_):
    if event == COMPILED:
        for counter in _counters:
            counter.append(event)


@pytest.fixture(scope="module", autouse=True)
def listening():
    """Listens to JAX's compiler; one listener for all tests, as JAX offers no way to end one."""
    jax.monitoring.register_event_duration_secs_listener(_listen)


@contextlib.contextmanager
def compilations():
    """A list that gets an entry for every executable that is compiled meanwhile."""
    counter = []
    _counters.append(counter)
    try:
        yield counter
    finally:
        _counters.remove(counter)


def gpt_params(blocks, width=8, make=jnp.ones):
    """A GPT-like tree: 4 leaves and 12 a block."""
    d = width
    block = {
        "norm1": {"scale": (d,), "bias": (d,)},
        "qkv": {"kernel": (d, 3 * d), "bias": (3 * d,)},
        "out": {"kernel": (d, d), "bias": (d,)},
        "norm2": {"scale": (d,), "bias": (d,)},
        "up": {"kernel": (d, 4 * d), "bias": (4 * d,)},
        "down": {"kernel": (4 * d, d), "bias": (d,)},
    }
    shapes = {"wte": (100, d), "wpe": (64, d), "norm": {"scale": (d,), "bias": (d,)}}
    shapes |= {f"block{i}": block for i in range(blocks)}
    return jax.tree.map(make, shapes, is_leaf=lambda x: isinstance(x, tuple))


def recipe(learning_rate=1e-3):
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, 100, 1000)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))


def step_of(tx):
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def equations(jaxpr, seen=None):
    """The equations of a jaxpr and, each counted once, of those that it calls: what gets traced."""
    seen = set() if seen is None else seen
    if id(jaxpr) in seen:
        return 0
    seen.add(id(jaxpr))
    return len(jaxpr.eqns) + sum(
        equations(sub, seen) for eqn in jaxpr.eqns for sub in jaxprs_in(eqn.params)
    )


def jaxprs_in(params):
    for value in params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            closed = getattr(each, "jaxpr", each)
            if hasattr(closed, "eqns"):
                yield closed


@pytest.mark.parametrize(
    "make",
    [
        lambda x: optax.adamw(1e-3 * x, b1=0.9 * x, weight_decay=1e-4 * x),
        lambda x: optax.adam(1e-3 * x, eps=1e-8 * x),
        lambda x: optax.lion(1e-3 * x),
        lambda x: optax.sgd(1e-3 * x, momentum=0.9 * x),
        lambda x: recipe(1e-3 * x),
        lambda x: optax.adamw(1e-3 * x, mask=r".*/kernel"),
        lambda x: optax.partition({r".*kernel": optax.adam(x), r".*(?<!kernel)": optax.sgd(x)}),
    ],
    ids=["adamw", "adam", "lion", "momentum", "recipe", "mask", "partition"],
)
def test_other_numbers_compile_nothing(make):
    params = gpt_params(blocks=2)
    first, second = make(1.0), make(0.5)
    with compilations() as before:
        state = first.init(params)
        for _ in range(2):
            params, state = step_of(first)(params, state, params)
    assert before, "the first of its kind must compile, or this test counts nothing"
    with compilations() as after:
        state = second.init(params)
        for _ in range(2):
            params, state = step_of(second)(params, state, params)
    assert not after


def test_an_update_outside_jit_is_one_executable():
    """One each for init, update and apply_updates, whatever the number of leaves and rules."""
    params = gpt_params(blocks=4, width=12)  # a width of its own, so that nothing is compiled yet
    tx = recipe()
    with compilations() as compiled:
        updates, _ = tx.update(params, tx.init(params), params)
        optax.apply_updates(params, updates)
    assert len(compiled) == 3


def test_the_recipe_traces_little():
    """What is traced grows by an equation or so a leaf, not by the whole arithmetic."""

    def traced(blocks):
        abstract = gpt_params(blocks, make=lambda shape: jax.ShapeDtypeStruct(shape, "float32"))
        tx = recipe()
        state = jax.eval_shape(tx.init, abstract)
        closed = jax.jit(step_of(tx)).trace(abstract, state, abstract).jaxpr
        return len(jax.tree.leaves(abstract)), equations(closed.jaxpr)

    leaves, count = traced(48)
    fewer_leaves, fewer = traced(24)
    assert leaves == 580
    assert count <= 3 * leaves
    assert (count - fewer) / (leaves - fewer_leaves) <= 1.5  # one of them adds the update


def test_equal_transformations_share_one_jitted_step():
    """Transformations are values: as static arguments, equal ones are the same."""

    def step(tx, params, grads):
        return tx.update(grads, tx.init(params), params)[0]

    jitted = jax.jit(step, static_argnums=0)
    params = gpt_params(blocks=1)
    jitted(optax.adamw(1e-3), params, params)
    with compilations() as compiled:
        jitted(optax.adamw(1e-3), params, params)
    assert not compiled
