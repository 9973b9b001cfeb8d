"""Adding decayed weights and noise."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core as gc

DTYPES = [jnp.float16, jnp.bfloat16, jnp.float32]


def updated(tx, g, p=None):
    return tx.update(g, tx.init(g if p is None else p), p)[0]


# --- weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.complex64])
def test_decayed_weights(dtype):
    g, p = jnp.array([1.0, -2.0], dtype), jnp.array([4.0, 8.0], dtype)
    u = updated(gc.add_decayed_weights(0.25), g, p)
    assert u.dtype == dtype
    assert u.tolist() == [2.0, 0.0]


def test_decayed_weights_of_masked_leaves():
    p = {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}
    u = updated(gc.add_decayed_weights(0.5, {"kernel": True, "bias": False}), p, p)
    assert (float(u["kernel"][0]), float(u["bias"][0])) == (3.0, 2.0)


def test_scheduled_decay_counts_from_zero():
    tx = gc.add_decayed_weights(lambda count: 0.5**count)
    p = jnp.array([1.0])
    state = tx.init(p)
    assert type(state).__name__ == "WeightDecaySchedule"
    found = []
    for _ in range(3):
        u, state = tx.update(jnp.zeros(1), state, p)
        found.append(float(u[0]))
    assert found == [1.0, 0.5, 0.25]
    assert int(state.count) == 3


def test_decayed_weights_need_parameters():
    with pytest.raises(gc.MissingArgumentError, match=r"add_decayed_weights: update\(\) needs"):
        updated(gc.add_decayed_weights(0.1), jnp.ones(2))


# --- noise ------------------------------------------------------------------------------------


def test_noise_is_that_of_the_split_key():
    updates = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4)}
    tx = gc.add_noise(0.01, 0.55, key=7)
    state = tx.init(updates)
    key = jax.random.key(7)
    for t in (1, 2, 3):
        u, state = tx.update(updates, state)
        key, sample_key = jax.random.split(key)
        noise = gc.tree.random_like(sample_key, updates)
        for name, g in updates.items():
            expected = g + np.sqrt(0.01 / t**0.55) * noise[name]
            np.testing.assert_allclose(u[name], expected, rtol=1e-6)
        assert int(state.count) == t
        assert (jax.random.key_data(state.rng_key) == jax.random.key_data(key)).all()


def test_variance_fades_by_the_power_of_t():
    tx = gc.add_noise(4.0, 2.0, key=0)
    g = jnp.zeros(20_000)
    state = tx.init(g)
    for t in (1, 2, 3, 4):
        u, state = tx.update(g, state)
        assert abs(float(jnp.std(u)) * t / 2 - 1) < 0.02
        assert abs(float(jnp.mean(u))) * t / 2 < 0.03


@pytest.mark.parametrize("dtype", [*DTYPES, jnp.complex64])
def test_noise_has_unit_variance_in_each_dtype(dtype):
    u = updated(gc.add_noise(1.0, 0.0, key=1), jnp.zeros(20_000, dtype))
    assert u.dtype == dtype
    wide = np.asarray(u, np.complex128)
    assert abs(np.mean(np.abs(wide) ** 2) - 1) < 0.04
    assert (np.abs(wide.imag).max() > 0) == (dtype == jnp.complex64)


def test_leaves_and_steps_differ():
    tx = gc.add_noise(1.0, 0.0, key=0)
    g = [jnp.zeros(8), jnp.zeros(8)]
    u, state = tx.update(g, tx.init(g))
    v, _ = tx.update(g, state)
    assert len({float(x[0]) for x in (*u, *v)}) == 4


@pytest.mark.parametrize(
    "key",
    [
        3,
        np.int32(3),
        np.uint8(3),
        jnp.asarray(3),
        2**32 + 3,
        jax.random.key(3),
        jax.random.PRNGKey(3),
        np.array([0, 3], np.uint32),
    ],
    ids=repr,
)
def test_keys_and_seeds(key):
    state = gc.add_noise(1.0, 0.5, key).init(jnp.zeros(2))
    assert jnp.issubdtype(state.rng_key.dtype, jax.dtypes.prng_key)
    assert jax.random.key_data(state.rng_key).tolist() == [0, 3]


def test_keys_of_another_generator():
    key = jax.random.key(3, impl="rbg")
    state = gc.add_noise(1.0, 0.5, key).init(jnp.zeros(2))
    assert state.rng_key == key


def test_vmap_over_keys():
    def noise(key):
        return updated(gc.add_noise(1.0, 0.5, key), jnp.zeros(3))

    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_allclose(jax.vmap(noise)(keys)[1], noise(keys[1]), rtol=1e-6)


def test_negative_seeds():
    state = gc.add_noise(1.0, 0.5, -3).init(jnp.zeros(2))
    expected = jax.random.key_data(jax.random.key(-3))
    assert jax.random.key_data(state.rng_key).tolist() == expected.tolist()


@pytest.mark.parametrize("key", [1.5, "3", True, np.ones(2)], ids=repr)
def test_what_is_no_key_is_an_error(key):
    with pytest.raises(TypeError, match="add_noise: key must be a random key or an integer"):
        gc.add_noise(1.0, 0.5, key)


def test_without_a_key_there_is_a_warning():
    with pytest.warns(UserWarning, match="without a key") as caught:
        tx = gc.add_noise(1.0, 0.5)
    assert caught[0].filename == __file__
    g = jnp.zeros(3)
    assert (updated(tx, g) == updated(gc.add_noise(1.0, 0.5, 0), g)).all()


def test_seed_is_the_deprecated_name_of_key():
    with pytest.warns(DeprecationWarning, match="seed is deprecated") as caught:
        tx = gc.add_noise(1.0, 0.5, seed=3)
    assert caught[0].filename == __file__
    g = jnp.zeros(3)
    assert (updated(tx, g) == updated(gc.add_noise(1.0, 0.5, 3), g)).all()
    with pytest.raises(ValueError, match="give key or seed, not both"):
        gc.add_noise(1.0, 0.5, 3, seed=3)


def test_with_a_key_there_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.add_noise(1.0, 0.5, 3)


def test_vmap_over_seeds():
    def noise(seed):
        return updated(gc.add_noise(1.0, 0.5, seed), jnp.zeros(3))

    batch = jax.vmap(noise)(jnp.arange(4))
    for seed in range(4):
        np.testing.assert_allclose(batch[seed], noise(seed), rtol=1e-6)


def test_no_variance_no_noise():
    g = jnp.array([1.0, 0.0])
    assert updated(gc.add_noise(0.0, 0.55, 0), g).tolist() == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"eta must be >= 0; got -0\.1"):
        gc.add_noise(-0.1, 0.55, 0)


def test_absent_leaves_get_no_noise():
    none = np.zeros(2, jax.dtypes.float0)
    updates = {"a": jnp.zeros(2), "masked": gc.MaskedNode(), "none": None, "float0": none}
    u = updated(gc.add_noise(1.0, 0.5, 0), updates, {"a": jnp.zeros(2)})
    assert u["masked"] == gc.MaskedNode()
    assert u["none"] is None
    assert u["float0"].dtype == jax.dtypes.float0
    assert u["a"].all()


def test_integer_updates_are_refused_by_path():
    with pytest.raises(gc.LeafTypeError, match=r"add_noise: updates\['n'\] is int32"):
        updated(gc.add_noise(1.0, 0.5, 0), {"n": jnp.zeros(2, jnp.int32)}, {"n": jnp.zeros(2)})


def test_the_users_key_survives_donation_of_the_state():
    key = jax.random.key(5)
    tx = gc.add_noise(1.0, 0.5, key)
    g = jnp.zeros(2)
    jax.jit(tx.update, donate_argnums=1)(g, tx.init(g))
    assert jax.random.key_data(key).tolist() == [0, 5]


def test_equal_calls_are_equal():
    first, again = gc.add_noise(1.0, 0.5, 1), gc.add_noise(1.0, 0.5, 1)
    assert first == again
    assert hash(first) == hash(again)
    assert first != gc.add_noise(1.0, 0.5, 2)
    assert repr(first) == "add_noise(eta=1.0, gamma=0.5, key=1)"
