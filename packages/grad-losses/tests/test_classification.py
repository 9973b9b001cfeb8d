"""Cross entropies against float64, their derivatives against closed forms, and all extremes."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_losses
from grad_losses import sigmoid_binary_cross_entropy as sigmoid_ce
from grad_losses import softmax_cross_entropy as dense_ce
from grad_losses import softmax_cross_entropy_with_integer_labels as integer_ce

INF = jnp.inf
RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(5, 7))).astype(np.float32)
LABELS = RNG.dirichlet(np.ones(7), size=5).astype(np.float32)
CLASSES = RNG.integers(7, size=5)


def probabilities(z: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    z = np.asarray(z, np.float64)
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def exact(z: np.ndarray, y: np.ndarray, axis: int | tuple[int, ...] = -1) -> np.ndarray:
    """The dense cross entropy in float64, for finite logits."""
    return -(np.asarray(y, np.float64) * np.log(probabilities(z, axis))).sum(axis=axis)


def gradient(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    return jax.jit(jax.grad(f))  # compiled: op by op the tests take twice as long


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap], ids=["eager", "jit", "vmap"])
def test_values(wrap: Callable[..., Callable]) -> None:
    np.testing.assert_allclose(wrap(dense_ce)(LOGITS, LABELS), exact(LOGITS, LABELS), rtol=1e-6)
    want = exact(LOGITS, np.eye(7)[CLASSES])
    np.testing.assert_allclose(wrap(integer_ce)(LOGITS, CLASSES), want, rtol=2e-6)
    z = LOGITS.astype(np.float64)
    want = LABELS * np.logaddexp(0, -z) + (1 - LABELS.astype(np.float64)) * np.logaddexp(0, z)
    np.testing.assert_allclose(wrap(sigmoid_ce)(LOGITS, LABELS), want, rtol=2e-6)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, (1,), (0, 2), (-1, 0), (0, 1, 2)])
def test_axes(axis: int | tuple[int, ...]) -> None:
    z = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    y = RNG.random(size=(2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(dense_ce(z, y, axis), exact(z, y, axis), rtol=2e-6)
    axes = [a % 3 for a in (axis if isinstance(axis, tuple) else (axis,))]
    others = [a for a in range(3) if a not in axes]
    flat = np.transpose(z, others + axes).reshape(*(z.shape[a] for a in others), -1)
    labels = RNG.integers(flat.shape[-1], size=flat.shape[:-1])
    want = exact(flat, np.eye(flat.shape[-1])[labels])
    np.testing.assert_allclose(integer_ce(z, labels, axis), want, rtol=2e-6, atol=1e-7)
    if axis == (0, 1, 2):
        np.testing.assert_allclose(dense_ce(z, y, None), exact(z, y, axis), rtol=2e-6)


def test_nothing_is_reduced_but_the_classes() -> None:
    z = jnp.zeros((2, 3, 4))
    assert dense_ce(z, z).shape == integer_ce(z, jnp.zeros((2, 3), int)).shape == (2, 3)
    assert sigmoid_ce(z, z).shape == (2, 3, 4)
    assert dense_ce(z, jnp.ones(4)).shape == (2, 3)
    assert integer_ce(jnp.zeros((2, 1, 4)), jnp.zeros((2, 3), int)).shape == (2, 3)


def test_gradients_are_probabilities_less_labels() -> None:
    p = probabilities(LOGITS)
    total = LABELS.astype(np.float64).sum(-1, keepdims=True)
    got = gradient(lambda z: dense_ce(z, LABELS).sum())(LOGITS)
    np.testing.assert_allclose(got, p * total - LABELS, atol=3e-7)
    got = gradient(lambda z: integer_ce(z, CLASSES).sum())(LOGITS)
    np.testing.assert_allclose(got, p - np.eye(7)[CLASSES], atol=3e-7)
    # With respect to labels, also at 0: the cost of the class.
    got = gradient(lambda y: dense_ce(LOGITS, y).sum())(np.zeros_like(LABELS))
    np.testing.assert_allclose(got, -np.log(p), rtol=2e-6)
    z = LOGITS.astype(np.float64)
    got = gradient(lambda z: sigmoid_ce(z, LABELS).sum())(LOGITS)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-z)) - LABELS, atol=3e-7)
    got = gradient(lambda y: sigmoid_ce(LOGITS, y).sum())(LABELS)
    np.testing.assert_allclose(got, -z, atol=2e-6)


def test_second_derivatives() -> None:
    z, p = LOGITS[0], probabilities(LOGITS[0])
    want = np.diag(p) - np.outer(p, p)
    for y in (np.eye(7, dtype=np.float32)[2], LABELS[0] / LABELS[0].sum()):
        np.testing.assert_allclose(jax.jit(jax.hessian(dense_ce))(z, y), want, atol=3e-7)
    np.testing.assert_allclose(jax.jit(jax.hessian(integer_ce))(z, 2), want, atol=3e-7)
    x = np.array([-3.0, 0.0, 2.5, 1e4], np.float32)
    s = 1 / (1 + np.exp(-x.astype(np.float64)))
    curvature = jax.jit(jax.vmap(jax.grad(jax.grad(sigmoid_ce)), (0, None)))
    for y in (0.0, 0.3, 1.0):
        np.testing.assert_allclose(curvature(x, y), s * (1 - s), atol=1e-7)


def test_second_derivatives_with_infinite_logits() -> None:
    z = jnp.array([[0.0, -INF, 1.0], [0.0, INF, 1.0], [-INF, -INF, 0.0]])
    k = jnp.argmax(z, -1)
    integer = jax.jit(jax.vmap(jax.hessian(integer_ce)))(z, k)
    dense = jax.jit(jax.vmap(jax.hessian(dense_ce)))(z, jax.nn.one_hot(k, 3))
    s = E1 * (1 - E1)
    want = np.zeros((3, 3, 3))
    want[0] = [[s, 0, -s], [0, 0, 0], [-s, 0, s]]
    np.testing.assert_allclose(integer, want, atol=1e-7)
    np.testing.assert_allclose(dense, want, atol=1e-7)


# Logits, labels, loss, gradient: the limits, where they exist.
E1 = float(1 / (1 + np.exp(-1)))
LIMITS = [
    ([1.0, -INF, 0.0], [1, 0, 0], -np.log(E1), [E1 - 1, 0, 1 - E1]),
    ([1.0, -INF, 0.0], [0, 0, 0], 0.0, [0, 0, 0]),
    ([1.0, -INF, 0.0], [0, 1, 0], INF, [E1, -1, 1 - E1]),
    ([-INF, -INF, 5.0], [0, 0, 1], 0.0, [0, 0, 0]),
    ([-INF, -INF, -INF], [0, 0, 0], 0.0, [0, 0, 0]),
    ([1.0, INF, -INF], [0, 1, 0], 0.0, [0, 0, 0]),
    ([1.0, INF, 0.0], [0, 0, 1], INF, None),
    ([1e4, -1e4, 0.0], [1, 0, 0], 0.0, [0, 0, 0]),
    ([1e4, 1e4, 0.0], [0.5, 0.5, 0], np.log(2), [0, 0, 0]),
    ([1e4, -1e4, 0.0], [0, 1, 0], 2e4, [1, -1, 0]),
    ([3e38, -3e38, 0.0], [1, 0, 0], 0.0, [0, 0, 0]),
]


@pytest.mark.parametrize(("logits", "labels", "loss", "gradient"), LIMITS)
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_extreme_logits(
    logits: list[float],
    labels: list[float],
    loss: float,
    gradient: list[float] | None,
    dtype: jax.typing.DTypeLike,
) -> None:
    # 3e38 is infinite in float16, and the limit the same.
    z, y = jnp.array(logits).astype(dtype), jnp.array(labels, dtype)
    rtol = float(jnp.finfo(dtype).eps)

    def check(f: Callable[[jax.Array], jax.Array]) -> None:
        value, slope = jax.jit(jax.value_and_grad(f))(z)
        assert value.dtype == slope.dtype == dtype
        np.testing.assert_allclose(np.float64(value), loss, rtol=rtol, atol=1e-7)
        if gradient is not None:
            np.testing.assert_allclose(slope.astype(float), gradient, rtol=rtol, atol=3e-7)

    check(lambda z: dense_ce(z, y))
    if sum(labels) == max(labels) == 1:
        check(lambda z: integer_ce(z, labels.index(1)))


def test_large_logits_lose_no_digits() -> None:
    for base in (0.0, 1e4, -1e4, 1e7):
        z = jnp.full(3, base)
        np.testing.assert_allclose(integer_ce(z, 1), np.log(3), rtol=1e-6)
        np.testing.assert_allclose(dense_ce(z, jnp.array([0, 1.0, 0])), np.log(3), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_extreme_odds(dtype: jax.typing.DTypeLike) -> None:
    z = jnp.array([INF, 1e4, 0.0, -1e4, -INF], dtype)
    big = float(z[1])
    cost, slope = [0, 0, np.log(2), big, INF], [0, 0, -0.5, -1, -1]
    rtol = float(jnp.finfo(dtype).eps)
    for y, z_for_y, sign in ((1, z, 1), (0, -z, -1)):
        labels = jnp.full(5, y, dtype)
        got = sigmoid_ce(z_for_y, labels)
        assert got.dtype == dtype
        np.testing.assert_allclose(got.astype(float), cost, rtol=rtol)
        found = gradient(lambda z, y=labels: sigmoid_ce(z, y).astype(float).sum())(z_for_y)
        np.testing.assert_allclose(found.astype(float), np.multiply(sign, slope))
    got = sigmoid_ce(z, jnp.full(5, 0.5, dtype)).astype(float)
    np.testing.assert_allclose(got, [INF, big / 2, np.log(2), big / 2, INF], rtol=rtol)


MASK = RNG.random(size=(5, 7)) < 0.6
MASK[np.arange(5), CLASSES] = True


def test_where_is_the_same_as_fewer_classes() -> None:
    dense, integer = dense_ce(LOGITS, LABELS, where=MASK), integer_ce(LOGITS, CLASSES, where=MASK)
    for row in range(5):
        kept = MASK[row]
        want = exact(LOGITS[row][kept], LABELS[row][kept])
        np.testing.assert_allclose(dense[row], want, rtol=2e-6)
        want = exact(LOGITS[row][kept], np.eye(7)[CLASSES[row]][kept])
        np.testing.assert_allclose(integer[row], want, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(dense_ce(LOGITS.T, LABELS.T, 0, MASK.T), dense)
    np.testing.assert_allclose(integer_ce(LOGITS.T, CLASSES, 0, MASK.T), integer)
    one_row = dense_ce(LOGITS, LABELS, where=MASK[0])
    np.testing.assert_allclose(one_row, dense_ce(LOGITS, LABELS, where=MASK[:1].repeat(5, 0)))


@pytest.mark.parametrize("hidden", [0.0, INF, -INF, jnp.nan, 1e38])
def test_what_where_leaves_out_does_not_matter(hidden: float) -> None:
    z = jnp.where(MASK, LOGITS, hidden).at[4].set(hidden)
    mask = jnp.asarray(MASK).at[4].set(False)

    for loss, y in ((dense_ce, LABELS), (integer_ce, CLASSES)):
        value = loss(z, y, where=mask)
        slope = gradient(lambda z, f=loss, y=y: f(z, y, where=mask).sum())(z)
        clean = jnp.where(MASK, LOGITS, 0).at[4].set(0)
        np.testing.assert_array_equal(value, loss(clean, y, where=mask))
        assert value[4] == 0
        assert jnp.isfinite(slope).all()
        np.testing.assert_array_equal(slope[~mask], 0)


def test_dtypes(x64: None) -> None:
    half, single, double = (jnp.ones((2, 3), d) for d in (jnp.bfloat16, jnp.float32, jnp.float64))
    assert dense_ce(half, half).dtype == jnp.bfloat16
    assert dense_ce(half, single).dtype == dense_ce(single, half).dtype == jnp.float32
    assert dense_ce(half, jnp.ones((2, 3), int)).dtype == jnp.bfloat16
    assert sigmoid_ce(half, single).dtype == jnp.bfloat16
    for kind in (jnp.uint8, jnp.int8, jnp.int32, jnp.int64):
        assert integer_ce(half, jnp.zeros(2, kind)).dtype == jnp.bfloat16
    np.testing.assert_allclose(dense_ce(double, double), 3 * np.log(3), rtol=1e-15)
    np.testing.assert_allclose(integer_ce(double, jnp.zeros(2, int)), np.log(3), rtol=1e-15)
    want = np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(sigmoid_ce(double, double), want, rtol=1e-15)


def test_sums_of_narrow_logits_are_wide() -> None:
    # In bfloat16 a sum of ones stops at 256.
    z = jnp.zeros(4096, jnp.bfloat16)
    want = jnp.float32(np.log(4096)).astype(jnp.bfloat16)
    assert integer_ce(z, 5) == want
    assert dense_ce(z, jnp.full(4096, 1 / 4096, jnp.bfloat16)) == want


def test_narrow_labels_reach_all_classes() -> None:
    z = jnp.zeros(1000).at[200].set(-5.0)
    assert integer_ce(z, jnp.uint8(200)) > integer_ce(z, jnp.uint8(199)) + 4.9


def test_labels_that_are_no_class() -> None:
    z = jnp.array(LOGITS[:3])
    got = integer_ce(z, jnp.array([7, -1, -8]))
    np.testing.assert_array_equal(jnp.isnan(got), [True, False, True])
    np.testing.assert_array_equal(got[1], integer_ce(z[1], 6))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: dense_ce(jnp.arange(3), jnp.ones(3)), TypeError, "logits must be .* got int32"),
        (lambda: integer_ce(jnp.arange(3), 1), TypeError, "logits must be .* got int32"),
        (lambda: sigmoid_ce(jnp.arange(3), 1.0), TypeError, "logits must be .* got int32"),
        (lambda: integer_ce(LOGITS, 1.0), TypeError, "labels must be .* got float32. For prob"),
        (lambda: integer_ce(LOGITS, LOGITS > 0), TypeError, "labels must be .* got bool"),
        (lambda: dense_ce(LOGITS, LABELS[:2]), ValueError, r"\(5, 7\) and labels of .* \(2, 7\)"),
        (lambda: dense_ce(LOGITS, LABELS[:2]), TypeError, r"\(5, 7\) and labels of .* \(2, 7\)"),
        (lambda: sigmoid_ce(LOGITS, LABELS[:2]), TypeError, r"\(5, 7\) and labels of .* \(2, 7\)"),
        (lambda: integer_ce(LOGITS, 1), ValueError, r"labels of shape \(\) must have .* \(5,\)"),
        (lambda: integer_ce(LOGITS, CLASSES[:3]), ValueError, r"labels of shape \(3,\) must"),
        (
            lambda: integer_ce(LOGITS, np.eye(7, dtype=int)[:5]),
            ValueError,
            "one-hot labels use softmax_cross_entropy",
        ),
        (lambda: integer_ce(LOGITS, CLASSES, None), ValueError, "axis must be an int or a tuple"),
        (lambda: integer_ce(1.0, 1), ValueError, r"axis must be .* of shape \(\); got -1"),
        (lambda: dense_ce(LOGITS, LABELS, 5), ValueError, r"axis must be .* \(5, 7\); got 5"),
        (lambda: dense_ce(1.0, 1.0), ValueError, r"axis must be .* of shape \(\); got -1"),
        (lambda: dense_ce(LOGITS, LABELS, where=LABELS), ValueError, "where must be boolean"),
        (lambda: dense_ce(LOGITS, LABELS, where=MASK[:2]), ValueError, "logits of .* and where"),
        (lambda: dense_ce(LOGITS[0], LABELS[0], where=MASK), ValueError, "more elements than"),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_all_is_sorted() -> None:
    assert grad_losses.__all__ == sorted(grad_losses.__all__)
