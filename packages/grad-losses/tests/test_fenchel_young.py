"""Fenchel-Young losses: those they are, their gradients, further arguments, errors."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import (
    make_fenchel_young_loss,
    multiclass_perceptron_loss,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(4, 5)).astype(np.float32)
CLASSES = np.array([3, 0, 4, 2])
ONE_HOT = np.eye(5, dtype=np.float32)[CLASSES]
SOFT = RNG.dirichlet(np.ones(5), size=4).astype(np.float32)

cross_entropy = jax.jit(make_fenchel_young_loss(jax.nn.logsumexp))


def test_those_that_have_names() -> None:
    for targets in (ONE_HOT, SOFT):
        want = jax.jit(softmax_cross_entropy)(SCORES, targets)
        np.testing.assert_allclose(cross_entropy(SCORES, targets), want, rtol=1e-5)
    got = jax.jit(make_fenchel_young_loss(jnp.max))(SCORES, ONE_HOT)
    want = jax.jit(multiclass_perceptron_loss)(SCORES, CLASSES)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_gradient_is_prediction_less_target() -> None:
    slope = jax.grad(lambda s: cross_entropy(s, SOFT).sum())(SCORES)
    np.testing.assert_allclose(slope, jax.nn.softmax(SCORES) - SOFT, atol=1e-6)


def test_further_arguments_are_passed_on_whole() -> None:
    def shifted(scores: jax.Array, shift: jax.Array, *, mode: str, scale: float = 1.0) -> jax.Array:
        assert scores.shape == shift.shape == (5,)
        assert scores.dtype == jnp.float32
        return scale * {"max": jnp.max, "sum": jnp.sum}[mode](scores + shift)

    loss = make_fenchel_young_loss(shifted)
    shift = np.arange(5, dtype=np.float32)
    got = loss(SCORES.astype(jnp.bfloat16), SOFT.astype(jnp.bfloat16), shift, mode="max", scale=2.0)
    assert got.dtype == jnp.bfloat16
    want = 2 * (SCORES + shift).max(-1) - (SCORES * SOFT).sum(-1)
    np.testing.assert_allclose(got.astype(float), want, rtol=2e-2)


def test_perturbed_maximum() -> None:
    # Of Gumbel noise the expected maximum is logsumexp plus Euler's constant.
    def perturbed(scores: jax.Array, key: jax.Array) -> jax.Array:
        noise = jax.random.gumbel(key, (20_000, scores.size))
        return jnp.mean(jnp.max(scores + noise, -1)) - np.euler_gamma

    got = jax.jit(make_fenchel_young_loss(perturbed))(SCORES, SOFT, jax.random.key(0))
    np.testing.assert_allclose(got, cross_entropy(SCORES, SOFT), atol=0.05)


def test_shapes() -> None:
    whole = cross_entropy(SCORES.reshape(2, 2, 5), SOFT.reshape(2, 2, 5))
    np.testing.assert_allclose(whole.ravel(), cross_entropy(SCORES, SOFT), rtol=1e-6)
    np.testing.assert_allclose(cross_entropy(SCORES, SOFT[0])[0], whole[0, 0], rtol=1e-6)
    impossible = cross_entropy(np.array([0.0, -np.inf], np.float32), np.array([1.0, 0.0]))
    assert impossible == 0


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: make_fenchel_young_loss(3), TypeError, "max_fun must be callable; got 3"),
        (lambda: cross_entropy(CLASSES, CLASSES), TypeError, "scores must be .* int"),
        (lambda: cross_entropy(SCORES, SOFT * 1j), TypeError, "targets must be real"),
        (lambda: cross_entropy(SCORES, SOFT[:3]), ValueError, r"targets of shape \(3, 5\)"),
        (lambda: cross_entropy(1.0, 1.0), ValueError, "axis of classes"),
        (
            lambda: make_fenchel_young_loss(jnp.exp)(SCORES, SOFT),
            ValueError,
            r"must return a number for scores of shape \(5,\); got an array of shape \(5,\)",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"fenchel_young_loss: .*{message}"):
        call()
