"""Averages of parameters, and finding them again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MaskedNode, apply_updates, chain, masked, named_chain, partition, scale, trace
from grad_core import tree as gt
from grad_wrappers import (
    MultiSteps,
    apply_if_finite,
    averaged_params,
    flatten,
    freeze,
    lookahead,
    master_weights,
    params_ema,
    params_lawa,
    params_swa,
)

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
WRAPPERS = {
    "ema": lambda inner: params_ema(inner, 0.9),
    "swa": lambda inner: params_swa(inner, start=2, every=2),
    "lawa": lambda inner: params_lawa(inner, length=3, every=2),
}
EACH = pytest.mark.parametrize("name", WRAPPERS)


def train(tx, params=PARAMS, steps=11, jit=True):
    """The last parameters and state, and the parameters after each update, of a noisy descent."""
    update = jax.jit(tx.update) if jit else tx.update
    state, path = tx.init(params), []
    rng = np.random.default_rng(0)
    for _ in range(steps):
        gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params)
        updates, state = update(gradient, state, params)
        params = apply_updates(params, updates)
        path.append(jax.tree.map(lambda p: np.asarray(p, np.float64), params))
    return params, state, path


def weighted(path, weights):
    total = sum(weights)
    return jax.tree.map(
        lambda *p: sum(w * x for w, x in zip(weights, p, strict=True)) / total, *path
    )


def expected(name, path):
    steps = len(path)
    if name == "ema":
        return weighted(path, [0.9 ** (steps - t) for t in range(1, steps + 1)])
    if name == "swa":
        taken = [p for t, p in enumerate(path, 1) if t in range(2, 100, 2)]
    else:
        taken = [p for t, p in enumerate(path, 1) if t % 2 == 0][-3:]
    return weighted(taken, [1] * len(taken))


def assert_close(actual, desired, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), actual, desired)


@EACH
@pytest.mark.parametrize("steps", [2, 4, 5, 11])
@pytest.mark.parametrize("jit", [False, True])
def test_closed_forms(name, steps, jit):
    params, state, path = train(WRAPPERS[name](scale(-0.1)), steps=steps, jit=jit)
    assert_close(averaged_params(state, params), expected(name, path), rtol=1e-5)


@EACH
def test_the_updates_stay_as_they_are(name):
    plain, inner_state, _ = train(trace(0.9))
    params, state, _ = train(WRAPPERS[name](trace(0.9)))
    assert_close(params, plain, rtol=0)
    assert_close(state.inner_state, inner_state, rtol=0)


def test_without_debias_the_average_starts_from_the_first_parameters():
    _, state, path = train(params_ema(scale(-0.1), 0.9, debias=False), steps=3)
    start = jax.tree.map(np.asarray, PARAMS)
    by_hand = weighted([start, *path], [0.9**3, 0.1 * 0.81, 0.1 * 0.9, 0.1])
    assert_close(averaged_params(state, PARAMS), by_hand, rtol=1e-5)


def test_the_start_of_swa():
    _, state, path = train(params_swa(scale(-0.1), start=3, every=4), steps=12)
    by_hand = weighted([path[t - 1] for t in (3, 7, 11)], [1, 1, 1])
    assert_close(averaged_params(state, PARAMS), by_hand, rtol=1e-5)


@EACH
def test_before_the_first_checkpoint_there_are_the_parameters(name):
    tx = WRAPPERS[name](scale(-0.1))
    assert_close(averaged_params(tx.init(PARAMS), PARAMS), PARAMS, rtol=0)
    if name != "ema":
        params, state, _ = train(tx, steps=1)
        assert_close(averaged_params(state, params), params, rtol=0)


@EACH
def test_averages_of_low_precision_are_exact(name):
    """In float32 while they are kept, in bfloat16 when they are looked up; `train` is bfloat16."""
    low = jax.tree.map(lambda p: p.astype("bfloat16"), PARAMS)
    params, state, path = train(WRAPPERS[name](scale(-0.1)), low)
    averages = averaged_params(state, params)
    assert {x.dtype for x in jax.tree.leaves(averages)} == {jnp.dtype("bfloat16")}
    wide = averaged_params(state, jax.tree.map(lambda p: p.astype("float32"), params))
    assert_close(wide, expected(name, path), rtol=1e-5)
    kinds = {"ema": "float32", "swa": "float32", "lawa": "bfloat16"}
    kept = state.checkpoints if name == "lawa" else state.average
    assert {x.dtype for x in jax.tree.leaves(kept)} == {jnp.dtype(kinds[name])}


@EACH
@pytest.mark.parametrize(
    "nest",
    [
        lambda tx: chain(trace(0.0), tx),
        lambda tx: named_chain(("x", tx), ("y", scale(1.0))),
        lambda tx: masked(tx, {"a": True, "b": True}),
        lambda tx: partition({"all": tx}, {"a": "all", "b": "all"}),
        lambda tx: MultiSteps(tx, 1),
        lambda tx: apply_if_finite(tx, 2),
        lambda tx: lookahead(tx, 100, 0.5),
        lambda tx: master_weights(tx),
        lambda tx: chain(masked(apply_if_finite(tx, 2), r".*"), scale(1.0)),
    ],
)
def test_it_is_found_in_any_nesting(name, nest):
    params, state, path = train(nest(WRAPPERS[name](scale(-0.1))))
    assert_close(averaged_params(state, params), expected(name, path), rtol=1e-5)


def test_parts_of_the_parameters():
    """Of each part its own average; of masked leaves, and of integers, the current value."""
    tx = partition(
        {"a": params_ema(scale(-0.1), 0.9), "b": params_swa(scale(-0.1), 2, 2)},
        {"a": "a", "b": "b"},
    )
    params, state, path = train(tx)
    by_hand = {"a": expected("ema", path)["a"], "b": expected("swa", path)["b"]}
    assert_close(averaged_params(state, params), by_hand, rtol=1e-5)
    tx = masked(params_ema(scale(-0.1), 0.9), {"a": True, "b": False})
    params, state, _ = train(tx)
    assert averaged_params(state, params)["b"] is params["b"]
    whole = {**PARAMS, "steps": jnp.array(3), "nothing": None}
    state = params_ema(freeze(".*"), 0.9).init(whole)
    assert state.average["steps"] == MaskedNode()
    assert averaged_params(state, whole)["steps"] == 3
    assert averaged_params(state, whole)["nothing"] is None


def test_frozen_parameters_are_their_own_average():
    for make in WRAPPERS.values():
        tx = make(scale(-0.1))
        state = tx.init(PARAMS)
        for nothing in (None, MaskedNode(), np.zeros((), jax.dtypes.float0)):
            for _ in range(2):
                _, state = tx.update({"a": PARAMS["a"], "b": nothing}, state, PARAMS)
        np.testing.assert_allclose(averaged_params(state, PARAMS)["b"], 0.5)


def test_errors_say_what_to_do():
    state = chain(trace(0.9), scale(1.0)).init(PARAMS)
    with pytest.raises(
        ValueError, match="holds no average of parameters; wrap the optimizer in pa"
    ):
        averaged_params(state, PARAMS)
    twice = params_ema(params_swa(scale(1.0)), 0.9)
    state = twice.init(PARAMS)
    with pytest.raises(ValueError, match=r"there are 2 averages of params\['a'\]"):
        averaged_params(state, PARAMS)
    averaged_params(state.inner_state, PARAMS)
    with pytest.raises(ValueError, match=r"params\['c'\] has no counterpart in the average"):
        averaged_params(state, {**PARAMS, "c": 1.0})
    for bad in (
        lambda: params_swa(scale(1.0), start=-1),
        lambda: params_swa(scale(1.0), every=0),
        lambda: params_lawa(scale(1.0), 0),
        lambda: params_lawa(scale(1.0), 1, every=0),
    ):
        with pytest.raises(ValueError, match=r"params_\w+: \w+ must be at least \d; got -?\d"):
            bad()


@EACH
def test_states_are_carried_donated_and_mapped(name):
    """Donating the parameters leaves the state alone: it holds copies."""
    tx = WRAPPERS[name](flatten(trace(0.9)))
    params = jax.tree.map(jnp.copy, PARAMS)
    state = tx.init(params)

    @jax.jit
    def many(params, state):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(params, state, params)
            return (apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), length=5)[0]

    step = jax.jit(lambda p, s: (p, tx.update(p, s, p)[1]), donate_argnums=(0, 1))
    many(params, state)
    _, state = step(params, state)
    averaged_params(state, PARAMS)
    mapped = gt.map_params(tx, lambda x: x + 1, state)
    field = "checkpoints" if name == "lawa" else "average"
    assert_close(
        getattr(mapped, field), jax.tree.map(lambda x: x + 1, getattr(state, field)), rtol=0
    )


def test_decay_one_keeps_the_first_parameters():
    params, state, _ = train(params_ema(scale(-0.1), 1.0))
    assert_close(averaged_params(state, params), PARAMS, rtol=1e-6)
