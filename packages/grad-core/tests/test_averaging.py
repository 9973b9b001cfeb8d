"""Decaying sums and averages of updates: `trace` and `ema`."""

import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]


def run(tx, gradients):
    """All updates, one after another, and the last state."""
    state = tx.init(gradients[0])
    updates = []
    for g in gradients:
        u, state = tx.update(g, state)
        updates.append(u)
    return updates, state


def normal(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_trace_is_the_decaying_sum(dtype, nesterov):
    g = normal((6, 3)) + (1j * normal((6, 3), 1) if dtype == np.complex64 else 0)
    updates, state = run(gc.trace(0.9, nesterov), list(jnp.asarray(g, dtype)))
    sums = [sum(0.9 ** (t - k) * g[k] for k in range(t + 1)) for t in range(6)]
    expected = [g[t] + 0.9 * sums[t] for t in range(6)] if nesterov else sums
    np.testing.assert_allclose(updates, expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(state.trace, sums[-1], rtol=2e-6, atol=1e-6)


def test_trace_end_points():
    ones = [jnp.ones(1)] * 4
    assert [float(u[0]) for u in run(gc.trace(0.0), ones)[0]] == [1.0, 1.0, 1.0, 1.0]
    assert [float(u[0]) for u in run(gc.trace(1.0), ones)[0]] == [1.0, 2.0, 3.0, 4.0]


@pytest.mark.parametrize("debias", [False, True])
def test_ema_is_the_weighted_mean(debias):
    g = normal((6, 3))
    updates, state = run(gc.ema(0.8, debias), list(jnp.asarray(g, jnp.float32)))
    for t in range(6):
        weights = 0.2 * 0.8 ** np.arange(t, -1, -1)
        expected = weights @ g[: t + 1] / (weights.sum() if debias else 1)
        np.testing.assert_allclose(updates[t], expected, rtol=2e-6, atol=1e-6)
    weights = 0.2 * 0.8 ** np.arange(5, -1, -1)
    np.testing.assert_allclose(state.ema, weights @ g, rtol=2e-6, atol=1e-6)  # never debiased
    assert (state.count.dtype, int(state.count)) == (jnp.int32, 6)


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999, 0.999999])
def test_debiased_ema_of_a_constant_is_the_constant(decay):
    updates, _ = run(gc.ema(decay), [jnp.full(2, 3.0)] * 5)
    np.testing.assert_allclose(updates, 3.0, rtol=2e-6)


def test_ema_end_points():
    gradients = [jnp.full(1, x) for x in (1.0, 5.0, -2.0)]
    assert [float(u[0]) for u in run(gc.ema(0.0), gradients)[0]] == [1.0, 5.0, -2.0]
    updates, _ = run(gc.ema(1.0), gradients)  # all weights are zero: 0 / 0
    assert [float(u[0]) for u in updates] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("factory", [gc.trace, gc.ema])
@pytest.mark.parametrize("dtype", DTYPES)
def test_accumulators_have_the_dtype_of_parameters_or_the_one_asked_for(factory, dtype):
    g = jnp.ones(2, dtype)
    updates, state = run(factory(0.9), [g, g])
    assert updates[-1].dtype == state[-1].dtype == dtype
    updates, state = run(factory(0.9, accumulator_dtype=jnp.float32), [g, g])
    assert (updates[-1].dtype, state[-1].dtype) == (dtype, jnp.float32)


def test_a_wide_accumulator_keeps_small_updates():
    g = jnp.full(1, 1e-3, jnp.bfloat16)
    _, wide = run(gc.trace(1.0, accumulator_dtype=jnp.float32), [g] * 600)
    np.testing.assert_allclose(wide.trace, 600 * float(g[0]), rtol=1e-4)
    _, narrow = run(gc.trace(1.0), [g] * 600)
    assert float(narrow.trace[0]) <= 0.5  # where steps of 1e-3 round to nothing in bfloat16


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("factory", [gc.trace, gc.ema])
def test_zero_gradients_give_zeros(factory, dtype):
    updates, _ = run(factory(0.9), [jnp.zeros(2, dtype)] * 3)
    assert not any(u.any() for u in updates)


@pytest.mark.parametrize("factory", [gc.trace, gc.ema])
@pytest.mark.parametrize("decay", [-0.1, 1.1, float("nan")])
def test_decays_lie_between_zero_and_one(factory, decay):
    with pytest.raises(ValueError, match=rf"{factory.__name__}: decay must be in \[0, 1\]"):
        factory(decay)


def test_states_have_the_fields_of_checkpoints():
    assert gc.TraceState._fields == ("trace",)
    assert gc.EmaState._fields == ("count", "ema")
