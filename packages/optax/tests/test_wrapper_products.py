"""Every wrapper around optimizers of every kind, and around every wrapper.

Wrappers are found in `grad_wrappers`: the factories that take a transformation. Each is called as
its example says, but around something else. A new one is tested with no edit here.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
import grad_wrappers
from grad_core import MaskedNode, apply_updates, chain, conformance_of, partition
from grad_core.values import factory_of, is_factory
from grad_optimizers import adafactor, adam, adamw, sgd
from grad_testing import TransformationSuite
from grad_testing.checking import numbered, require_close, require_same_types


def wrapped_argument(factory):
    """The name of the argument that is to be wrapped, or None."""
    parameters = factory_of(factory).parameters
    return next((name for name, each in parameters.items() if each.is_transformation), None)


PUBLIC = {name: getattr(grad_wrappers, name) for name in grad_wrappers.__all__}
WRAPPERS = {name: x for name, x in PUBLIC.items() if is_factory(x) and wrapped_argument(x)}


def by_rank(tree):
    return jax.tree.map(lambda x: "matrix" if jnp.ndim(x) == 2 else "other", tree)


OPTIMIZERS = {
    "sgd": sgd(0.01, momentum=0.9),
    "adamw": adamw(0.01),
    "adafactor": adafactor(0.01, min_dim_size_to_factor=2),
    # By a function of the user's, so that neither it nor what wraps it runs compiled.
    "partition": partition({"matrix": adam(0.01), "other": sgd(0.01)}, by_rank),
}


def example_around(wrapper, inner):
    """The arguments of a wrapper's example call, but around `inner`."""
    known = conformance_of(wrapper)
    bound = factory_of(wrapper).signature.bind(*known.args, **known.kwargs)
    bound.arguments[wrapped_argument(wrapper)] = inner
    return bound


# The conformance suite.

_MEAN = "what it shows as one vector has zeros where there is no update, and they count in a mean"
EXEMPT = {
    "flatten(adafactor)": {
        f"takes_trees[{nothing}_gradients]": _MEAN for nothing in ("none", "masked_node", "float0")
    },
    "grouped(partition)": {
        "wrong_trees_are_named": "a grouped state has no trace of leaves that only sgd, with no "
        "state, works on; so another tree's state may be the very same"
    },
}
QUICK = {  # around adamw; the test at the end of this file is for the rest of the quick tier
    "test_repr_is_the_call",
    "test_equal_calls_are_equal",
    "test_other_calls_are_unequal",
    "test_copies_are_equal",
    "test_pickles",
    "test_numbers_do_not_recompile",
    "test_state_holds_only_arrays",
    "test_state_is_a_carry",
    "test_state_round_trips",
    "test_init_takes_shapes",
    "test_is_pure",
}


def factory_around(name, of):
    """A wrapper as a factory whose example is around an optimizer."""
    wrapper = WRAPPERS[name]

    @functools.wraps(wrapper)
    def factory(*args, **kwargs):
        return wrapper(*args, **kwargs)

    known, bound = conformance_of(wrapper), example_around(wrapper, OPTIMIZERS[of])
    exceptions = {**known.exceptions, **EXEMPT.get(f"{name}({of})", {})}
    factory.__conformance__ = known._replace(
        args=bound.args, kwargs=bound.kwargs, exceptions=exceptions
    )
    return factory


FACTORIES = {names: factory_around(*names) for names in itertools.product(WRAPPERS, OPTIMIZERS)}


class TestWrappersAroundOptimizers(TransformationSuite):
    test_needs_little_memory_on_tpu = None  # asked of each alone; Adafactor is no elementwise rule

    def pytest_generate_tests(self, metafunc):
        """Makes a test for each factory, all those of one in a row, since they share work."""
        if "factory" not in metafunc.fixturenames:
            return
        check = metafunc.function.__name__
        factories = []
        for (name, of), factory in FACTORIES.items():
            marks = () if of == "adamw" and check in QUICK else pytest.mark.full
            factories.append(pytest.param(factory, id=f"{name}({of})", marks=marks))
        metafunc.parametrize("factory", factories, scope="class")


# Purity, transformations of JAX and extra arguments: one test that compiles as little as it can.

STEPS, PROBLEMS = 4, 2
QUICK_OPTIMIZERS = ("adamw", "adafactor", "partition")
QUICK_DISTANCES = (0, 1, 5)  # how far the inner wrapper stands behind the outer one


def compositions():
    """The names in each composition, from the outside in."""
    for outer, optimizer in itertools.product(WRAPPERS, OPTIMIZERS):
        marks = () if optimizer in QUICK_OPTIMIZERS else pytest.mark.full
        yield pytest.param((outer, optimizer), id=f"{outer}({optimizer})", marks=marks)
    for (i, outer), (j, inner) in itertools.product(enumerate(WRAPPERS), repeat=2):
        marks = () if (j - i) % len(WRAPPERS) in QUICK_DISTANCES else pytest.mark.full
        yield pytest.param((outer, inner, "adam"), id=f"{outer}({inner}(adam))", marks=marks)


@grad_core.rule
def scale_by_word() -> grad_core.LeafRule:
    return grad_core.LeafRule(lambda g, word: word * g, once=lambda word: {"word": word})


def compose(names):
    """The composition, of which the innermost takes an extra argument."""
    *wrappers, optimizer = names
    tx = chain({**OPTIMIZERS, "adam": adam(0.01)}[optimizer], scale_by_word())
    for name in reversed(wrappers):
        bound = example_around(WRAPPERS[name], tx)
        tx = WRAPPERS[name](*bound.args, **bound.kwargs)
    return tx


def arrays(seed, *lead):
    matrix = numbered([(*lead, 2, 3)], seed)
    vector = numbered([(*lead, 3)], seed + 1, "bfloat16")
    return {"a": matrix[0], "b": vector[0]}


PARAMS, GRADIENTS = arrays(0, PROBLEMS), arrays(2, STEPS, PROBLEMS)
WORDS = jnp.linspace(1.0, 2.0, STEPS)


def start(tx, params):
    """The parameters beside three that get no update, and the state."""
    params = {**params, "masked": MaskedNode(), "none": jnp.ones(2), "void": jnp.ones(2)}
    return params, tx.init(params)


def step(tx, carry, gradients, word):
    params, state = carry
    void = np.zeros(2, jax.dtypes.float0)
    gradients = {**gradients, "masked": MaskedNode(), "none": None, "void": void}
    updates, state = tx.update(gradients, state, params, word=word, nobody_asks=1.0)
    assert jax.tree.structure(updates) == jax.tree.structure(gradients)
    return (apply_updates(params, updates), state), updates


def at(tree, *index):
    return jax.tree.map(lambda x: x[index], tree)


def buffers(tree):
    plain = [x for x in jax.tree.leaves(tree) if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key)]
    return [x.unsafe_buffer_pointer() for x in plain]


@pytest.mark.parametrize("names", [*compositions()])
def test_a_scan_over_a_batch_is_a_loop_over_steps_and_problems(names):
    """Pure, of stable types, the same under jit, vmap, scan; extra arguments arrive or are ignored.

    The first state may be donated: each of its arrays is in a buffer of its own.
    """
    tx = compose(names)
    starts = [start(tx, at(PARAMS, k)) for k in range(PROBLEMS)]
    for each in starts:
        assert len(set(buffers(each))) == len(buffers(each)), "two arrays share a buffer"
    batch = jax.tree.map(lambda *x: jnp.stack(x), *starts)

    ends = []
    for k, carry in enumerate(starts):
        taken = []
        for i in range(STEPS):
            carry, updates = step(tx, carry, at(GRADIENTS, i, k), WORDS[i])
            taken.append(updates)
            require_same_types(carry, starts[k], f"after step {i}, parameters and state")
            require_same_types(updates, taken[0], f"the updates of step {i}")
        ends.append(carry)
        require_close(starts[k], at(batch, k), "what the first update was given")

    def advance(batch, inputs):
        gradients, word = inputs
        return jax.vmap(lambda carry, g: step(tx, carry, g, word)[0])(batch, gradients), None

    batch, _ = jax.jit(lambda batch: jax.lax.scan(advance, batch, (GRADIENTS, WORDS)))(batch)
    for k, end in enumerate(ends):
        require_close(at(batch, k), end, f"problem {k}, parameters and state at the end")
