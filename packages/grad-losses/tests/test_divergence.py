"""Divergences against scipy, their derivatives against closed forms, and impossible outcomes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from grad_losses import (
    convex_kl_divergence,
    generalized_kl_divergence,
    kl_divergence,
    kl_divergence_with_log_targets,
)

INF = jnp.inf
RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(6), size=(2, 4)).astype(np.float32)
LOG_P, LOG_Q = np.log(P), np.log(Q)
DENSITIES = (RNG.random(size=(4, 6)) * 3).astype(np.float32)
MASK = RNG.random(size=(4, 6)) < 0.6

Loss = Callable[..., jax.Array]


def with_log_targets(
    log_predictions: jax.Array, targets: jax.Array, *args: object, **kwargs: object
) -> jax.Array:
    """`kl_divergence_with_log_targets`, called like the others."""
    return kl_divergence_with_log_targets(log_predictions, jnp.log(targets), *args, **kwargs)


PLAIN: list[Loss] = [kl_divergence, with_log_targets]
GENERALIZED: list[Loss] = [generalized_kl_divergence, convex_kl_divergence]


@functools.partial(jax.jit, static_argnums=(0, 3))
def value_of(loss: Loss, log_q: jax.Array, p: jax.Array, axis: object = -1) -> jax.Array:
    return loss(log_q, p, axis=axis)


@pytest.mark.parametrize("axis", [-1, 0, (0, 1), None])
def test_against_scipy(axis: int | tuple[int, ...] | None) -> None:
    p, q = P.astype(np.float64), np.exp(LOG_Q.astype(np.float64))
    want = scipy.special.rel_entr(p, q).sum(axis)
    for loss in PLAIN:
        np.testing.assert_allclose(value_of(loss, LOG_Q, P, axis), want, rtol=2e-6)
    want = scipy.special.kl_div(DENSITIES, q).sum(axis)
    got = value_of(generalized_kl_divergence, LOG_Q, DENSITIES, axis)
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_one_divergence_generalizes_the_other() -> None:
    for loss in GENERALIZED:
        want = value_of(kl_divergence, LOG_Q, P)
        np.testing.assert_allclose(value_of(loss, LOG_Q, P), want, rtol=1e-5)
        found = value_of(loss, np.log(DENSITIES), DENSITIES)
        np.testing.assert_allclose(found, 0, atol=1e-6)


@pytest.mark.parametrize("loss", [*PLAIN, *GENERALIZED])
def test_first_derivatives(loss: Loss) -> None:
    gradients = jax.jit(jax.grad(lambda q, p: loss(q, p).sum(), (0, 1)))
    by_predictions, by_targets = gradients(LOG_Q, P)
    extra = loss in GENERALIZED
    np.testing.assert_allclose(by_predictions, -P + extra * Q, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(by_targets, LOG_P - LOG_Q + (not extra), rtol=1e-5, atol=1e-6)


# Predictions, targets, divergence, generalized divergence, gradients of both by log predictions.
LIMITS = [
    ([0.5, 0.5, 0.0], [0.5, 0.5, 0.0], 0, 0, [-0.5, -0.5, 0], [0, 0, 0]),
    ([0.5, 0.5, 0.0], [1.0, 0.0, 0.0], np.log(2), np.log(2), [-1, 0, 0], [-0.5, 0.5, 0]),
    ([0.5, 0.25, 0.25], [0.0, 0.0, 0.0], 0, 1, [0, 0, 0], [0.5, 0.25, 0.25]),
    ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], 0, 0, [0, 0, 0], [0, 0, 0]),
    ([1.0, 0.0, 0.0], [0.5, 0.5, 0.0], INF, INF, [-0.5, -0.5, 0], [0.5, -0.5, 0]),
    ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], 0, 0, [-1, 0, 0], [0, 0, 0]),
]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_impossible_outcomes(dtype: jax.typing.DTypeLike) -> None:
    predictions, targets, plain, generalized, slopes, more_slopes = map(
        jnp.array, zip(*LIMITS, strict=True)
    )
    eps = float(jnp.finfo(dtype).eps)

    @jax.jit
    def values_and_slopes(log_q: jax.Array, p: jax.Array) -> list[tuple[jax.Array, ...]]:
        found = []
        for loss in (kl_divergence, generalized_kl_divergence):
            value, pull = jax.vjp(loss, log_q, p)
            found.append((value, *pull(jnp.ones_like(value))))
        value, pull = jax.vjp(kl_divergence_with_log_targets, log_q, jnp.log(p))
        return [*found, (value, *pull(jnp.ones_like(value)))]

    got = values_and_slopes(jnp.log(predictions).astype(dtype), targets.astype(dtype))
    wanted = ((plain, slopes), (generalized, more_slopes), (plain, slopes))
    for (value, by_predictions, by_targets), (want, slope) in zip(got, wanted, strict=True):
        assert value.dtype == by_predictions.dtype == by_targets.dtype == dtype
        np.testing.assert_allclose(value.astype(float), want, rtol=eps, atol=eps)
        np.testing.assert_allclose(by_predictions.astype(float), slope, rtol=eps, atol=eps)
        assert jnp.isfinite(by_targets[jnp.isfinite(want)]).all()


def test_gradients_by_log_targets_where_outcomes_are_impossible() -> None:
    log_p = jnp.array([[0.0, -INF], [-INF, -INF]])
    log_q = jnp.array([[-1.0, -INF], [-INF, -1.0]])
    value, pull = jax.vjp(kl_divergence_with_log_targets, log_q, log_p)
    np.testing.assert_array_equal(value, [1, 0])
    by_predictions, by_targets = pull(jnp.ones(2))
    np.testing.assert_array_equal(by_predictions, [[-1, 0], [0, 0]])
    np.testing.assert_array_equal(by_targets, [[2, 0], [0, 0]])


@functools.partial(jax.jit, static_argnums=0)
def values_and_gradients(
    loss: Loss, log_q: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    value, pull = jax.vjp(lambda q, t: loss(q, t, where=mask), log_q, targets)
    return value, pull(jnp.ones_like(value))


@pytest.mark.parametrize("hidden", [0.0, -INF, INF, jnp.nan, 1e38])
def test_what_where_leaves_out_does_not_matter(hidden: float) -> None:
    mask = jnp.asarray(MASK).at[3].set(False)
    log_q, p = jnp.where(mask, LOG_Q, hidden), jnp.where(mask, P, hidden)
    log_p = jnp.where(mask, LOG_P, hidden)
    for loss, targets in (
        (kl_divergence, p),
        (kl_divergence_with_log_targets, log_p),
        (generalized_kl_divergence, p),
    ):
        value, (by_predictions, by_targets) = values_and_gradients(loss, log_q, targets, mask)
        for slope in (by_predictions, by_targets):
            np.testing.assert_array_equal(slope[~mask], 0)
            assert jnp.isfinite(slope).all()
        assert value[3] == 0
        row = np.flatnonzero(MASK[0])
        kept_q, kept_p = np.exp(LOG_Q[0, row]), P[0, row]
        entropy = (
            scipy.special.kl_div if loss is generalized_kl_divergence else scipy.special.rel_entr
        )
        np.testing.assert_allclose(value[0], entropy(kept_p, kept_q).sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(jnp.arange(3), jnp.ones(3)), TypeError, "log_predictions must be .* int32"),
        (lambda f: f(LOG_Q, 1j * P), TypeError, "targets must be real; got complex64"),
        (lambda f: f(LOG_Q, P[:2]), ValueError, r"\(4, 6\) and (log_)?targets of shape \(2, 6\)"),
        (lambda f: f(LOG_Q, P, axis=2), ValueError, r"axis must be .* \(4, 6\); got 2"),
        (lambda f: f(LOG_Q, P, where=P), ValueError, "where must be boolean; got float32"),
        (lambda f: f(LOG_Q, P, where=MASK[:3]), ValueError, r"where of shape \(3, 6\)"),
    ],
)
def test_errors(call: Callable[[Loss], object], kind: type[Exception], message: str) -> None:
    for loss in (kl_divergence, kl_divergence_with_log_targets, *GENERALIZED):
        with pytest.raises(kind, match=f"{loss.__name__}: .*{message}"):
            call(loss)
