"""Clipping: by value, by block, by global norm, by unit, by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]
BLOCKWISE = [gc.clip_by_block_rms, gc.clip_by_global_norm, gc.adaptive_grad_clip]
# Two units for each rank, and the axes to reduce for the norm of a unit.
UNITS = {
    (): (),
    (5,): (0,),
    (1, 5): (0, 1),
    (5, 1): (0, 1),
    (1, 1, 5): (0, 1, 2),
    (3, 2): (0,),
    (3, 4, 2): (0,),
    (1, 3, 4): (0,),
    (3, 3, 4, 2): (0, 1, 2),
    (1, 3, 1, 2): (0, 1, 2),
    (2, 3, 1, 4, 2): (0, 1, 2, 3),
}
UNITS_AND_DTYPES = [(shape, np.float32) for shape in UNITS] + [((3, 2), np.complex64)]


def updated(tx, g, p=None):
    return tx.update(g, tx.init(g if p is None else p), p)[0]


def normal(seed, shape, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else x


def close(actual, expected, tolerance=1e-6):
    np.testing.assert_allclose(np.asarray(actual, np.asarray(expected).dtype), expected, tolerance)


# --- by value --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_keeps_small_elements_and_cuts_large_ones(dtype):
    g = jnp.array([-jnp.inf, -3.0, -1.0, -0.5, 0.0, 0.25, 1.0, 60000.0], dtype)
    u = updated(gc.clip(1.0), g)
    assert u.dtype == dtype
    assert u.tolist() == [-1.0, -1.0, -1.0, -0.5, 0.0, 0.25, 1.0, 1.0]


def test_clip_keeps_nan():
    assert jnp.isnan(updated(gc.clip(1.0), jnp.array([jnp.nan])))[0]


def test_clip_refuses_complex_updates():
    with pytest.raises(ValueError, match="clip: updates must be real"):
        updated(gc.clip(1.0), jnp.array([1j]))


@pytest.mark.parametrize("factory", [gc.clip, *BLOCKWISE])
def test_a_bound_of_zero_gives_zeros(factory):
    g = {"a": jnp.array([3.0, -4.0]), "zero": jnp.zeros(2)}
    u = updated(factory(0.0), g, g)
    assert all(not x.any() for x in jax.tree.leaves(u))


@pytest.mark.parametrize("factory", [gc.clip, *BLOCKWISE])
def test_a_negative_bound_is_an_error(factory):
    with pytest.raises(ValueError, match=rf"{factory.__name__}: \w+ must be >= 0; got -1\.0"):
        factory(-1.0)


# --- by block and by global norm --------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_clip_by_block_rms_acts_on_each_leaf_alone(dtype):
    g = {"large": 3 * normal(0, (3, 4), dtype), "small": 0.01 * normal(1, (5,), dtype)}
    u = updated(gc.clip_by_block_rms(0.5), jax.tree.map(lambda x: jnp.asarray(x, dtype), g))
    rms = np.sqrt(np.mean(np.abs(g["large"]) ** 2))
    close(u["large"], g["large"] * 0.5 / rms)
    close(u["small"], g["small"])


@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_by_global_norm_scales_all_leaves_by_one_factor(dtype):
    g = {"a": jnp.array([3.0, 0.0], dtype), "b": jnp.array(4.0, dtype)}
    u = updated(gc.clip_by_global_norm(2.5), g)
    assert u["a"].dtype == dtype
    assert (u["a"].tolist(), float(u["b"])) == ([1.5, 0.0], 2.0)
    assert updated(gc.clip_by_global_norm(5.0), g)["a"].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("factory", [gc.clip_by_block_rms, gc.clip_by_global_norm])
@pytest.mark.parametrize(
    ("value", "dtype"), [(200, jnp.float16), (1e20, jnp.float32), (1e30, jnp.float32)]
)
def test_norms_whose_square_overflows(factory, value, dtype):
    u = updated(factory(1.0), jnp.full(1000, value, dtype)).astype(jnp.float32)
    bound = 1.0 if factory is gc.clip_by_block_rms else 1000**-0.5
    close(u, np.full(1000, bound), 1e-3 if dtype == jnp.float16 else 1e-5)


@pytest.mark.parametrize("factory", [gc.clip_by_block_rms, gc.clip_by_global_norm])
def test_norms_whose_square_underflows(factory):
    u = updated(factory(1e-30), jnp.full(4, 1e-25))
    close(u, np.full(4, 1e-30 if factory is gc.clip_by_block_rms else 5e-31), 1e-5)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
@pytest.mark.parametrize("factory", BLOCKWISE)
def test_derivatives_at_zero_are_those_of_the_identity(factory, dtype):
    zeros, ones = jnp.zeros(3, dtype), jnp.ones(3, dtype)
    slopes = jax.grad(lambda g: updated(factory(1.0), g, ones).sum())(zeros)
    assert slopes.tolist() == [1.0, 1.0, 1.0]


def test_derivative_of_a_clipped_update_is_tangential():
    def along(g):
        return updated(gc.clip_by_global_norm(1.0), g) @ jnp.array([3.0, 4.0])

    g = jnp.array([3.0, 4.0])
    np.testing.assert_allclose(jax.grad(along)(g), 0.0, atol=1e-6)  # the norm stays 1


# --- by unit ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "dtype"), UNITS_AND_DTYPES)
def test_unitwise_norm(shape, dtype):
    x = normal(2, shape, dtype)
    norms = gc.unitwise_norm(jnp.asarray(x, dtype))
    assert norms.dtype == jnp.float32
    expected = np.sqrt(np.sum(np.abs(x) ** 2, axis=UNITS[shape], keepdims=True))
    close(norms, np.broadcast_to(expected, shape))


@pytest.mark.parametrize("axis", [0, -1, (0, 2), ()])
def test_unitwise_norm_along_given_axes(axis):
    x = normal(3, (2, 3, 4))
    expected = np.sqrt(np.sum(x**2, axis=axis, keepdims=True))
    close(gc.unitwise_norm(jnp.asarray(x, jnp.float32), axis), np.broadcast_to(expected, x.shape))


def test_unitwise_norm_neither_overflows_nor_underflows():
    x = jnp.array([[3e30, 3e-30, 0.0], [4e30, 4e-30, 0.0]])
    close(gc.unitwise_norm(x), np.array([[5e30, 5e-30, 0.0]] * 2))
    assert gc.unitwise_norm(jnp.full((2, 1000), 200.0, jnp.float16)).dtype == jnp.float16
    assert jnp.isfinite(gc.unitwise_norm(jnp.full(1000, 200.0, jnp.float16))).all()


def test_unitwise_norm_asks_for_the_axes_of_what_it_does_not_know():
    x = jnp.ones((2,) * 6)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 2, 2, 2, 2\) has more than five axes"):
        gc.unitwise_norm(x)
    assert gc.unitwise_norm(x, axis=0).shape == x.shape
    with pytest.raises(ValueError, match="axis 6 is out of bounds"):
        gc.unitwise_norm(x, axis=6)


def test_unitwise_clip():
    g_norm = jnp.array([0.5, 1.0, 2.0, 0.25, 0.0])
    max_norm = jnp.array([1.0, 1.0, 0.5, 0.125, 0.0])
    u = gc.unitwise_clip(g_norm, max_norm, jnp.full(5, 8.0), div_eps=0.5)
    assert u.tolist() == [8.0, 8.0, 2.0, 2.0, 0.0]
    assert gc.unitwise_clip(g_norm, max_norm, jnp.full(5, 8.0), 0.0)[-1] == 0.0


def test_unitwise_clip_needs_equal_shapes():
    with pytest.raises(
        ValueError, match=r"max_norm must have the shape of grad, \(2, 3\); got \(3,\)"
    ):
        gc.unitwise_clip(jnp.ones((2, 3)), jnp.ones(3), jnp.ones((2, 3)))


@pytest.mark.parametrize(("shape", "dtype"), UNITS_AND_DTYPES)
def test_adaptive_grad_clip(shape, dtype):
    g, p = normal(4, shape, dtype), normal(5, shape, dtype)
    u = updated(gc.adaptive_grad_clip(0.3), jnp.asarray(g, dtype), jnp.asarray(p, dtype))
    axes = UNITS[shape]
    g_norm = np.sqrt(np.sum(np.abs(g) ** 2, axis=axes, keepdims=True))
    p_norm = np.sqrt(np.sum(np.abs(p) ** 2, axis=axes, keepdims=True))
    close(u, g * np.minimum(1.0, 0.3 * np.maximum(p_norm, 1e-3) / g_norm), 2e-6)


def test_adaptive_grad_clip_along_a_given_axis():
    g, p = jnp.array([[6.0, 8.0], [0.0, 0.5]]), jnp.array([[3.0, 4.0], [0.0, 0.0]])
    u = updated(gc.adaptive_grad_clip(0.5, eps=0.5, axis=1), g, p)
    close(u, np.array([[1.5, 2.0], [0.0, 0.25]]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_adaptive_grad_clip_lets_zero_parameters_move(dtype):
    g = jnp.full((4, 2), 100.0, dtype)
    u = updated(gc.adaptive_grad_clip(1.0, eps=1.0), g, jnp.zeros((4, 2), dtype))
    assert u.tolist() == [[0.5, 0.5]] * 4


def test_adaptive_grad_clip_needs_parameters():
    with pytest.raises(gc.MissingArgumentError, match=r"adaptive_grad_clip: update\(\) needs"):
        updated(gc.adaptive_grad_clip(1.0), jnp.ones(2))


# --- by example -------------------------------------------------------------------------------


def examples(dtype=np.float64):
    return {"w": normal(6, (7, 3, 2), dtype), "b": 0.5 * normal(7, (7,), dtype)}


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_per_example_global_norm_clip(dtype):
    grads = examples(dtype)
    total, num_clipped = gc.per_example_global_norm_clip(cast(grads, dtype), 3.0)
    expected, count = {"w": 0.0, "b": 0.0}, 0
    for w, b in zip(grads["w"], grads["b"], strict=True):
        norm = np.sqrt(np.sum(np.abs(w) ** 2) + np.abs(b) ** 2)
        factor = min(1.0, 3.0 / norm)
        expected = {"w": expected["w"] + factor * w, "b": expected["b"] + factor * b}
        count += norm > 3.0
    assert 0 < count < 7
    assert (num_clipped.dtype, int(num_clipped)) == (jnp.int32, count)
    close(total["w"], expected["w"], 1e-5)
    close(total["b"], expected["b"], 1e-5)


@pytest.mark.parametrize("uniform", [True, False])
def test_per_example_layer_norm_clip(uniform):
    grads = examples()
    total, num_clipped = gc.per_example_layer_norm_clip(cast(grads, np.float32), 2.0, uniform)
    bounds = {"w": 2 * np.sqrt(0.5), "b": 2 * np.sqrt(0.5)}
    if not uniform:
        bounds = {"w": 2 * np.sqrt(6 / 7), "b": 2 * np.sqrt(1 / 7)}
    for name, g in grads.items():
        norms = np.sqrt(np.sum(g.reshape(7, -1) ** 2, axis=1))
        factors = np.minimum(1.0, bounds[name] / norms)
        close(total[name], np.tensordot(factors, g, 1), 1e-5)
        assert int(num_clipped[name]) == np.sum(norms > bounds[name])


def test_an_example_moves_the_sum_by_no_more_than_the_bound():
    grads = cast(examples(), np.float32)
    without = jax.tree.map(lambda g: g.at[3].set(0.0), grads)
    for clipped in (
        gc.per_example_global_norm_clip,
        gc.per_example_layer_norm_clip,
        lambda g, c: gc.per_example_layer_norm_clip(g, c, uniform=False),
    ):
        moved = jax.tree.map(jnp.subtract, clipped(grads, 0.5)[0], clipped(without, 0.5)[0])
        assert gc.global_norm(moved) <= 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e30])
def test_per_example_norms_are_safe(value):
    grads = [jnp.full((4, 100), value), jnp.full((4,), value)]
    total, num_clipped = gc.per_example_global_norm_clip(grads, 1.0)
    expected = 4 * value if value < 1 else 4 / np.sqrt(101)
    close(total[0], np.full(100, expected), 1e-5)
    assert int(num_clipped) == (4 if value > 1 else 0)
    total, num_clipped = gc.per_example_layer_norm_clip(grads, 0.0)
    assert not total[0].any()
    assert int(num_clipped[1]) == (4 if value else 0)


def test_per_example_norms_that_overflow_float16():
    grads = [jnp.full((4, 100_000), 300.0, jnp.float16)]
    total, num_clipped = gc.per_example_global_norm_clip(grads, 100.0)
    assert total[0].dtype == jnp.float16
    close(total[0][:2], np.full(2, 4 * 100 / np.sqrt(100_000)), 1e-3)
    assert int(num_clipped) == 4


@pytest.mark.parametrize(
    "per_example", [gc.per_example_global_norm_clip, gc.per_example_layer_norm_clip]
)
def test_what_is_not_per_example_is_named(per_example):
    with pytest.raises(ValueError, match=r"grads\['b'\] has shape \(\), but the first axis"):
        per_example({"a": jnp.ones(2), "b": jnp.ones(())}, 1.0)
    with pytest.raises(ValueError, match=r"grads\['b'\] has shape \(2,\) and grads\['a'\] has"):
        per_example({"a": jnp.ones((3, 2)), "b": jnp.ones(2)}, 1.0)
    with pytest.raises(ValueError, match=r"l2_norm_clip must be >= 0; got -1\.0"):
        per_example([jnp.ones(2)], -1.0)
    assert per_example({}, 1.0)[0] == {}
