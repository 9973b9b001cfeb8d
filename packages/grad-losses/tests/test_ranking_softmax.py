"""The softmax loss of lists against float64: padding, weights, reductions, lists of nothing."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from grad_losses import ranking_softmax_loss

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(4, 5))).astype(np.float32)
LABELS = RNG.integers(4, size=(4, 5))
WEIGHTS = RNG.random(size=(4, 5)).astype(np.float32)
MASK = np.arange(5) < np.array([[5], [3], [1], [0]])

each = jax.jit(lambda *args, **kwargs: ranking_softmax_loss(*args, **kwargs, reduce_fn=None))


def exact(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The loss of each list in float64."""
    return -(y * scipy.special.log_softmax(z.astype(np.float64), -1)).sum(-1)


def test_values() -> None:
    np.testing.assert_allclose(each(LOGITS, LABELS), exact(LOGITS, LABELS), rtol=2e-6)
    want = exact(LOGITS, LABELS * WEIGHTS)
    np.testing.assert_allclose(each(LOGITS, LABELS, weights=WEIGHTS), want, rtol=2e-6)
    mean, _ = value_and_slope(LOGITS, LABELS)
    np.testing.assert_allclose(mean, exact(LOGITS, LABELS).mean(), rtol=2e-6)
    by_item = each(LOGITS, LABELS[0], weights=WEIGHTS[0])
    np.testing.assert_allclose(by_item, exact(LOGITS, LABELS[0] * WEIGHTS[0]), rtol=2e-6)


@functools.partial(jax.jit, static_argnames="reduce_fn")
def value_and_slope(
    z: jax.Array,
    y: jax.Array,
    where: jax.Array | None = None,
    reduce_fn: Callable[..., jax.Array] | None = jnp.mean,
) -> tuple[jax.Array, jax.Array]:
    def total(z: jax.Array) -> jax.Array:
        return jnp.sum(ranking_softmax_loss(z, y, where=where, reduce_fn=reduce_fn))

    return jax.value_and_grad(total)(z)


@pytest.mark.parametrize("hidden", [0.0, np.inf, -np.inf, np.nan])
def test_padding_does_not_matter(hidden: float) -> None:
    z = np.where(MASK, LOGITS, np.float32(hidden))
    want = [exact(LOGITS[i, :n], LABELS[i, :n]) for i, n in enumerate((5, 3, 1))]
    got = each(z, LABELS, where=MASK)
    np.testing.assert_allclose(got, [*want, 0], rtol=2e-6, atol=1e-6)
    # The list without items does not count.
    value, slope = value_and_slope(z, LABELS, MASK)
    np.testing.assert_allclose(value, np.mean(want), rtol=2e-6)
    np.testing.assert_array_equal(slope[~MASK], 0)
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize("hidden", [np.inf, np.nan])
def test_labels_and_weights_of_padding_do_not_matter(hidden: float) -> None:
    arrays = LOGITS, LABELS.astype(np.float32), WEIGHTS
    total = jax.value_and_grad(lambda z, y, w: each(z, y, weights=w, where=MASK).sum(), (0, 1, 2))
    value, slopes = total(*arrays)
    found, found_slopes = total(*(np.where(MASK, x, np.float32(hidden)) for x in arrays))
    assert found == value
    np.testing.assert_array_equal(found_slopes, slopes)
    assert (np.array(slopes)[:, MASK] != 0).any(axis=1).all()


def test_lists_of_nothing_cost_nothing() -> None:
    for reduce_fn in (jnp.mean, jnp.sum, None):
        value, slope = value_and_slope(LOGITS, LABELS, np.zeros_like(MASK), reduce_fn)
        assert value == 0
        np.testing.assert_array_equal(slope, 0)
    assert value_and_slope(LOGITS, 0 * LABELS)[0] == 0


def test_reductions_are_called_with_what_is_a_list() -> None:
    seen = []

    def largest(losses: jax.Array, where: jax.Array | None) -> jax.Array:
        seen.append(where)
        assert losses.dtype == jnp.float32
        return jnp.max(losses)

    got = ranking_softmax_loss(LOGITS, LABELS, where=MASK, reduce_fn=largest)
    assert got == each(LOGITS, LABELS, where=MASK).max()
    np.testing.assert_array_equal(seen[0], [True, True, True, False])
    narrow = ranking_softmax_loss(jnp.asarray(LOGITS, jnp.bfloat16), LABELS, reduce_fn=largest)
    assert narrow.dtype == jnp.bfloat16
    assert seen[1] is None


def test_impossible_items_that_do_not_matter() -> None:
    z, y = np.array([0.0, -np.inf, 0.0], np.float32), np.array([1.0, 0.0, 0.0], np.float32)
    value, slope = value_and_slope(z, y)
    np.testing.assert_allclose(value, np.log(2), rtol=1e-6)
    np.testing.assert_allclose(slope, [-0.5, 0, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda f: f(LABELS, LABELS), TypeError, "logits must be .* int"),
        (lambda f: f(LOGITS, 1j * LABELS), TypeError, "labels must be real"),
        (lambda f: f(LOGITS, LABELS[:3]), ValueError, r"labels of shape \(3, 5\)"),
        (
            lambda f: f(LOGITS, LABELS, weights=WEIGHTS[:3]),
            ValueError,
            r"weights of shape \(3, 5\)",
        ),
        (lambda f: f(LOGITS, LABELS, where=WEIGHTS), ValueError, "where must be boolean"),
        (lambda f: f(LOGITS, LABELS, where=MASK[:3]), ValueError, r"where of shape \(3, 5\)"),
        (lambda f: f(1.0, 1.0), ValueError, r"axis must be .* shape \(\)"),
    ],
)
def test_errors(
    call: Callable[[Callable[..., jax.Array]], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=f"ranking_softmax_loss: .*{message}"):
        call(ranking_softmax_loss)
