"""Focal, asymmetric, LDAM and generalised cross entropies: equations, special cases, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import (
    asymmetric_loss,
    generalized_cross_entropy_loss,
    ldam_loss,
    sigmoid_binary_cross_entropy,
    sigmoid_focal_loss,
    softmax_cross_entropy_with_integer_labels,
    softmax_focal_loss,
)

focal = jax.jit(softmax_focal_loss, static_argnames="axis")
generalized = jax.jit(generalized_cross_entropy_loss, static_argnames="axis")
asymmetric = jax.jit(asymmetric_loss)
ldam = jax.jit(ldam_loss)

INF = np.inf
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(5, 4))).astype(np.float32)
LABELS = RNG.integers(4, size=5)
INDICATORS = RNG.integers(2, size=(5, 4))
WEIGHTS = np.array([0.5, 1.0, 2.0, 0.0], np.float32)


def probabilities(logits):
    e = np.exp(logits.astype(np.float64))
    return e / e.sum(-1, keepdims=True)


P = probabilities(LOGITS)[np.arange(5), LABELS]  # of the labels


def derivatives(loss):
    """The compiled value, gradient and Hessian of a loss of one example, over several."""
    return jax.jit(
        jax.vmap(
            lambda z, y, x: (jax.grad(loss)(z, y, x), jax.hessian(loss)(z, y, x)), (0, 0, None)
        )
    )


focal_derivatives = derivatives(lambda z, y, gamma: softmax_focal_loss(z, y, gamma=gamma))
generalized_derivatives = derivatives(lambda z, y, q: generalized_cross_entropy_loss(z, y, q=q))
by_q = jax.jit(
    jax.vmap(jax.grad(lambda q, z, y: generalized_cross_entropy_loss(z, y, q=q)), (None, 0, 0))
)


def by_logits(first, second, p, labels):
    """Gradient and Hessian by logits, from derivatives of a function of the label's log p."""
    step = np.eye(p.shape[-1])[labels] - p
    outer = step[:, :, None] * step[:, None]
    softmax = p[:, :, None] * np.eye(p.shape[-1]) - p[:, :, None] * p[:, None]
    return first[:, None] * step, second[:, None, None] * outer - first[:, None, None] * softmax


# Focal.


def test_softmax_focal():
    want = -((1 - P) ** 2) * np.log(P)
    np.testing.assert_allclose(focal(LOGITS, LABELS), want, rtol=1e-5)
    got = focal(LOGITS, LABELS, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, WEIGHTS[LABELS] * want, rtol=1e-5)
    got = focal(LOGITS.T, LABELS - 4, axis=0, gamma=0.5)
    np.testing.assert_allclose(got, -np.sqrt(1 - P) * np.log(P), rtol=1e-5)
    got = focal(LOGITS, LABELS, gamma=0.0)
    np.testing.assert_allclose(got, softmax_cross_entropy_with_integer_labels(LOGITS, LABELS))


def test_softmax_focal_of_two_classes_is_the_sigmoid_one():
    z = np.array([-30, -3, 0, 0.5, 5], np.float32)
    for gamma in (0.0, 0.5, 1.0, 2.0):
        got = focal(np.stack([0 * z, z], -1), np.ones(5, int), gamma=gamma)
        want = sigmoid_focal_loss(z, np.ones(5), gamma=gamma)
        np.testing.assert_allclose(got, want, rtol=2e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_derivatives_of_softmax_focal(gamma):
    # By log p, of -(1 - p)^gamma log p.
    log_p, q = np.log(P), 1 - P
    first = -(q**gamma) + gamma * P * q ** (gamma - 1) * log_p
    second = gamma * P * q ** (gamma - 2) * (2 * q + (1 - gamma * P) * log_p)
    want = by_logits(first, second, probabilities(LOGITS), LABELS)
    got = focal_derivatives(LOGITS, LABELS, gamma)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-5)


def test_certain_predictions():
    z = jnp.array([[0.0, -INF, -INF], [-INF, 0.0, 1.0], [200.0, 0.0, 0.0], [INF, 0.0, 0.0]])
    y = jnp.array([0, 0, 0, 1])
    for gamma in (0.0, 0.5, 2.0):
        value, slope = jax.jit(
            jax.vmap(jax.value_and_grad(lambda z, y, g=gamma: focal(z, y, gamma=g)))
        )(z, y)
        np.testing.assert_array_equal(value, [0, INF, 0, INF])
        np.testing.assert_array_equal(slope[0], 0)
        np.testing.assert_array_equal(slope[2], 0)
        np.testing.assert_allclose(slope[1], [-1, 0.26894143, 0.7310586], rtol=1e-6)


# Asymmetric.

asymmetric_slopes = jax.jit(
    jax.vmap(jax.value_and_grad(lambda z, y, a: asymmetric_loss(z, y, **a)), (0, None, None))
)


def test_asymmetric():
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    for positive, negative, margin in ((0.0, 4.0, 0.05), (1.0, 2.5, 0.3), (0.0, 0.0, 0.0)):
        shifted = np.maximum(0, p - margin)
        yes = -((1 - p) ** positive) * np.log(p)
        no = -(shifted**negative) * np.log(1 - shifted)
        arguments = {"gamma_positive": positive, "gamma_negative": negative, "margin": margin}
        for labels in (INDICATORS, np.full_like(LOGITS, 0.3)):
            want = labels * yes + (1 - labels) * no
            got = asymmetric(LOGITS, labels, **arguments)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)


def test_symmetric_asymmetric_losses():
    none = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}
    both = {"gamma_positive": 2.0, "gamma_negative": 2.0, "margin": 0.0}
    z = np.array([-INF, -50.0, -3.0, 0.0, 2.0, 50.0, INF], np.float32)
    for label in (0.0, 1.0):
        for arguments, same in ((none, sigmoid_binary_cross_entropy), (both, sigmoid_focal_loss)):
            got, slope = asymmetric_slopes(z, label, arguments)
            want, want_slope = jax.jit(jax.vmap(jax.value_and_grad(same), (0, None)))(z, label)
            np.testing.assert_allclose(got, want, rtol=2e-6)
            np.testing.assert_allclose(slope, want_slope, rtol=1e-5)


def test_easy_negatives_cost_nothing():
    usual = {"gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05}
    z = np.array([-4.0, -INF, 90.0, INF, 9.0, 9.0, 9.0], np.float32)
    value, slope = (x[:4] for x in asymmetric_slopes(z, 0.0, usual))
    np.testing.assert_array_equal(value[:2], 0)
    np.testing.assert_array_equal(slope[:2], 0)
    # The margin bounds what wrong labels can cost, too.
    np.testing.assert_allclose(value[2:], -(0.95**4) * np.log(0.05), rtol=1e-6)
    np.testing.assert_allclose(slope[2:], 0, atol=1e-30)


# LDAM.


def test_ldam():
    counts = np.array([1600, 100, 25, 6.25])
    margins = 0.5 * np.array([0.25, 0.5, 2**-0.5, 1])
    penalized = 30 * (LOGITS - np.eye(4)[LABELS] * margins)
    want = -np.log(probabilities(penalized)[np.arange(5), LABELS])
    np.testing.assert_allclose(ldam(LOGITS, LABELS, counts), want, rtol=1e-5, atol=1e-5)
    got = ldam(LOGITS, LABELS, counts, class_weights=WEIGHTS)
    np.testing.assert_allclose(got, WEIGHTS[LABELS] * want, rtol=1e-5, atol=1e-5)
    got = ldam(LOGITS, LABELS, counts, max_margin=0.0, scale=1.0)
    np.testing.assert_allclose(got, -np.log(P), rtol=1e-5)


# Generalised cross entropy.


def test_generalized_cross_entropy():
    for q in (0.2, 0.7, 1.0):
        got = generalized(LOGITS, LABELS, q=q)
        np.testing.assert_allclose(got, (1 - P**q) / q, rtol=1e-5)
    for q in (0.0, 1e-9):
        got = generalized(LOGITS, LABELS, q=q)
        np.testing.assert_allclose(got, -np.log(P), rtol=1e-5)
    got = generalized(LOGITS.T, LABELS, axis=0)
    np.testing.assert_allclose(got, generalized(LOGITS, LABELS))


@pytest.mark.parametrize("q", [0.0, 1e-4, 0.7, 1.0])
def test_derivatives_of_generalized_cross_entropy(q):
    # By log p: -p^q, and -q p^q.
    want = by_logits(-(P**q), -q * P**q, probabilities(LOGITS), LABELS)
    got = generalized_derivatives(LOGITS, LABELS, q)
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-5, atol=1e-6)
    # By q: (p^q (1 - q log p) - 1) / q^2, and log(p)^2 / -2 where q is 0.
    log_p = np.log(P)
    series = -(log_p**2) / 2 - q * log_p**3 / 3
    slope = (P**q * (1 - q * log_p) - 1) / q**2 if q > 1e-3 else series
    np.testing.assert_allclose(by_q(q, LOGITS, LABELS), slope, rtol=1e-4)


def test_generalized_cross_entropy_is_bounded():
    z = jnp.array([[-INF, 0.0], [-1e4, 0.0], [0.0, -INF]])
    y = jnp.zeros(3, int)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(generalized_cross_entropy_loss)))(z, y)
    np.testing.assert_allclose(value, [1 / 0.7, 1 / 0.7, 0], rtol=1e-6)
    np.testing.assert_array_equal(slope, 0)
    entropy = generalized(z, y, q=0.0)
    np.testing.assert_array_equal(entropy, [INF, 1e4, 0])


# All.


@pytest.mark.parametrize("loss", [focal, generalized])
def test_where_is_the_same_as_fewer_classes(loss):
    mask = np.array([True, True, False, True])
    labels = np.array([0, 1, 1, 0, 1])
    hidden = np.where(mask, LOGITS, np.nan)
    f = jax.jit(jax.value_and_grad(lambda z: loss(z, labels, where=mask).sum()))
    value, slope = f(hidden)
    np.testing.assert_allclose(value, loss(LOGITS[:, mask], labels).sum(), rtol=1e-6)
    np.testing.assert_array_equal(slope[:, ~mask], 0)
    assert jnp.isfinite(slope).all()
    np.testing.assert_array_equal(loss(LOGITS, LABELS, where=np.zeros(4, bool)), 0)


def test_labels_that_are_no_class_give_nan():
    counts = np.ones(4)
    for loss in (focal, generalized):
        np.testing.assert_array_equal(np.isnan(loss(LOGITS[:3], [4, -1, -5])), [True, False, True])
    got = ldam(LOGITS[:3], [4, -1, -5], counts)
    np.testing.assert_array_equal(np.isnan(got), [True, False, True])


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: softmax_focal_loss(LOGITS, LABELS, gamma=-1.0), ValueError, "gamma must be >= 0"),
        (lambda: softmax_focal_loss(LOGITS, LOGITS), TypeError, "labels must be of an integer"),
        (lambda: softmax_focal_loss(LOGITS, LABELS, axis=2), ValueError, "axis .* got 2"),
        (
            lambda: softmax_focal_loss(LOGITS, LABELS, class_weights=np.ones(5)),
            ValueError,
            r"softmax_focal_loss: class_weights of shape \(5,\) must have one value per class",
        ),
        (lambda: asymmetric_loss(LOGITS, LABELS), ValueError, r"logits .* and labels .* \(5,\)"),
        (lambda: asymmetric_loss(LOGITS, 1, margin=2.0), ValueError, r"margin must be in \[0, 1\]"),
        (lambda: ldam_loss(LOGITS, LABELS, np.ones(3)), ValueError, "ldam_loss: class_counts of"),
        (lambda: ldam_loss(LOGITS, LABELS, WEIGHTS, scale=0), ValueError, "scale must be > 0"),
        (
            lambda: generalized_cross_entropy_loss(LOGITS, LABELS, q=1.5),
            ValueError,
            r"generalized_cross_entropy_loss: q must be in \[0, 1\]; got 1.5",
        ),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
