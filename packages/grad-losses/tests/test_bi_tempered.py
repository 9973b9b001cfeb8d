"""The bi-tempered loss against its definition, with the normalizer from scipy's root finder."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

from grad_losses import bi_tempered_loss, softmax_cross_entropy_with_integer_labels

INF = np.inf
RNG = np.random.default_rng(0)
LOGITS = (2 * RNG.normal(size=(5, 4))).astype(np.float32)
LABELS = RNG.integers(4, size=5)
TEMPERATURES = [
    (0.8, 1.2),
    (0.2, 4.0),
    (0.0, 2.0),
    (1.0, 1.0),
    (1.0, 1.5),
    (0.5, 1.0),
    (0.9, 1.001),
]

loss = jax.jit(bi_tempered_loss, static_argnames="axis")
slopes = jax.jit(
    jax.vmap(
        jax.value_and_grad(lambda z, y, t1, t2: bi_tempered_loss(z, y, t1=t1, t2=t2)),
        (0, 0, None, None),
    )
)


def log_t(x, t):
    return np.log(x) if t == 1 else (x ** (1 - t) - 1) / (1 - t)


def exp_t(x, t):
    return np.exp(x) if t == 1 else (1 + (1 - t) * x) ** (1 / (1 - t))


def probabilities(z, t):
    z = z.astype(np.float64) - z.max()
    largest = log_t(len(z), 2 - t)  # the shift of equal scores
    shift = brentq(lambda s: exp_t(z - s, t).sum() - 1, 0, largest + 1e-9, xtol=1e-14, rtol=1e-14)
    return exp_t(z - shift, t)


def exact(z, y, t1, t2):
    p = probabilities(z, t2)
    return -log_t(p[y], t1) - (1 - (p ** (2 - t1)).sum()) / (2 - t1)


@pytest.mark.parametrize(("t1", "t2"), TEMPERATURES)
def test_values_and_gradients(t1, t2):
    want = [exact(z, y, t1, t2) for z, y in zip(LOGITS, LABELS, strict=True)]
    value, slope = slopes(LOGITS, LABELS, t1, t2)
    np.testing.assert_allclose(value, want, rtol=2e-5, atol=2e-6)
    # In closed form, with the escort distribution q of p^t2, the derivatives of the normalizer.
    for z, y, got in zip(LOGITS, LABELS, slope, strict=True):
        p = probabilities(z, t2)
        q = p**t2 / (p**t2).sum()
        pull = (p - np.eye(4)[y]) * p ** (t2 - t1)
        np.testing.assert_allclose(got, pull - q * pull.sum(), rtol=1e-4, atol=2e-6)


def test_it_contains_the_cross_entropy():
    want = softmax_cross_entropy_with_integer_labels(LOGITS, LABELS)
    np.testing.assert_allclose(loss(LOGITS, LABELS, t1=1.0, t2=1.0), want, rtol=1e-5)


def test_second_derivatives():
    f = lambda z, t1, t2: bi_tempered_loss(z, 2, t1=t1, t2=t2)  # noqa: E731
    z, h = LOGITS[0].astype(np.float64), 1e-5
    with jax.enable_x64(True):
        gradient, hessian = jax.jit(jax.grad(f)), jax.jit(jax.hessian(f))
        for t in ((1.0, 1.0), (0.3, 2.5)):
            moved = [(gradient(z + e, *t) - gradient(z - e, *t)) / (2 * h) for e in h * np.eye(4)]
            np.testing.assert_allclose(hessian(z, *t), moved, rtol=1e-6, atol=1e-8)


def test_extremes():
    z = np.array(
        [[-1e30, 0, 0, 0], [-INF, 0, 0, 0], [0, -INF, -INF, -INF], [INF, 0, 0, 0]], np.float32
    )
    for t1, t2 in TEMPERATURES[:2]:
        value, slope = slopes(z, np.zeros(4, int), t1, t2)
        third = (1 / 3) ** (1 - t1)  # of the sum of p^(2 - t1) over three equal classes
        bound = 1 / (1 - t1) - (1 - third) / (2 - t1)
        np.testing.assert_allclose(value, [bound, bound, 0, 0], rtol=1e-5, atol=1e-6)
        assert np.isfinite(slope).all()
    large = loss(np.array([[1e4, -1e4, 0.0, 5e3]], np.float32), [0], t1=0.5, t2=10.0)
    np.testing.assert_allclose(large, exact(np.array([1e4, -1e4, 0, 5e3]), 0, 0.5, 10.0), rtol=1e-4)


def test_axes_and_classes_that_take_no_part():
    mask = np.array([True, True, False, True])
    labels = np.array([0, 1, 1, 0, 1])
    hidden = np.where(mask, LOGITS, np.nan)
    total = jax.jit(jax.value_and_grad(lambda z, m: loss(z, labels, where=m).sum()))
    value, slope = total(hidden, mask)
    np.testing.assert_allclose(value, loss(LOGITS[:, mask], labels).sum(), rtol=1e-5)
    np.testing.assert_array_equal(slope[:, ~mask], 0)
    assert np.isfinite(slope).all()
    assert total(LOGITS, np.zeros(4, bool))[0] == 0
    assert jax.value_and_grad(lambda z: loss(z, LABELS).sum())(LOGITS[:, :0])[0] == 0
    np.testing.assert_allclose(loss(LOGITS.T, LABELS, axis=0), loss(LOGITS, LABELS), rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"t1": 1.5}, r"bi_tempered_loss: t1 must be in \[0, 1\]; got 1.5"),
        ({"t2": 0.5}, "bi_tempered_loss: t2 must be >= 1; got 0.5"),
        ({"axis": 2}, "bi_tempered_loss: axis must be"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        bi_tempered_loss(LOGITS, LABELS, **arguments)
