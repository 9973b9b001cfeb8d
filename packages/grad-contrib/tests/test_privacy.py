"""Private aggregation against its equation; and the suite, with gradients of two examples."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import (
    DifferentiallyPrivateAggregateState,
    differentially_private_aggregate,
    dpsgd,
)
from grad_core import (
    Decay,
    GradientTransformation,
    LearningRate,
    MaskedNode,
    NonNegative,
    TreeRule,
    chain,
    example,
    exempt,
    rule,
    transformation,
)
from grad_testing import TransformationSuite

RNG = np.random.default_rng(0)


@rule
def of_two_examples() -> TreeRule:
    """Makes gradients of two examples of each update."""

    def examples(g):
        return g if g.dtype == jax.dtypes.float0 else jnp.stack([g, 2 * g])

    return TreeRule(lambda updates, state, params: (jax.tree.map(examples, updates), state))


@exempt("agrees_with_float32[float64]", reason="the generator gives other numbers")
@example(0.01, 1.0, 0.1, key=0)
@transformation
def private_descent(
    learning_rate: LearningRate,
    l2_norm_clip: NonNegative,
    noise_multiplier: NonNegative,
    key: int,
    momentum: Decay | None = 0.5,
) -> GradientTransformation:
    """`dpsgd` of such gradients."""
    descent = dpsgd(learning_rate, l2_norm_clip, noise_multiplier, key, momentum)
    return chain(of_two_examples(), descent)


class TestPrivateDescent(TransformationSuite):
    @pytest.fixture
    def factory(self):
        return private_descent


def test_without_noise_it_is_the_mean_of_clipped_gradients():
    grads = {"a": RNG.normal(size=(5, 2, 3)), "b": [RNG.normal(size=(5,)), None]}
    norms = np.sqrt(np.sum(grads["a"] ** 2, axis=(1, 2)) + grads["b"][0] ** 2)
    for clip in (0.0, 2.0, np.median(norms), 1e9):
        factor = np.minimum(1, clip / norms)
        expected = {
            "a": np.mean(grads["a"] * factor[:, None, None], axis=0),
            "b": [np.mean(grads["b"][0] * factor), None],
        }
        tx = differentially_private_aggregate(clip, 0.0, key=0)
        given = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)
        updates, _ = tx.update(given, tx.init(expected))
        jax.tree.map(
            lambda u, e: np.testing.assert_allclose(u, e, rtol=1e-5, atol=1e-7), updates, expected
        )


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_the_noise(dtype):
    """Of each real number, its deviation is sigma C / B, and no two are alike."""
    clip, multiplier, size, number = 3.0, 0.7, 4, 40_000
    tx = differentially_private_aggregate(clip, multiplier, key=jax.random.key(5))
    grads = {"a": jnp.zeros((size, number), dtype), "b": jnp.zeros((size, number), dtype)}
    draws, state = [], tx.init(jnp.zeros([]))
    for _ in range(2):
        updates, state = tx.update(grads, state)
        draws += [
            u for x in updates.values() for u in {id(y): y for y in (x.real, x.imag)}.values()
        ]
    draws = np.array([u for u in draws if np.any(u)])
    assert len(draws) == (8 if dtype == "complex64" else 4)
    deviation = multiplier * clip / size
    covariance = draws @ draws.T / number
    expected = deviation**2 * np.eye(len(draws))
    np.testing.assert_allclose(covariance, expected, atol=0.03 * deviation**2)


def test_it_is_drawn_as_in_the_released_library():
    """A key for each leaf, in their order, after that of the next update."""
    tx = differentially_private_aggregate(1.0, 1.0, key=7)
    next_key, *keys = jax.random.split(jax.random.key(7), 3)
    grads = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((2, 2, 2)), "none": None, "m": MaskedNode()}
    updates, state = tx.update(grads, tx.init(grads))
    assert type(state) is DifferentiallyPrivateAggregateState
    assert state.rng_key == next_key
    for key, name in zip(keys, "ab", strict=True):
        noise = jax.random.normal(key, grads[name].shape[1:])
        np.testing.assert_allclose(updates[name], noise / 2, rtol=1e-6)
    assert (updates["none"], updates["m"]) == (None, MaskedNode())


def test_keys_of_every_kind():
    expected = jax.random.key_data(jax.random.key(11))
    for key in (11, np.int32(11), jnp.asarray(11), jax.random.key(11), jax.random.PRNGKey(11)):
        state = dpsgd(0.1, 1.0, 1.0, key).init(jnp.zeros(2))[0]
        np.testing.assert_array_equal(jax.random.key_data(state.rng_key), expected)
    other = jax.random.key(11, impl="rbg")
    assert dpsgd(0.1, 1.0, 1.0, other).init(jnp.zeros(2))[0].rng_key == other
    with pytest.warns(DeprecationWarning, match="seed is deprecated; call it key"):
        old = differentially_private_aggregate(1.0, 1.0, seed=11)
    np.testing.assert_array_equal(jax.random.key_data(old.init(1.0).rng_key), expected)
    with pytest.warns(UserWarning, match="without a key, the noise is that of key=0"):
        differentially_private_aggregate(1.0, 1.0)


def test_dpsgd_is_descent_by_the_aggregate():
    grads = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    aggregate, plain = differentially_private_aggregate(1.0, 0.5, 3), dpsgd(0.1, 1.0, 0.5, 3)
    heavy = dpsgd(lambda count: 0.1 / (1 + count), 1.0, 0.5, 3, momentum=0.9, nesterov=True)
    states = [tx.init(jnp.zeros(4)) for tx in (aggregate, plain, heavy)]
    assert [len(state) for state in states[1:]] == [3, 3]
    trace = 0.0
    for t in range(3):
        g, states[0] = aggregate.update(grads, states[0])
        u, states[1] = plain.update(grads, states[1])
        np.testing.assert_allclose(u, -0.1 * g, rtol=1e-6)
        trace = g + 0.9 * trace
        u, states[2] = heavy.update(grads, states[2])
        np.testing.assert_allclose(u, -0.1 / (1 + t) * (g + 0.9 * trace), rtol=1e-5, atol=1e-7)


def test_bad_input():
    tx = differentially_private_aggregate(1.0, 1.0, key=0)
    state = tx.init(jnp.zeros(2))
    texts = {
        "updates['w'] has shape (); updates must be gradients of single examples": jnp.zeros(()),
        "updates['w'] has shape (0, 2); updates must": jnp.zeros((0, 2)),
        "updates['w'] has 3 examples, but updates['b'] has 2": jnp.zeros((3, 2)),
        "updates['w'] is int32, but only floating-point": jnp.zeros((2, 2), jnp.int32),
    }
    for text, w in texts.items():
        text = re.escape(f"differentially_private_aggregate: {text}")
        for update in (tx.update, jax.jit(tx.update)):
            with pytest.raises((ValueError, TypeError), match=text):
                update({"b": jnp.zeros((2, 3)), "w": w}, state)
    name = "differentially_private_aggregate"
    refused = {
        "l2_norm_clip": {-1.0: "must be >= 0; got -1.0"},
        "noise_multiplier": {-0.1: "must be >= 0; got -0.1"},
        "key": {"nought": "must be a random key or an integer; got 'nought'"},
    }
    for argument, cases in refused.items():
        for value, text in cases.items():
            arguments = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0, "key": 0, argument: value}
            with pytest.raises((ValueError, TypeError), match=re.escape(f"{argument} {text}")):
                differentially_private_aggregate(**arguments)
            with pytest.raises((ValueError, TypeError), match=re.escape(f"{argument} {text}")):
                dpsgd(0.1, **arguments)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=f"^{name}: give key or seed"):
        differentially_private_aggregate(1.0, 1.0, 1, seed=2)
