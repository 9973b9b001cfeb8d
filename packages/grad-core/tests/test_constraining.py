"""Non-negative parameters, and updates without NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_stop_at_zero(dtype):
    tx = gc.keep_params_nonnegative()
    p = jnp.array([1.0, 2.0, 0.0, 0.0, 3.0, -1.0], dtype)
    g = jnp.array([-3.0, 1.0, -1.0, 1.0, -3.0, 0.5], dtype)
    u, state = tx.update(g, tx.init(p), p)
    assert u.dtype == dtype
    assert gc.apply_updates(p, u).tolist() == [0.0, 3.0, 0.0, 1.0, 0.0, 0.0]
    assert state == gc.NonNegativeParamsState() == gc.EmptyState()


@pytest.mark.parametrize("dtype", DTYPES)
def test_parameters_stay_non_negative_on_random_walks(dtype):
    rng = np.random.default_rng(0)
    tx = gc.keep_params_nonnegative()
    p = jnp.asarray(rng.uniform(size=200), dtype)
    stopped = 0
    for _ in range(20):
        u, _ = tx.update(jnp.asarray(rng.normal(size=200), dtype), tx.init(p), p)
        p = gc.apply_updates(p, u)
        assert (p >= 0).all()
        stopped += int((p == 0).sum())
    assert stopped > 100


def test_nan_and_infinity_are_not_hidden():
    tx = gc.keep_params_nonnegative()
    p = jnp.array([1.0, 1.0, jnp.nan, 1.0])
    u, _ = tx.update(jnp.array([jnp.nan, jnp.inf, 1.0, -jnp.inf]), tx.init(p), p)
    assert jnp.isnan(u[0])
    assert u[1:].tolist() == [jnp.inf, 1.0, -1.0]


def test_complex_parameters_are_refused():
    tx = gc.keep_params_nonnegative()
    p = jnp.array([1j])
    with pytest.raises(gc.LeafTypeError, match="keep_params_nonnegative: parameters must be real"):
        tx.update(p, tx.init(p), p)


def test_parameters_are_needed():
    tx = gc.keep_params_nonnegative()
    with pytest.raises(gc.MissingArgumentError, match=r"keep_params_nonnegative: update\(\) needs"):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nans_become_zeros_and_are_remembered_by_leaf(dtype):
    tx = gc.zero_nans()
    updates = {"a": jnp.array([1.0, jnp.nan, jnp.inf], dtype), "b": jnp.array(2.0, dtype)}
    first = tx.init(updates)
    assert first == gc.ZeroNansState(found_nan={"a": False, "b": False})
    u, state = tx.update(updates, first)
    assert u["a"].dtype == dtype
    assert u["a"].tolist() == [1.0, 0.0, jnp.inf]
    assert u["b"] == 2.0
    assert jax.tree.map(bool, state.found_nan) == {"a": True, "b": False}
    assert all(x.dtype == bool and x.shape == () for x in jax.tree.leaves((first, state)))


def test_what_is_remembered_is_the_last_update():
    tx = gc.zero_nans()
    _, state = tx.update(jnp.array([jnp.nan]), tx.init(jnp.zeros(1)))
    _, state = tx.update(jnp.array([1.0]), state)
    assert not state.found_nan


def test_a_complex_number_is_nan_if_one_of_its_parts_is():
    tx = gc.zero_nans()
    updates = jnp.array([complex(1, jnp.nan), complex(jnp.nan, 1), 1 + 2j])
    u, state = tx.update(updates, tx.init(updates))
    assert u.tolist() == [0, 0, 1 + 2j]
    assert state.found_nan


def test_no_derivative_flows_through_a_nan():
    tx = gc.zero_nans()

    def total(g):
        return tx.update(g, tx.init(g))[0].sum()

    assert jax.grad(total)(jnp.array([jnp.nan, 2.0])).tolist() == [0.0, 1.0]
