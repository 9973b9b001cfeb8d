"""What users ask of every transformation, over all of them; numbers are rows of docs/user-needs.md.

Rows 1, 10, 26 and 34 are checks of the conformance suite, which each package runs over its
``__all__``; here are the others.
"""

import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
import grad_optimizers
from grad_optimizers import noisy_sgd, scale_by_rprop
from grad_testing import transformation_factories
from grad_testing.checking import sample, subject_of, take_steps

OPTIMIZERS = transformation_factories(grad_optimizers)
ALL = [*transformation_factories(grad_core), *OPTIMIZERS]
ALIASES = [f for f in OPTIMIZERS if "learning_rate" in inspect.signature(f).parameters]
DOCS = Path(__file__).resolve().parents[3] / "docs"


def over(factories):
    return pytest.mark.parametrize("factory", factories, ids=lambda f: f.__name__)


# Row 3: bfloat16 parameters and second moments.

# Fields that hold a second moment, by the state that has them.
SECOND_MOMENTS = {
    "FactoredState": {"v_row", "v_col", "v"},
    "ScaleByAdaDeltaState": {"e_g", "e_x"},
    "ScaleByAdamState": {"nu"},
    "ScaleByAdanState": {"n"},
    "ScaleByAmsgradState": {"nu", "nu_max"},
    "ScaleByBeliefState": {"nu"},
    "ScaleByNovogradState": {"nu"},
    "ScaleByRStdDevState": {"nu"},
    "ScaleByRStdDevWithCountState": {"nu"},
    "ScaleByRmsState": {"nu"},
    "ScaleByRmsWithCountState": {"nu"},
    "ScaleByRssState": {"sum_of_squares"},
    "ScaleBySM3State": {"mu"},
}
# States that hold none.
NO_SECOND_MOMENTS = {
    "AddNoiseState",
    "EmaState",
    "EmptyState",
    "MaskedState",
    "ScaleByLionState",
    "ScaleByOptimisticGradientState",
    "ScaleByRpropState",
    "ScaleByScheduleState",
    "TraceState",
    "WeightDecaySchedule",
}


def second_moments(state):
    """The second moments in a state, by path; a kind of state that is not known is an error."""

    def is_inner_state(x):
        return hasattr(x, "_fields") and x is not state

    found = {}
    for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_inner_state)[0]:
        if is_inner_state(node):
            found |= {(*path, *key): x for key, x in second_moments(node).items()}
    kind = type(state).__name__
    if hasattr(state, "_fields"):
        assert kind in SECOND_MOMENTS or kind in NO_SECOND_MOMENTS, f"say of {kind} what it keeps"
    for field in SECOND_MOMENTS.get(kind, ()):
        for path, x in jax.tree_util.tree_flatten_with_path(getattr(state, field))[0]:
            found[(field, *path)] = x
    return found


@over(OPTIMIZERS)
def test_second_moments_of_bfloat16_parameters_are_those_of_float32(factory):
    """Row 3: after 3000 steps on gradients that bfloat16 holds exactly, they agree within 1%."""
    subject = subject_of(factory)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (3000, 4, 3))
    states = {}
    for dtype in ("bfloat16", "float32"):
        params = jnp.ones((4, 3), dtype)

        @jax.jit
        def run(state, gradients, params=params):
            return jax.lax.scan(
                lambda s, g: (subject.runner.update(g, s, params)[1], None), state, gradients
            )[0]

        states[dtype] = run(subject.tx.init(params), jnp.asarray(signs, dtype))
    narrow, wide = (second_moments(states[dtype]) for dtype in ("bfloat16", "float32"))
    for path, x in narrow.items():
        assert x.dtype == jnp.float32, path
        np.testing.assert_allclose(x, wide[path], rtol=0.01, err_msg=str(path))


# Row 14: the learning rate, for logging.


@over(ALIASES)
def test_the_learning_rate_can_be_looked_up(factory):
    """Row 14: of each optimizer, alone, in a chain, masked and in a partition."""
    subject = subject_of(factory)
    params, gradients = sample()
    rates = {"a number": 0.125, "a schedule": lambda count: 0.125 / (1 + count)}
    for what, rate in rates.items():
        optimizer = subject.make(learning_rate=rate)
        clipped = grad_core.chain(grad_core.clip_by_global_norm(1.0), optimizer)
        cases = {
            "alone": optimizer,
            "chained": clipped,
            "masked": grad_core.masked(clipped, lambda tree: jax.tree.map(jnp.ndim, tree)),
            "parted": grad_core.partition({r"dense/.*": clipped, r"head/.*": grad_core.scale(1.0)}),
        }
        for how, tx in cases.items():
            update = subject.filled(tx).update
            _, state = take_steps(tx, params, gradients[:2], update=update)
            found = grad_core.current_learning_rate(tx, state)
            found = found[r"dense/.*"] if how == "parted" else found
            steady = what == "a number" or "rprop" in factory.__name__  # its first step size
            expected = 0.125 if steady else 0.125 / 3
            np.testing.assert_allclose(found, expected, err_msg=f"{what}, {how}")


# Rows 16, 17: global norms that overflow, and those of zero.


@over(OPTIMIZERS)
def test_after_clipping_a_norm_that_overflows_every_optimizer_moves(factory):
    """Rows 16, 17: a float16 norm beyond its range is clipped, not zeroed; a norm of 0 stays 0."""
    subject = subject_of(factory)
    tx = subject.filled(grad_core.chain(grad_core.clip_by_global_norm(1.0), subject.tx))
    params = {"w": jnp.ones((200, 1000), jnp.float16)}
    large = {"w": jnp.full((200, 1000), 1000.0, jnp.float16)}
    updates, _ = take_steps(tx, params, [large] * 3)
    assert jnp.isfinite(updates[-1]["w"]).all()
    assert (updates[-1]["w"] != 0).any()
    updates, _ = take_steps(tx, params, [jax.tree.map(jnp.zeros_like, params)] * 2)
    assert jnp.isfinite(updates[-1]["w"]).all()


# Row 43: complex parameters.


def table_of(name):
    """The first column of the table in a document: names in backquotes."""
    path = DOCS / name
    if not path.exists():
        pytest.skip("the documents belong to the workspace, and this is not one")
    return set(re.findall(r"^\| `(\w+)`", path.read_text(encoding="utf-8"), re.MULTILINE))


@over(ALL)
def test_complex_updates_turn_with_complex_gradients(factory):
    """Row 43: u(e^ia g) = e^ia u(g), so no direction in the plane is special; docs/complex.md."""
    subject = subject_of(factory)
    turn = np.exp(0.7j)

    def turned(tree):
        return jax.tree.map(lambda x: (turn * x).astype(x.dtype), tree)

    def both():
        params, gradients = sample("complex64")
        straight, _ = take_steps(subject.runner, params, gradients)
        other, _ = take_steps(subject.runner, turned(params), [turned(g) for g in gradients])
        for u, v in zip(jax.tree.leaves(straight), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(v, turn * u, atol=1e-4 * np.abs(u).max())

    if factory.__name__ in table_of("complex.md"):
        with pytest.raises((AssertionError, TypeError, ValueError)):
            both()
    else:
        both()


@over([f for f in ALIASES if f not in (scale_by_rprop, noisy_sgd)])  # uphill; too noisy
def test_optimizers_descend_on_complex_parameters(factory):
    """Row 43: after `conjugate`, a real loss of complex parameters decreases."""
    subject = subject_of(factory)
    target = jnp.asarray([1 - 2j, -1 + 1j], jnp.complex64)

    def loss(z):
        return jnp.sum(jnp.abs(z - target) ** 2)

    tx = subject.filled(grad_core.chain(grad_core.conjugate(), subject.tx))

    def step(carry, _):
        z, state = carry
        updates, state = tx.update(jax.grad(loss)(z), state, z)
        return (grad_core.apply_updates(z, updates), state), loss(z)

    start = jnp.asarray([2 + 2j, 1 - 2j], jnp.complex64)
    (z, _), _ = jax.jit(lambda z: jax.lax.scan(step, (z, tx.init(z)), length=50))(start)
    assert loss(z) < 0.99 * loss(start)
