"""The focal loss against float64, its limits, and where easy examples underflow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import sigmoid_binary_cross_entropy, sigmoid_focal_loss

INF = jnp.inf
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(3, 16))).astype(np.float32)
LABELS = np.stack([RNG.random(16), np.arange(16) % 2, np.arange(16) // 8]).astype(np.float32)

focal = jax.jit(sigmoid_focal_loss)


@jax.jit
def value_and_slopes(
    z: jax.Array, y: jax.Array, gamma: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    value, pull = jax.vjp(lambda z, y: sigmoid_focal_loss(z, y, gamma=gamma), z, y)
    return value, pull(jnp.ones_like(value))


def exact(z: np.ndarray, y: np.ndarray, gamma: float) -> tuple[np.ndarray, ...]:
    """The loss, and its derivatives by logits and labels, in float64."""
    z, y = z.astype(np.float64), y.astype(np.float64)
    yes, no = 1 / (1 + np.exp(-z)), 1 / (1 + np.exp(z))
    error = y * no + (1 - y) * yes
    cost = y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z)
    focus, steeper = error**gamma, gamma * error ** (gamma - 1)
    by_logits = focus * (yes - y) + steeper * (1 - 2 * y) * yes * no * cost
    by_labels = focus * -z + steeper * (no - yes) * cost
    return focus * cost, by_logits, by_labels


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.7])
def test_values_and_gradients(gamma: float) -> None:
    value, slopes = value_and_slopes(LOGITS, LABELS, gamma)
    for got, want in zip((value, *slopes), exact(LOGITS, LABELS, gamma), strict=True):
        np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


def test_alpha_weighs_yes_and_no() -> None:
    plain = focal(LOGITS, LABELS)
    for alpha in (0.0, 0.3, 1.0):
        want = plain * (alpha * LABELS + (1 - alpha) * (1 - LABELS))
        np.testing.assert_allclose(focal(LOGITS, LABELS, alpha=alpha), want, rtol=1e-6)
    by_array = focal(LOGITS, LABELS, alpha=jnp.array([[0.0], [0.3], [1.0]]))
    np.testing.assert_allclose(by_array[1], focal(LOGITS[1], LABELS[1], alpha=0.3), rtol=1e-6)


def test_gamma_zero_is_the_cross_entropy() -> None:
    want = sigmoid_binary_cross_entropy(LOGITS, LABELS)
    np.testing.assert_allclose(focal(LOGITS, LABELS, gamma=0.0), want, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 2.0])
def test_extreme_logits(gamma: float) -> None:
    z = np.array([-INF, -1e4, -100.0, 0.0, 20.0, 40.0, 100.0, 1e4, INF], np.float32)
    for sign, y in ((1, 1.0), (-1, 0.0)):
        value, (slope, by_labels) = value_and_slopes(sign * z, np.full(9, y, np.float32), gamma)
        # Wrong and sure, it is the cross entropy; right and sure, exp(-(1 + gamma) z).
        np.testing.assert_allclose(value[:3], [INF, 1e4, 100.0])
        np.testing.assert_allclose(value[3], np.log(2) / 2**gamma, rtol=1e-6)
        want = np.exp(-(1 + gamma) * z[4:].astype(np.float64))
        np.testing.assert_allclose(value[4:], want, rtol=1e-5, atol=1e-37)
        np.testing.assert_allclose(sign * slope[:3], -1)
        # 1 + gamma times the value, up to the 1 in log(1 + exp(-z)).
        np.testing.assert_allclose(sign * slope[4:], -(1 + gamma) * want, rtol=1e-5, atol=1e-37)
        assert not jnp.isnan(by_labels).any()


def test_second_derivatives_where_powers_would_overflow() -> None:
    # As q**(gamma - 2) does.
    def loss(z: jax.Array) -> jax.Array:
        return sigmoid_focal_loss(z, 1.0, gamma=0.1)

    z = np.array([30.0, 60.0, 75.0, 110.0], np.float32)
    want = 1.1**2 * np.exp(-1.1 * z.astype(np.float64))
    got = jax.jit(jax.vmap(jax.grad(jax.grad(loss))))(z)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-37)


def test_sure_of_a_label_between() -> None:
    # q goes to 1 - y at +inf, and the cross entropy to (1 - y) z.
    got = focal(jnp.array([1e4, -1e4, INF]), jnp.array([0.25, 0.25, 0.25]))
    np.testing.assert_allclose(got, [0.75**3 * 1e4, 0.25**3 * 1e4, INF], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "message"),
    [
        ((jnp.arange(3), 1.0), {}, TypeError, "logits must be .* got int32"),
        ((LOGITS, 1j * LABELS), {}, TypeError, "labels must be real"),
        ((LOGITS, LABELS[:2]), {}, ValueError, r"\(3, 16\) and labels of shape \(2, 16\)"),
        ((LOGITS, LABELS), {"gamma": -1.0}, ValueError, "gamma must be >= 0; got -1.0"),
        ((LOGITS, LABELS), {"alpha": -1.0}, ValueError, r"alpha must be in \[0, 1\]; got -1.0"),
        ((LOGITS, LABELS), {"alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\]; got 1.5"),
    ],
)
def test_errors(
    arguments: tuple[object, ...], options: dict[str, float], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"sigmoid_focal_loss: .*{message}"):
        sigmoid_focal_loss(*arguments, **options)
