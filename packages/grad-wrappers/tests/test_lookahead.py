"""Lookahead: with pairs of parameters, as released, and with plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_core import MaskedNode, add_decayed_weights, apply_updates, chain, partition, scale, trace
from grad_core import tree as gt
from grad_wrappers import LookaheadParams, LookaheadPlainState, LookaheadState, lookahead

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
INNER = chain(add_decayed_weights(0.1), trace(0.9), scale(-0.1))


def by_hand(k, a, steps, reset=False):
    """Algorithm 1 of the paper, in NumPy, on the gradient x + 1."""
    x = s = np.array([1.0, -2.0])
    m, path = np.zeros(2), []
    for t in range(1, steps + 1):
        m = 0.9 * m + (x + 1) + 0.1 * x
        x = x - 0.1 * m
        if t % k == 0:
            s = s + a * (x - s)
            x = s
            m = m * (not reset)
        path.append((x, s))
    return path


def train(tx, params, steps):
    state, path = tx.init(params), []
    for _ in range(steps):
        fast = params.fast if isinstance(params, LookaheadParams) else params
        updates, state = tx.update(jax.tree.map(lambda x: x + 1, fast), state, params)
        params = apply_updates(params, updates)
        path.append((params, state))
    return path


@pytest.mark.parametrize(("k", "a"), [(1, 0.5), (3, 0.5), (3, 1.0), (4, 0.2)])
@pytest.mark.parametrize("reset", [False, True])
def test_the_algorithm(k, a, reset):
    """Fast and slow parameters at each step are the paper's, for pairs and plain parameters."""
    tx = lookahead(INNER, k, a, reset)
    plain = train(tx, PARAMS, 9)
    pairs = train(tx, LookaheadParams.init_synced(PARAMS), 9)
    for (x, s), (p, state), (pair, other) in zip(
        by_hand(k, a, 9, reset), plain, pairs, strict=True
    ):
        for fast, slow in ((p, state.slow), pair):
            np.testing.assert_allclose(fast["a"], x, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(slow["a"], s, rtol=1e-5, atol=1e-6)
        assert state.steps_since_sync == other.steps_since_sync
    assert isinstance(state, LookaheadPlainState)
    assert isinstance(other, LookaheadState)


def test_it_is_a_drop_in():
    """Plain parameters: states are carried, mapped; it can be partitioned, masked and nested."""
    tx = lookahead(trace(0.9), 3, 0.5)
    state = tx.init(PARAMS)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params)
        return (apply_updates(params, updates), state), None

    jax.lax.scan(step, (PARAMS, state), length=4)
    mapped = gt.map_params(tx, lambda x: x + 1, state)
    np.testing.assert_allclose(mapped.slow["a"], PARAMS["a"] + 1)
    split = partition({"x": tx, "y": scale(-1.0)}, {"a": "x", "b": "y"})
    _, after = split.update(PARAMS, split.init(PARAMS), PARAMS)
    assert after.inner_states["x"].inner_state.slow["b"] == MaskedNode()
    twice = lookahead(tx, 2, 0.5)
    twice.update(PARAMS, twice.init(PARAMS), PARAMS)


@pytest.mark.parametrize("make", [lambda p: p, LookaheadParams.init_synced])
def test_leaves_without_updates_stay(make):
    tx = lookahead(scale(-1.0), 1, 0.5)
    for nothing in (None, MaskedNode(), np.zeros((), jax.dtypes.float0)):
        params = make(PARAMS)
        updates, _ = tx.update({"a": PARAMS["a"], "b": nothing}, tx.init(params), params)
        moved = apply_updates(params, updates)
        for each in moved if isinstance(moved, LookaheadParams) else (moved,):
            np.testing.assert_allclose(each["b"], 0.5)
            np.testing.assert_allclose(each["a"], 0.5 * PARAMS["a"])


def test_synced_pairs_can_be_donated():
    pair = LookaheadParams.init_synced(jax.tree.map(jnp.copy, PARAMS))
    tx = lookahead(scale(-1.0), 1, 0.5)
    step = jax.jit(lambda p, s: (apply_updates(p, tx.update(p.fast, s, p)[0]), s), donate_argnums=0)
    pair, _ = step(pair, tx.init(pair))
    np.testing.assert_allclose(pair.slow["a"], pair.fast["a"])


def test_errors_say_what_to_do():
    tx = lookahead(scale(-1.0), 1, 0.5)
    with pytest.raises(ValueError, match="lookahead: sync_period must be >= 1; got 0"):
        lookahead(scale(-1.0), 0, 0.5)
    state = tx.init(LookaheadParams.init_synced(PARAMS))
    with pytest.raises(ValueError, match=r"lookahead: the state was made by init\(LookaheadParams"):
        tx.update(PARAMS, state, PARAMS)
    with pytest.raises(ValueError, match=r"lookahead.*params"):
        tx.update(PARAMS, state)
