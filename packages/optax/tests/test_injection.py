"""Every optimizer with its hyperparameters injected."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_optimizers
import optax
from grad_testing import transformation_factories
from grad_testing.checking import sample, subject_of, take_steps

OPTIMIZERS = transformation_factories(grad_optimizers)
# What only `init` looks at, so that it cannot be set later.
FIRST_VALUES = {"initial_accumulator_value", "initial_scale"}
over_all = pytest.mark.parametrize("factory", OPTIMIZERS, ids=lambda f: f.__name__)


def close(found, expected):
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7), found, expected
    )


def injected(subject, **changes):
    """The example call of a factory, with its hyperparameters injected."""
    arguments = {**subject.arguments.arguments, **changes}
    return subject.filled(optax.inject_hyperparams(subject.factory)(**arguments))


@over_all
def test_injected_under_jit_is_as_made_directly(factory):
    """Static arguments find themselves: none is named here."""
    subject = subject_of(factory)
    params, gradients = sample()
    tx = injected(subject)
    state = jax.jit(tx.init)(params)
    close(take_steps(tx, params, gradients, state, jax.jit(tx.update))[0], subject.reference[0])


@over_all
def test_every_number_may_be_scheduled_at_once_and_set(factory):
    """What schedules give, and what is set in the state, is used; setting it compiles nothing."""
    subject = subject_of(factory)
    if not subject.numbers:
        pytest.skip("its example has no numbers")
    params, gradients = sample()
    other = {name: 0.9 * x + 0.01 for name, x in subject.numbers.items()}
    expected = take_steps(subject.make_runner(**other), params, gradients[:2])[0]

    def constant(value):
        return lambda count: jnp.where(count >= 0, value, jnp.nan)

    scheduled = injected(subject, **{name: constant(x) for name, x in other.items()})
    found, state = take_steps(scheduled, params, gradients[:2], update=jax.jit(scheduled.update))
    close(found, expected)
    assert set(state.hyperparams_states) == set(other)

    tx = injected(subject)
    traces = []

    @jax.jit
    def update(g, state, params):
        traces.append(1)
        return tx.update(g, state, params)

    state = tx.init(params)
    update(gradients[0], state, params)
    rprop = {"learning_rate"} if "rprop" in factory.__name__ else set()  # its first step size
    later = {name: x for name, x in other.items() if name not in FIRST_VALUES | rprop}
    state = optax.tree.set(state, is_hyperparameter, **later)
    expected = take_steps(subject.make_runner(**later), params, gradients[:2])[0]
    close(take_steps(tx, params, gradients[:2], state, update)[0], expected)
    assert len(traces) == 1


def is_hyperparameter(path, value):
    return any(getattr(key, "name", None) == "hyperparams" for key in path)


@over_all
def test_bfloat16_parameters_leave_hyperparameters_alone(factory):
    subject = subject_of(factory)
    tx = injected(subject)
    state = tx.init(jnp.ones(3, jnp.bfloat16))
    for name, value in subject.numbers.items():
        assert state.hyperparams[name].dtype == jnp.float32
        assert float(state.hyperparams[name]) == np.float32(value)


WRAPPERS = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 2),
    "master_weights": optax.wrappers.master_weights,
    "params_ema": lambda tx: optax.wrappers.params_ema(tx, 0.9),
    "lookahead": lambda tx: optax.lookahead(tx, 2, 0.5),
    "partition": lambda tx: optax.partition({"train": tx, "still": optax.set_to_zero()}, "train"),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_it_nests_in_wrappers(wrap):
    """The schedule counts steps, what is set is used, and setting it compiles nothing."""
    inner = optax.inject_hyperparams(optax.sgd)(lambda count: 0.5**count, momentum=0.0)
    tx = wrap(inner)
    params = {"w": jnp.ones(3)}
    update = jax.jit(tx.update)
    _, state = take_steps(tx, params, [params] * 2, update=update)
    steps = 1 if wrap is WRAPPERS["MultiSteps"] else 2
    found = optax.current_learning_rate(tx, state)
    found = found["train"] if isinstance(found, dict) else found
    np.testing.assert_allclose(found, 0.5**steps)
    state = optax.tree.set(state, momentum=0.75)
    _, state = take_steps(tx, params, [params] * 2, state, update)
    assert float(optax.tree.get(state, "momentum")) == 0.75
    assert update._cache_size() == 1
