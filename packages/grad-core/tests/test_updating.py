"""Applying updates to parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32, jnp.complex64]


@pytest.mark.parametrize("u_dtype", DTYPES[:3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_apply_updates_adds_in_the_dtype_of_parameters(dtype, u_dtype):
    p = {"a": jnp.array([1.0, 2.0], dtype), "b": [jnp.array(3.0, dtype)]}
    u = {"a": jnp.array([0.5, -4.0], u_dtype), "b": [jnp.array(1.0, u_dtype)]}
    new = gc.apply_updates(p, u)
    assert new["a"].dtype == new["b"][0].dtype == dtype
    assert new["a"].tolist() == [1.5, -2.0]
    assert new["b"][0] == 4.0


def test_apply_updates_rounds_once():
    p, u = jnp.array([1.0], jnp.bfloat16), jnp.array([0.00390625 + 1e-6])  # just past half an ulp
    assert float(gc.apply_updates(p, u)[0]) == 1.0078125


def test_absent_updates_leave_parameters_alone():
    p = {"none": jnp.ones(1), "masked": jnp.ones(1), "float0": jnp.ones(1, jnp.int32), "w": None}
    u = {
        "none": None,
        "masked": gc.MaskedNode(),
        "float0": np.zeros(1, jax.dtypes.float0),
        "w": None,
    }
    new = gc.apply_updates(p, u)
    assert new["w"] is None
    assert [int(new[k][0]) for k in ("none", "masked", "float0")] == [1, 1, 1]
    assert new["float0"].dtype == jnp.int32


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"a": jnp.ones(2)}, r"params\['b'\] has no counterpart in updates"),
        ({"a": jnp.ones(2), "b": jnp.ones(2), "c": 1.0}, r"updates\['c'\] has no counterpart"),
        (
            {"a": jnp.ones(3), "b": jnp.ones(2)},
            r"updates\['a'\] has shape \(3,\), but params\['a'\]",
        ),
        ({"a": jnp.ones(()), "b": jnp.ones(2)}, r"updates\['a'\] has shape \(\)"),
        ({"a": [jnp.ones(2)], "b": jnp.ones(2)}, r"updates\['a'\]"),
    ],
)
def test_mismatches_are_named_by_path(updates, message):
    with pytest.raises(gc.TreeMismatchError, match=message):
        gc.apply_updates({"a": jnp.ones(2), "b": jnp.ones(2)}, updates)


def test_apply_updates_is_linear_under_grad_and_vmap():
    assert jax.grad(lambda p: gc.apply_updates(p, jnp.array(2.0)) ** 2)(1.0) == 6.0
    p, u = jnp.arange(6.0).reshape(3, 2), jnp.ones((3, 2))
    assert (jax.vmap(gc.apply_updates)(p, u) == p + u).all()


@pytest.mark.parametrize("step_size", [0.0, 0.25, 1.0])
def test_incremental_update_interpolates(step_size):
    new, old = {"a": jnp.array([4.0]), "n": None}, {"a": jnp.array([8.0]), "n": None}
    mixed = gc.incremental_update(new, old, step_size)
    assert mixed["n"] is None
    assert mixed["a"].tolist() == [8.0 - 4.0 * step_size]


def test_incremental_updates_converge_geometrically():
    target, x = jnp.array([1.0]), jnp.array([0.0])
    for _ in range(10):
        x = gc.incremental_update(target, x, 0.5)
    assert x.tolist() == [1 - 0.5**10]


@pytest.mark.parametrize("period", [1, 2, 3])
def test_periodic_update(period):
    taken = [
        bool(gc.periodic_update({"a": jnp.ones(1)}, {"a": jnp.zeros(1)}, step, period)["a"][0])
        for step in range(7)
    ]
    assert taken == [step % period == 0 for step in range(7)]


def test_periodic_update_under_jit():
    update = jax.jit(lambda step: gc.periodic_update(jnp.ones(1), jnp.zeros(1), step, 2))
    assert [float(update(step)[0]) for step in range(4)] == [1.0, 0.0, 1.0, 0.0]
