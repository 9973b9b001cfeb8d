"""Losses of preferences, against Python's arithmetic on the equations, and at all extremes."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import dpo_loss, ipo_loss, kto_loss, orpo_loss, simpo_loss

RNG = np.random.default_rng(0)
CHOSEN, REJECTED, CHOSEN_BEFORE, REJECTED_BEFORE = -RNG.gamma(2.0, size=(4, 7)).astype(np.float32)
GOOD = RNG.random(size=7) < 0.5
INF = math.inf

DPO, IPO, SIMPO, ORPO, KTO = (
    jax.jit(loss) for loss in (dpo_loss, ipo_loss, simpo_loss, orpo_loss, kto_loss)
)
ORPO_AND_SLOPES = jax.jit(
    jax.vmap(jax.value_and_grad(lambda c, r: orpo_loss(c, r, beta=1.0), (0, 1)))
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def doubles(*arrays: np.ndarray) -> list[list[float]]:
    """For each example, its numbers as Python floats."""
    return np.float64(arrays).T.tolist()


def test_dpo_and_ipo() -> None:
    arrays = (CHOSEN, REJECTED, CHOSEN_BEFORE, REJECTED_BEFORE)
    dpo, smooth, ipo = [], [], []
    for c, r, cb, rb in doubles(*arrays):
        # From probabilities, as the papers write it: beta log(pi / ref) of either response.
        gap = math.log(math.exp(c) / math.exp(cb)) - math.log(math.exp(r) / math.exp(rb))
        dpo.append(-math.log(sigmoid(0.1 * gap)))
        smooth.append(-0.9 * math.log(sigmoid(2 * gap)) - 0.1 * math.log(sigmoid(-2 * gap)))
        ipo.append((gap - 1 / (2 * 0.1)) ** 2)
    np.testing.assert_allclose(DPO(*arrays), dpo, rtol=1e-5)
    np.testing.assert_allclose(DPO(*arrays, beta=2.0, label_smoothing=0.1), smooth, rtol=1e-5)
    np.testing.assert_allclose(IPO(*arrays), ipo, rtol=1e-5)


def test_simpo_and_orpo() -> None:
    simpo, orpo = [], []
    for c, r in doubles(CHOSEN, REJECTED):
        simpo.append(-math.log(sigmoid(2 * c - 2 * r - 0.5)))
        odds, other_odds = (math.exp(x) / (1 - math.exp(x)) for x in (c, r))
        orpo.append(-c - 0.1 * math.log(sigmoid(math.log(odds / other_odds))))
    np.testing.assert_allclose(SIMPO(CHOSEN, REJECTED), simpo, rtol=1e-5)
    np.testing.assert_allclose(ORPO(CHOSEN, REJECTED), orpo, rtol=1e-5)


def test_kto() -> None:
    # The paper's value is weight * sigmoid(beta * gain), the loss what is missing to the weight.
    want = []
    for p, b, good in doubles(CHOSEN, CHOSEN_BEFORE, GOOD):
        gain = (p - b - 0.3) if good else -(p - b - 0.3)
        weight = 1.5 if good else 0.5
        want.append(weight - weight * sigmoid(0.7 * gain))
    got = KTO(
        CHOSEN, CHOSEN_BEFORE, GOOD, kl=0.3, beta=0.7, desirable_weight=1.5, undesirable_weight=0.5
    )
    np.testing.assert_allclose(got, want, rtol=1e-5)
    value = KTO(CHOSEN, CHOSEN_BEFORE, GOOD, kl=jnp.full(7, -3.0))
    np.testing.assert_array_equal(value, KTO(CHOSEN, CHOSEN_BEFORE, GOOD, kl=jnp.zeros(7)))
    slope = jax.jit(jax.grad(lambda k: kto_loss(CHOSEN, CHOSEN_BEFORE, GOOD, kl=k).sum()))
    np.testing.assert_array_equal(slope(jnp.ones(7)), 0)


def test_gradients() -> None:
    # By the gap, that of DPO is -beta * sigmoid(-beta * gap); the same for both responses.
    total = jax.jit(jax.grad(lambda *a: dpo_loss(*a, beta=0.5).sum(), (0, 1, 2, 3)))
    slopes = total(CHOSEN, REJECTED, CHOSEN_BEFORE, REJECTED_BEFORE)
    gap = (CHOSEN - CHOSEN_BEFORE) - (REJECTED - REJECTED_BEFORE)
    want = -0.5 / (1 + np.exp(0.5 * gap))
    for slope, sign in zip(slopes, (1, -1, -1, 1), strict=True):
        np.testing.assert_allclose(slope, sign * want, rtol=1e-5)


def test_huge_log_ratios() -> None:
    big = np.array([0.0, -1e30, -INF, -3e38], np.float32)
    zero, good = np.zeros(4, np.float32), np.ones(4, bool)
    worse, falls = [math.log(2), 1e30, INF, 3e38], [-0.5, -1, -1, -1]
    cases: list[tuple[Callable[..., jax.Array], list[float], list[float]]] = [
        (lambda c: dpo_loss(c, zero, zero, zero, beta=1.0), worse, falls),
        (lambda c: dpo_loss(zero, c, zero, zero, beta=1.0), [math.log(2), 0, 0, 0], [0.5, 0, 0, 0]),
        (lambda c: simpo_loss(c, zero, beta=1.0, margin=0.0), worse, falls),
        (lambda c: kto_loss(c, zero, good, beta=1.0), [0.5, 1, 1, 1], [-0.25, 0, 0, 0]),
    ]

    @jax.jit
    def all_of_them(c: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        return [(loss(c), jax.grad(lambda c, f=loss: f(c).sum())(c)) for loss, _, _ in cases]

    for (value, slope), (_, want, want_slope) in zip(all_of_them(big), cases, strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(slope, want_slope, rtol=1e-6, atol=1e-7)


def test_odds_where_a_probability_is_one() -> None:
    near_one = np.array([-1e-3, -1e-5, -1e-7, -1e-12, -1e-30, -1e-37])
    two, others = np.full(6, -2.0), [[-50, -1e-6], [-1e-5, -90], [-1e4, -1e4], [-1e4, -1]]
    both = [near_one, two], [near_one, 3 * near_one], [two, near_one], np.transpose(others)
    chosen, rejected = np.concatenate(both, axis=1).astype(np.float32)
    value, (by_chosen, by_rejected) = ORPO_AND_SLOPES(chosen, rejected)
    c, r = chosen.astype(np.float64), rejected.astype(np.float64)
    log_odds = [x - np.log(-np.expm1(x)) for x in (c, r)]
    gap = log_odds[0] - log_odds[1]
    np.testing.assert_allclose(value, np.logaddexp(0, -gap) - c, rtol=1e-5, atol=1e-30)
    share = 1 / (1 + np.exp(gap))
    np.testing.assert_allclose(by_chosen, -1 + share / np.expm1(c), rtol=2e-5)
    np.testing.assert_allclose(by_rejected, -share / np.expm1(r), rtol=2e-5, atol=1e-38)


def test_odds_at_the_ends() -> None:
    chosen = np.float32([0, 0, 0, -2, -INF, -2])
    rejected = np.float32([-2, -INF, 0, -INF, -2, 0])
    value, (by_chosen, by_rejected) = ORPO_AND_SLOPES(chosen, rejected)
    np.testing.assert_allclose(value, [0, 0, math.log(2), 2, INF, INF], rtol=1e-6)
    # The loss falls towards a chosen probability of 1, with the slope of the other's odds.
    odds = 1 / math.expm1(2)
    np.testing.assert_allclose(by_chosen[:4], [-1 - odds, -1, -1, -1], rtol=1e-6)
    np.testing.assert_allclose(by_rejected[:4], 0, atol=1e-7)
    second = jax.jit(jax.jacfwd(jax.grad(lambda c: orpo_loss(c, -2.0, beta=1.0))))(0.0)
    np.testing.assert_allclose(second, odds - odds**2, rtol=1e-5)


def test_any_shape_and_dtype() -> None:
    half = [a.astype(jnp.bfloat16).reshape(1, 7) for a in (CHOSEN, REJECTED)]
    value = jax.eval_shape(simpo_loss, *half)
    assert (value.shape, value.dtype) == ((1, 7), jnp.bfloat16)
    assert jax.eval_shape(dpo_loss, *half, *np.zeros((2, 1, 7), np.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: dpo_loss(1, 2.0, 3.0, 4.0),
            TypeError,
            "dpo_loss: chosen must be of a real",
        ),
        (
            lambda: dpo_loss(*[CHOSEN] * 3, CHOSEN[:2]),
            ValueError,
            r"reference_rejected of shape",
        ),
        (lambda: dpo_loss(*[CHOSEN] * 4, beta=0.0), ValueError, "beta must be > 0; got 0.0"),
        (
            lambda: dpo_loss(*[CHOSEN] * 4, label_smoothing=1.5),
            ValueError,
            r"label_smoothing must be in \[0, 1\]; got 1.5",
        ),
        (
            lambda: ipo_loss(*[CHOSEN] * 4, beta=-1),
            ValueError,
            "ipo_loss: beta must be > 0",
        ),
        (lambda: simpo_loss(CHOSEN, 1.0), ValueError, r"chosen of shape \(7,\) and rejected of"),
        (lambda: orpo_loss(CHOSEN, REJECTED, beta=-1.0), ValueError, "beta must be >= 0; got -1.0"),
        (
            lambda: kto_loss(CHOSEN, REJECTED, CHOSEN),
            TypeError,
            "desirable must be boolean; got",
        ),
        (lambda: kto_loss(CHOSEN, REJECTED, GOOD[:2]), ValueError, r"desirable of shape \(2,\)"),
        (
            lambda: kto_loss(CHOSEN, REJECTED, GOOD, undesirable_weight=-1),
            ValueError,
            "undesirable_weight must be >= 0",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
