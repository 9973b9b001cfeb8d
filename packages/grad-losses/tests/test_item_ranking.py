"""Ranking losses, against loops in double precision, scikit-learn's NDCG, and exact facts."""

import itertools
import math
from collections.abc import Callable

import jax
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from grad_losses import (
    approx_ndcg_loss,
    listmle_loss,
    pairwise_hinge_loss,
    pairwise_logistic_loss,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(5, 6)).astype(np.float32)
LABELS = np.array(
    [[0, 3, 1, 2, 5, 4], [1, 0, 0, 1, 0, 1], [2, 2, 2, 0, 1, 1], [0] * 6, [0, 0, 0, 0, 0, 4]]
)
INF = math.inf


def logistic(z: np.ndarray, y: np.ndarray) -> float:
    pairs = [(i, j) for i, j in np.ndindex(len(z), len(z)) if y[i] > y[j]]
    return sum(np.log(1 + np.exp(z[j] - z[i])) for i, j in pairs)


def hinge(z: np.ndarray, y: np.ndarray) -> float:
    pairs = [(i, j) for i, j in np.ndindex(len(z), len(z)) if y[i] > y[j]]
    return sum(max(0.0, 1 - (z[i] - z[j])) for i, j in pairs)


def ndcg(z: np.ndarray, y: np.ndarray) -> float:
    return float(ndcg_score([2.0**y - 1], [z]))


def swapped(z: np.ndarray, i: int, j: int) -> np.ndarray:
    z = z.copy()
    z[[i, j]] = z[[j, i]]
    return z


def lambdarank(z: np.ndarray, y: np.ndarray) -> float:
    pairs = [(i, j) for i, j in np.ndindex(len(z), len(z)) if y[i] > y[j]]
    changes = [abs(ndcg(z, y) - ndcg(swapped(z, i, j), y)) for i, j in pairs]
    costs = [np.log(1 + np.exp(z[j] - z[i])) for i, j in pairs]
    return sum(w * c for w, c in zip(changes, costs, strict=True))


def weighted_hinge(z: np.ndarray, y: np.ndarray) -> float:
    pairs = [(i, j) for i, j in np.ndindex(len(z), len(z)) if y[i] > y[j]]
    changes = [abs(ndcg(z, y) - ndcg(swapped(z, i, j), y)) for i, j in pairs]
    return sum(w * max(0.0, 1 - (z[i] - z[j])) for w, (i, j) in zip(changes, pairs, strict=True))


def listmle(z: np.ndarray, y: np.ndarray) -> float:
    loss = 0.0
    for i in range(len(z)):
        below = [z[j] for j in range(len(z)) if y[j] < y[i]]
        loss -= np.log(np.exp(z[i]) / (np.exp(z[i]) + sum(np.exp(below))))
    return loss


def approx_ndcg(z: np.ndarray, y: np.ndarray, temperature: float = 0.1) -> float:
    """Of Qin, Liu and Li."""
    gain, total = 2.0**y - 1, 0.0
    best = sum(g / math.log2(2 + k) for k, g in enumerate(sorted(gain, reverse=True)))
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        rank = 1 + sum(1 / (1 + math.exp((z[i] - z[j]) / temperature)) for j in others)
        total += gain[i] / math.log2(1 + rank)
    return 1 - total / best if best else 0.0


Loss = Callable[..., jax.Array]
LOSSES: dict[str, tuple[Loss, Callable[..., float]]] = {
    "logistic": (pairwise_logistic_loss, logistic),
    "hinge": (pairwise_hinge_loss, hinge),
    "lambdarank": (
        lambda z, y, **more: pairwise_logistic_loss(z, y, ndcg_weights=True, **more),
        lambdarank,
    ),
    "weighted hinge": (
        lambda z, y, **more: pairwise_hinge_loss(z, y, ndcg_weights=True, **more),
        weighted_hinge,
    ),
    "listmle": (listmle_loss, listmle),
    "approx_ndcg": (approx_ndcg_loss, approx_ndcg),
}
COMPILED = {
    name: jax.jit(
        jax.value_and_grad(
            lambda z, y, where, loss=loss: ((v := loss(z, y, where=where)).sum(), v), has_aux=True
        )
    )
    for name, (loss, _) in LOSSES.items()
}


def value_and_gradient(
    name: str, z: np.ndarray, y: np.ndarray = LABELS, where: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Of any list of lists of at most the size of LOGITS, by one compiled function a loss."""
    rows, items = np.shape(z)
    whole_z, whole_y = np.zeros(LOGITS.shape, np.float32), np.zeros(LOGITS.shape, np.int32)
    mask = np.zeros(LOGITS.shape, bool)
    whole_z[:rows, :items], whole_y[:rows, :items] = z, y
    mask[:rows, :items] = True if where is None else where
    (_, value), gradient = COMPILED[name](whole_z, whole_y, mask)
    return np.asarray(value)[:rows], np.asarray(gradient)[:rows, :items]


@pytest.mark.parametrize("name", LOSSES)
def test_equations(name: str) -> None:
    _, exact = LOSSES[name]
    want = [exact(z, y) for z, y in zip(LOGITS.astype(float), LABELS, strict=True)]
    value, slope = value_and_gradient(name, LOGITS)
    np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
    assert value[3] == 0  # no item is more relevant than another
    np.testing.assert_array_equal(slope[3], 0)
    # Only differences matter.
    np.testing.assert_allclose(slope.sum(-1), 0, atol=1e-5)
    np.testing.assert_allclose(value_and_gradient(name, LOGITS + 3)[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_order_in_the_list_does_not_matter(name: str) -> None:
    order = RNG.permutation(6)
    value, slope = value_and_gradient(name, LOGITS)
    moved, moved_slope = value_and_gradient(name, LOGITS[:, order], LABELS[:, order])
    np.testing.assert_allclose(moved, value, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(moved_slope, slope[:, order], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_where_is_the_same_as_shorter_lists(name: str) -> None:
    _, exact = LOSSES[name]
    mask = RNG.random(size=LOGITS.shape) < 0.6
    mask[1] = False
    mask[2] = [True] + [False] * 5
    clean, clean_slope = value_and_gradient(name, LOGITS, LABELS, mask)
    want = [
        exact(z[m], y[m]) if m.sum() > 1 else 0.0
        for z, y, m in zip(LOGITS.astype(float), LABELS, mask, strict=True)
    ]
    np.testing.assert_allclose(clean, want, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(clean[1:3], 0)
    np.testing.assert_array_equal(clean_slope[~mask], 0)
    for hidden in (np.nan, INF, -INF, 1e38):
        y = np.where(mask, LABELS, 100)
        value, slope = value_and_gradient(name, np.where(mask, LOGITS, hidden), y, mask)
        np.testing.assert_array_equal(value, clean)
        np.testing.assert_array_equal(slope, clean_slope)


@pytest.mark.parametrize("name", LOSSES)
def test_extremes_are_finite(name: str) -> None:
    z = np.array([[0.0] * 6, [1e30] * 6, [1e30, -1e30, 1e30, -1e30, 0, 1], LOGITS[3], LOGITS[4]])
    value, slope = value_and_gradient(name, z)
    assert np.isfinite(value).all()
    assert np.isfinite(slope).all()


def test_infinite_logits() -> None:
    y = np.array([[1, 0, 2]] * 4)
    z = np.array([[0, -INF, INF], [-INF, -INF, -INF], [-INF, 0, INF], [0.0, -INF, 1.0]])
    want = {"logistic": [0, 3 * math.log(2), INF, np.log1p(np.exp(-1))], "hinge": [0, 3, INF, 0]}
    want["listmle"] = [0, math.log(2) + math.log(3), INF, np.log1p(np.exp(-1))]
    for name, expected in want.items():
        value, slope = value_and_gradient(name, z, y)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        assert np.isfinite(slope[[0, 1, 3]]).all(), name
    perfect, slope = value_and_gradient("approx_ndcg", z[[0, 3]], y[:2])
    np.testing.assert_allclose(perfect, [0, 0], atol=1e-4)
    assert np.isfinite(slope).all()


def test_probabilities_of_all_orders_sum_to_one() -> None:
    orders = np.array(list(itertools.permutations(range(4))))
    batches = [
        value_and_gradient("listmle", LOGITS[[0] * 4, :4], y)[0] for y in np.split(orders, 6)
    ]
    np.testing.assert_allclose(np.exp(-np.float64(batches)).sum(), 1, rtol=1e-5)


def test_items_of_one_relevance_do_not_compete() -> None:
    z = LOGITS[1].astype(float)
    up, down = z[LABELS[1] == 1], z[LABELS[1] == 0]
    want = sum(np.log1p(np.exp(down - u).sum()) for u in up)
    np.testing.assert_allclose(value_and_gradient("listmle", LOGITS)[0][1], want, rtol=1e-5)


def test_equal_logits_rank_in_the_order_given() -> None:
    z, y = np.zeros((1, 3), np.float32), np.array([[0, 2, 1]])
    ranked, pairs = np.array([2.0, 1.0, 0.0]), [(1, 0), (1, 2), (2, 0)]
    changes = [abs(ndcg(ranked, y[0]) - ndcg(swapped(ranked, i, j), y[0])) for i, j in pairs]
    value, _ = value_and_gradient("lambdarank", z, y)
    np.testing.assert_allclose(value, [sum(changes) * math.log(2)], rtol=1e-5)


def test_cold_approximate_ndcg_is_that_of_scikit_learn() -> None:
    run = jax.jit(approx_ndcg_loss)
    want = [1 - ndcg(z, y) if y.any() else 0 for z, y in zip(LOGITS, LABELS, strict=True)]
    np.testing.assert_allclose(run(LOGITS, LABELS, temperature=1e-4), want, rtol=1e-5, atol=1e-6)
    want = [approx_ndcg(z, y, 0.5) for z, y in zip(LOGITS.astype(float), LABELS, strict=True)]
    np.testing.assert_allclose(run(LOGITS, LABELS, temperature=0.5), want, rtol=1e-5, atol=1e-6)


def test_a_perfect_order_costs_nothing() -> None:
    value, _ = value_and_gradient("approx_ndcg", 100 * LABELS.astype(np.float32))
    np.testing.assert_array_equal(value[[0, 3, 4]], 0)


def test_large_relevances_do_not_overflow() -> None:
    y = np.array([[1000, 999, 0]])
    for name in ("lambdarank", "approx_ndcg"):
        value, slope = value_and_gradient(name, LOGITS[:1, :3], y)
        same, _ = value_and_gradient(name, LOGITS[:1, :3], np.array([[30, 29, 0]]))
        np.testing.assert_allclose(value, same, rtol=1e-6)
        assert np.isfinite(slope).all()


def test_ndcg_weights_are_constants() -> None:
    # The gradient is the weighted sum of sigmoids: what LambdaRank calls lambdas.
    z, y = LOGITS[0].astype(float), LABELS[0]
    want = np.zeros(6)
    for i, j in np.ndindex(6, 6):
        if y[i] > y[j]:
            pull = abs(ndcg(z, y) - ndcg(swapped(z, i, j), y)) / (1 + np.exp(z[i] - z[j]))
            want[i] -= pull
            want[j] += pull
    np.testing.assert_allclose(
        value_and_gradient("lambdarank", LOGITS)[1][0], want, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: listmle_loss(LABELS, LABELS), TypeError, "listmle_loss: logits must be"),
        (lambda: listmle_loss(LOGITS, LABELS * 1j), TypeError, "labels must be real"),
        (
            lambda: listmle_loss(LOGITS, LABELS[0]),
            ValueError,
            r"logits .*\(5, 6\) and labels",
        ),
        (lambda: listmle_loss(1.0, 1), ValueError, "logits must have an axis of items"),
        (lambda: approx_ndcg_loss(LOGITS, LABELS, temperature=0), ValueError, "must be > 0; got"),
        (lambda: pairwise_hinge_loss(LOGITS, LABELS, where=LABELS), ValueError, "must be boolean"),
        (
            lambda: pairwise_hinge_loss(LOGITS, LABELS, margin=math.nan),
            ValueError,
            "margin must be",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
