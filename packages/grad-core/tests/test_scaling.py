"""Scaling by numbers, schedules, norms, signs; centralizing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc
from grad_core.norm_scaling import ScaleByDistanceOverGradientsState

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]
BY_NORM = [
    gc.scale_by_sign,
    gc.scale_by_param_block_norm,
    gc.scale_by_param_block_rms,
    gc.scale_by_trust_ratio,
    gc.normalize_by_update_norm,
    gc.scale_by_distance_over_gradients,
    gc.centralize,
]


def updated(tx, g, p=None):
    return tx.update(g, tx.init(g if p is None else p), p)[0]


def normal(seed, shape, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if np.issubdtype(dtype, np.complexfloating) else x


# --- numbers and schedules --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.complex64])
@pytest.mark.parametrize("factor", [-0.5, 0.0, 2.0])
def test_scale(factor, dtype):
    u = updated(gc.scale(factor), jnp.array([4.0, -8.0], dtype))
    assert u.dtype == dtype
    assert u.tolist() == [4.0 * factor, -8.0 * factor]


def test_scale_by_schedule_counts_from_zero():
    tx = gc.scale_by_schedule(lambda count: 10.0 - count)
    state = tx.init(jnp.ones(1))
    found = []
    for _ in range(3):
        u, state = tx.update(jnp.ones(1), state)
        found.append(float(u[0]))
    assert found == [10.0, 9.0, 8.0]
    assert (state.count.dtype, int(state.count)) == (jnp.int32, 3)


@pytest.mark.parametrize(("flip_sign", "sign"), [(True, -1.0), (False, 1.0)])
@pytest.mark.parametrize("rate", [0.25, np.float32(0.25), jnp.asarray(0.25)], ids=repr)
def test_scale_by_learning_rate(rate, flip_sign, sign):
    tx = gc.scale_by_learning_rate(rate, flip_sign=flip_sign)
    assert tx.init(jnp.ones(1)) == gc.ScaleState()
    assert updated(tx, jnp.array([8.0])).tolist() == [sign * 2.0]


def test_scale_by_a_scheduled_learning_rate():
    tx = gc.scale_by_learning_rate(lambda count: 0.5**count)
    state = tx.init(jnp.ones(1))
    assert isinstance(state, gc.ScaleByScheduleState)
    for expected in (-1.0, -0.5, -0.25):
        u, state = tx.update(jnp.ones(1), state)
        assert float(u[0]) == expected


def test_no_learning_rate_changes_nothing():
    assert updated(gc.scale_by_learning_rate(None), jnp.array([8.0])).tolist() == [8.0]


@pytest.mark.parametrize("factory", [gc.scale, gc.scale_by_learning_rate])
def test_what_is_no_number_is_an_error(factory):
    with pytest.raises(TypeError, match=rf"{factory.__name__}: \w+ must be a number"):
        factory("0.1")


# --- signs and means --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_signs(dtype):
    u = updated(gc.scale_by_sign(), jnp.array([-3.0, 0.0, 1e-6, jnp.inf], dtype))
    assert u.dtype == dtype
    assert u.tolist() == [-1.0, 0.0, 1.0, 1.0]


def test_the_sign_of_a_complex_number_has_modulus_one():
    u = updated(gc.scale_by_sign(), jnp.array([3 + 4j, 0, -2j]))
    np.testing.assert_allclose(u, [0.6 + 0.8j, 0, -1j], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
@pytest.mark.parametrize("shape", [(3, 4), (1, 4), (4, 1), (2, 3, 4), (2, 2, 3, 4)], ids=str)
def test_centralize_subtracts_the_mean_of_each_slice(shape, dtype):
    g = normal(0, shape, dtype)
    u = updated(gc.centralize(), jnp.asarray(g, dtype))
    axes = tuple(range(1, len(shape)))
    expected = g - g.mean(axis=axes, keepdims=True)
    np.testing.assert_allclose(u, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.mean(u, axis=axes), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (4,)], ids=str)
def test_centralize_passes_vectors(shape):
    g = jnp.asarray(normal(1, shape), jnp.float32)
    assert (updated(gc.centralize(), g) == g).all()


# --- norms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.complex64])
def test_norm_and_rms_of_each_parameter(dtype):
    g = {"a": jnp.array([1.0, 2.0], dtype), "b": jnp.array([[1.0], [2.0]], dtype)}
    p = {"a": jnp.array([3.0, 4.0], dtype), "b": jnp.array([[7.0], [1.0]], dtype)}
    u = updated(gc.scale_by_param_block_norm(), g, p)
    assert u["a"].dtype == dtype
    assert u["a"].tolist() == [5.0, 10.0]
    np.testing.assert_allclose(u["b"][0, 0].real.astype(float), np.sqrt(50), rtol=5e-3)
    u = updated(gc.scale_by_param_block_rms(), g, p)
    assert u["b"].tolist() == [[5.0], [10.0]]


@pytest.mark.parametrize("factory", [gc.scale_by_param_block_norm, gc.scale_by_param_block_rms])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_parameters_have_the_least_scale(factory, dtype):
    g, zeros = jnp.array([1.0, -4.0], dtype), jnp.zeros(2, dtype)
    assert updated(factory(0.25), g, zeros).tolist() == [0.25, -1.0]
    assert updated(factory(0.0), g, zeros).tolist() == [0.0, 0.0]
    slopes = jax.grad(lambda p: updated(factory(0.0), g, p).sum())(zeros)
    assert slopes.tolist() == [0.0, 0.0]


def test_large_parameters_in_float16():
    p = jnp.full(1000, 200.0, jnp.float16)  # squares overflow
    u = updated(gc.scale_by_param_block_rms(), jnp.ones(1000, jnp.float16), p)
    np.testing.assert_allclose(u, 200.0, rtol=1e-3)


TRUST = [
    {},
    {"min_norm": 0.5},
    {"trust_coefficient": -0.1},
    {"eps": 2.0},
    {"min_norm": 20.0, "trust_coefficient": 3.0, "eps": 0.5},
]


@pytest.mark.parametrize("kwargs", TRUST, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_trust_ratio(kwargs, dtype):
    g, p = normal(2, (3, 4), dtype), normal(3, (3, 4), dtype)
    tx = gc.scale_by_trust_ratio(**kwargs)
    u = updated(tx, jnp.asarray(g, dtype), jnp.asarray(p, dtype))
    low = kwargs.get("min_norm", 0.0)
    p_norm, g_norm = (max(np.sqrt(np.sum(np.abs(x) ** 2)), low) for x in (p, g))
    ratio = kwargs.get("trust_coefficient", 1.0) * p_norm / (g_norm + kwargs.get("eps", 0.0))
    np.testing.assert_allclose(u, ratio * g, rtol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_trust_ratio_is_one_where_a_norm_is_zero(dtype):
    g, zeros = jnp.array([6.0, 8.0], dtype), jnp.zeros(2, dtype)
    tx = gc.scale_by_trust_ratio(trust_coefficient=0.5, eps=0.1)
    assert updated(tx, g, zeros).tolist() == [6.0, 8.0]
    assert updated(tx, zeros, g).tolist() == [0.0, 0.0]
    slopes = jax.grad(lambda g, p: updated(tx, g, p).sum(), argnums=(0, 1))
    assert all(jnp.isfinite(x).all() for x in slopes(zeros, g))
    assert all(jnp.isfinite(x).all() for x in slopes(g, zeros))


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("p_size", [1e-20, 1e20])
def test_trust_ratio_of_extreme_norms(size, p_size):
    g, p = jnp.array([0.6, -0.8]) * size, jnp.array([0.0, p_size])
    u = updated(gc.scale_by_trust_ratio(), g, p)
    np.testing.assert_allclose(u, np.array([0.6, -0.8]) * p_size, rtol=1e-5)


def test_trust_ratio_in_float16():
    x = jnp.full(1000, 200.0, jnp.float16)
    np.testing.assert_allclose(updated(gc.scale_by_trust_ratio(), x, x), 200.0, rtol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalized_updates_have_the_norm_asked_for(dtype):
    g = {"a": jnp.array([3.0], dtype), "b": jnp.array([[4.0]], dtype)}
    u = updated(gc.normalize_by_update_norm(-10.0, eps=0.0), g)
    assert u["a"].dtype == dtype
    assert (float(u["a"][0]), float(u["b"][0, 0])) == (-6.0, -8.0)
    u = updated(gc.normalize_by_update_norm(eps=5.0), g)
    np.testing.assert_allclose(float(u["a"][0]), 0.3, rtol=5e-3)


@pytest.mark.parametrize("size", [1e-20, 1e30])
def test_normalized_updates_of_extreme_norms(size):
    u = updated(gc.normalize_by_update_norm(eps=0.0), jnp.array([3.0, 4.0]) * size)
    np.testing.assert_allclose(u, [0.6, 0.8], rtol=1e-5)


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalized_zeros_are_zeros(dtype, eps):
    tx = gc.normalize_by_update_norm(eps=eps)
    zeros = jnp.zeros(2, dtype)
    assert updated(tx, zeros).tolist() == [0.0, 0.0]
    assert jnp.isfinite(jax.grad(lambda g: updated(tx, g).sum())(zeros)).all()


@pytest.mark.parametrize("factory", BY_NORM)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.complex64])
def test_zero_gradients_and_parameters_are_finite(factory, dtype):
    zeros = {"m": jnp.zeros((2, 3), dtype), "s": jnp.zeros((), dtype)}
    u = updated(factory(), zeros, zeros)
    assert not any(x.any() for x in jax.tree.leaves(u))


@pytest.mark.parametrize(
    "factory",
    [
        gc.scale_by_param_block_norm,
        gc.scale_by_param_block_rms,
        gc.scale_by_trust_ratio,
        gc.scale_by_distance_over_gradients,
    ],
)
def test_parameters_are_needed(factory):
    with pytest.raises(gc.MissingArgumentError, match=rf"{factory.__name__}: update\(\) needs"):
        updated(factory(), jnp.ones(2))


# --- distance over gradients -------------------------------------------------------------------


def reference(p, gradients, reps_rel, eps, global_scale):
    """Descends along DoG's updates of one array; the updates, distance and sum of squares."""
    first, distance, total, updates = p, reps_rel * (1 + np.sqrt(np.sum(np.abs(p) ** 2))), 0.0, []
    for g in gradients:
        distance = max(distance, np.sqrt(np.sum(np.abs(p - first) ** 2)))
        total += np.sum(np.abs(g) ** 2)
        updates.append(global_scale * distance * g / np.sqrt(total + eps))
        p = p - updates[-1]
    return updates, distance, total


@pytest.mark.parametrize(
    "kwargs", [{}, {"reps_rel": 0.1, "eps": 0.5, "global_scale": 3.0}], ids=str
)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_distance_over_gradients(kwargs, dtype):
    shapes = {"m": (2, 3), "s": ()}
    p = {k: normal(4, shape, dtype) for k, shape in shapes.items()}
    gradients = [{k: normal(i, s, dtype) for k, s in shapes.items()} for i in range(5, 9)]
    full = {"reps_rel": 1e-6, "eps": 1e-8, "global_scale": 1.0} | kwargs
    expected = {k: reference(p[k], [g[k] for g in gradients], **full) for k in shapes}
    tx = gc.scale_by_distance_over_gradients(**kwargs)
    params = jax.tree.map(lambda x: jnp.asarray(x, dtype), p)
    state = tx.init(params)
    for i, g in enumerate(gradients):
        u, state = tx.update(jax.tree.map(lambda x: jnp.asarray(x, dtype), g), state, params)
        params = jax.tree.map(jnp.subtract, params, u)
        for k, (updates, _, _) in expected.items():
            assert u[k].shape == shapes[k]
            # With the default reps_rel, the distance is known to some digits of the parameters'.
            np.testing.assert_allclose(u[k], updates[i], rtol=1e-5 if kwargs else 0.2)
    for k, (_, distance, total) in expected.items():
        np.testing.assert_allclose(state.max_dist[k], distance, rtol=1e-5 if kwargs else 0.2)
        np.testing.assert_allclose(state.grad_sum_of_squares[k], [total], rtol=1e-5)
        assert (state.init_params[k] == jnp.asarray(p[k], dtype)).all()


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.complex64])
def test_distance_over_gradients_keeps_its_state_in_float32(dtype):
    tx = gc.scale_by_distance_over_gradients(reps_rel=0.5)
    p = jnp.array([3.0, 4.0], dtype)
    first = tx.init(p)
    _, second = tx.update(p, first, p)
    for state in (first, second):
        assert (state.max_dist.dtype, state.max_dist.shape) == (jnp.float32, ())
        total = state.grad_sum_of_squares
        assert (total.dtype, total.shape) == (jnp.float32, (1,))
        wide = jnp.complex64 if dtype == jnp.complex64 else jnp.float32
        assert (state.init_params.dtype, state.init_params.tolist()) == (wide, [3.0, 4.0])
    assert float(first.max_dist) == 3.0
    assert second.grad_sum_of_squares.tolist() == [25.0]


def test_distance_over_gradients_keeps_first_parameters_in_the_dtype_asked_for():
    tx = gc.scale_by_distance_over_gradients(param_dtype=jnp.bfloat16)
    assert tx.init(jnp.ones(2)).init_params.dtype == jnp.bfloat16


def test_distance_over_gradients_without_eps_at_zero():
    tx = gc.scale_by_distance_over_gradients(eps=0.0)
    p = jnp.ones(2)
    zeros = jnp.zeros(2)
    u, state = tx.update(zeros, tx.init(p), p)
    assert u.tolist() == [0.0, 0.0]
    assert jnp.isfinite(jax.grad(lambda g: updated(tx, g, p).sum())(zeros)).all()
    u, _ = tx.update(jnp.array([3.0, 4.0]), state, p)  # a zero gradient leaves no trace
    np.testing.assert_allclose(u, np.array([0.6, 0.8]) * 1e-6 * (1 + 2**0.5), rtol=1e-5)


def test_first_parameters_survive_donation_of_the_parameters():
    p = jnp.array([3.0, 4.0])
    state = gc.scale_by_distance_over_gradients().init(p)
    jax.jit(lambda p: p + 1, donate_argnums=0)(p)
    assert p.is_deleted()
    assert state.init_params.tolist() == [3.0, 4.0]


def test_states_have_the_fields_of_checkpoints():
    fields = ("max_dist", "grad_sum_of_squares", "init_params")
    assert ScaleByDistanceOverGradientsState._fields == fields
    assert gc.ScaleByTrustRatioState is gc.ScaleState is gc.EmptyState
