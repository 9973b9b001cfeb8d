"""PPO and GRPO, against Python's arithmetic on the equations, exact facts, and at all extremes."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_losses import group_advantages, grpo_loss, ppo_clip_loss

RNG = np.random.default_rng(0)
NOW, BEFORE, REFERENCE = -RNG.gamma(2.0, size=(3, 4, 6)).astype(np.float32)
ADVANTAGES = RNG.normal(size=(4, 1)).astype(np.float32)
INF = math.inf

PPO = jax.jit(ppo_clip_loss)
GRPO = jax.jit(grpo_loss)
TOTAL = jax.jit(
    jax.value_and_grad(
        lambda now, before, advantages, reference, where: (
            (v := grpo_loss(now, before, advantages, reference, where=where)).sum(),
            v,
        ),
        has_aux=True,
    )
)


def clipped(r: float, a: float, low: float, high: float) -> float:
    return -min(r * a, min(max(r, 1 - low), 1 + high) * a)


def test_equations() -> None:
    ppo, higher, grpo = np.zeros((3, 4, 6))
    for i, j in np.ndindex(4, 6):
        now, before, reference = (math.exp(float(x[i, j])) for x in (NOW, BEFORE, REFERENCE))
        r, a, rho = now / before, float(ADVANTAGES[i, 0]), reference / now
        ppo[i, j] = clipped(r, a, 0.2, 0.2)
        higher[i, j] = clipped(r, a, 0.1, 0.4)
        grpo[i, j] = ppo[i, j] + 0.04 * (rho - math.log(rho) - 1)
    assert len(set(np.sign(ADVANTAGES.ravel()))) == 2
    np.testing.assert_allclose(PPO(NOW, BEFORE, ADVANTAGES), ppo, rtol=1e-5)
    got = PPO(NOW, BEFORE, ADVANTAGES, clip=0.1, clip_high=0.4)
    np.testing.assert_allclose(got, higher, rtol=1e-5)
    np.testing.assert_allclose(GRPO(NOW, BEFORE, ADVANTAGES, REFERENCE), grpo, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(GRPO(NOW, BEFORE, ADVANTAGES), ppo, rtol=1e-5)
    with_both = GRPO(NOW, BEFORE, ADVANTAGES, REFERENCE, beta=0.0, clip=0.1, clip_high=0.4)
    np.testing.assert_allclose(with_both, higher, rtol=1e-5)


def test_flat_where_it_pays_to_stray() -> None:
    log_ratio = np.log(np.float32([0.5, 0.9, 1.1, 2.0] * 2)).reshape(2, 4)
    advantages = np.array([[3.0], [-3.0]], np.float32)
    slope = jax.jit(jax.grad(lambda x: ppo_clip_loss(x, 0 * x, advantages).sum()))(log_ratio)
    # By the logarithm, r * A where it counts: below 1.2 for gains, above 0.8 for losses.
    want = [[-1.5, -2.7, -3.3, 0], [0, 2.7, 3.3, 6.0]]
    np.testing.assert_allclose(slope, want, rtol=1e-5)


def test_at_the_policy_itself_the_gradient_is_that_of_reinforce() -> None:
    def loss(now: jax.Array) -> jax.Array:
        return grpo_loss(now, jax.lax.stop_gradient(now), ADVANTAGES, now).sum()

    slope = jax.jit(jax.grad(loss))(NOW)
    np.testing.assert_allclose(slope, np.broadcast_to(-ADVANTAGES, NOW.shape), rtol=1e-5)


def test_the_divergence_is_unbiased_and_never_negative() -> None:
    pi, rho = RNG.dirichlet(np.ones(6), size=2)
    now, reference = np.log(pi).astype(np.float32), np.log(rho).astype(np.float32)
    estimate = grpo_loss(now, now, 0.0, reference, beta=1.0)
    want = (pi * np.log(pi / rho)).sum()
    np.testing.assert_allclose((pi * np.float64(estimate)).sum(), want, rtol=1e-5)
    far = np.float32(np.geomspace(1e-8, 88, 999))
    for sign in (1, -1):
        k3 = np.asarray(jax.jit(grpo_loss)(-far, -far, 0.0, (sign - 1) * far, beta=1.0))
        assert (k3 >= 0).all(), k3[k3 < 0]


def test_extreme_ratios() -> None:
    """Finite, unless the loss is no number of float32: then infinite."""
    log_ratio = np.float32([-INF, -3e38, -1e4, -200, 85, 200, 1e4, 3e38])
    e85, rows = math.exp(85), (3, 8)
    now, advantages = np.broadcast_to(log_ratio, rows), np.float32([[2.0], [-2.0], [0.0]])
    zeros, whole = np.zeros(rows, np.float32), np.ones(rows, bool)
    (_, value), slope = TOTAL(now, zeros, advantages, now, whole)
    want = [[0.0] * 4 + [-2.4] * 4, [1.6] * 4 + [2 * e85] + [INF] * 3, [0.0] * 8]
    np.testing.assert_allclose(value[:, 1:], np.array(want)[:, 1:], rtol=1e-5, atol=1e-30)
    np.testing.assert_array_equal(PPO(now, zeros, advantages)[:, 0], [0.0, np.float32(1.6), 0.0])
    # At the reference itself, the divergence is flat.
    want = np.zeros(rows)
    want[1, 4:] = [2 * e85] + [INF] * 3
    np.testing.assert_allclose(slope[:, 1:], want[:, 1:], rtol=1e-5)

    now, reference = np.float32([0.0, -500, -585, -1e4, -3e38, -INF]), np.full(6, -500, np.float32)
    (_, value), slope = TOTAL(now, zeros[0, :6], zeros[0, :6], reference, whole[0, :6])
    np.testing.assert_allclose(value / 0.04, [499, 0, e85 - 86] + [INF] * 3, rtol=1e-5)
    np.testing.assert_allclose(slope[:4] / 0.04, [1, 0, 1 - e85, -INF], rtol=1e-5)
    assert not np.isnan(slope).any()


def test_no_divergence_is_no_infinite_one() -> None:
    """Where the policy forgot what it wrote, reference / policy overflows."""
    now, before = np.float32([-500.0, -INF]), np.float32([-1.0, -1.0])
    for given in ((None,), (before,)):
        value, slope = jax.jvp(
            lambda x, given=given: grpo_loss(x, before, 1.0, *given, beta=0.0),
            (now,),
            (np.ones_like(now),),
        )
        np.testing.assert_array_equal(value, 0)
        np.testing.assert_array_equal(slope, 0)


def test_where_is_the_same_as_fewer_tokens() -> None:
    mask = RNG.random(size=NOW.shape) < 0.5
    advantages = np.broadcast_to(ADVANTAGES, NOW.shape)
    (_, whole), whole_slope = TOTAL(NOW, BEFORE, advantages, REFERENCE, np.ones_like(mask))
    for hidden in (0.0, np.nan, INF, -INF, 1e38):
        hide = [np.where(mask, x, np.float32(hidden)) for x in (NOW, BEFORE, advantages, REFERENCE)]
        (_, value), slope = TOTAL(*hide, mask)
        np.testing.assert_array_equal(value, np.where(mask, whole, 0))
        np.testing.assert_array_equal(slope, np.where(mask, whole_slope, 0))


REWARDS = RNG.normal(size=(3, 5)).astype(np.float32)
STANDARDIZED = jax.jit(group_advantages)


def test_group_advantages() -> None:
    r = REWARDS.astype(np.float64)
    want = (r - r.mean(-1, keepdims=True)) / r.std(-1, keepdims=True)
    np.testing.assert_allclose(STANDARDIZED(REWARDS), want, rtol=1e-5, atol=1e-6)
    got = group_advantages(REWARDS.T, axis=0, scale=False)
    np.testing.assert_allclose(got, (r - r.mean(-1, keepdims=True)).T, rtol=1e-5, atol=1e-6)
    for scale, shift in ((2.0**100, 0), (2.0**-100, 0), (4.0, 1000.0)):
        moved = STANDARDIZED(REWARDS * np.float32(scale) + np.float32(shift))
        np.testing.assert_allclose(moved, want, rtol=1e-3, atol=1e-4)


def test_groups_without_differences() -> None:
    # The mean of three times 0.1 is not 0.1 in float32; divided by such a deviation it would be 1.
    slope = jax.jit(jax.grad(lambda r: group_advantages(r)[0, 0]))
    for equal in (0.1, 1e6 + 0.3, 0.0, -3e38):
        rewards = np.full((3, 5), equal, np.float32)
        np.testing.assert_array_equal(STANDARDIZED(rewards), 0)
        assert jnp.isfinite(slope(rewards)).all()
    np.testing.assert_array_equal(STANDARDIZED(REWARDS[:, :1]), 0)


def test_group_advantages_where() -> None:
    mask = np.array([[True] * 5, [True, False, True, True, False], [False] * 5])
    run = jax.jit(lambda r, where: group_advantages(r, where=where))
    r = REWARDS[1][mask[1]].astype(np.float64)
    for hidden in (0.0, np.nan, INF, -INF):
        got = run(np.where(mask, REWARDS, np.float32(hidden)), mask)
        np.testing.assert_allclose(got[0], STANDARDIZED(REWARDS)[0], rtol=1e-6)
        np.testing.assert_allclose(got[1][mask[1]], (r - r.mean()) / r.std(), rtol=1e-5)
        np.testing.assert_array_equal(got[~mask], 0)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: ppo_clip_loss(1, 2.0, 3.0),
            TypeError,
            "ppo_clip_loss: log_probs must be",
        ),
        (
            lambda: ppo_clip_loss(NOW, BEFORE[:2], 1.0),
            ValueError,
            r"old_log_probs of shape \(2,",
        ),
        (lambda: ppo_clip_loss(NOW, BEFORE, NOW[0, :4]), ValueError, r"advantages of shape \(4,\)"),
        (
            lambda: ppo_clip_loss(NOW[0], BEFORE[0], ADVANTAGES),
            ValueError,
            r"advantages of shape \(4, 1\) have more elements than log_probs of shape \(6,\)",
        ),
        (
            lambda: ppo_clip_loss(NOW, BEFORE, 1.0, clip=2),
            ValueError,
            r"clip must be in \[0, 1\]",
        ),
        (
            lambda: ppo_clip_loss(NOW, BEFORE, 1.0, clip_high=-1),
            ValueError,
            "clip_high must be >=",
        ),
        (lambda: grpo_loss(NOW, BEFORE, 1.0, NOW[0]), ValueError, r"reference_log_probs of shape"),
        (
            lambda: grpo_loss(NOW, BEFORE, 1.0, NOW, beta=-1),
            ValueError,
            "beta must be >= 0",
        ),
        (
            lambda: grpo_loss(NOW, BEFORE, 1.0, where=NOW),
            ValueError,
            "where must be boolean",
        ),
        (lambda: group_advantages(1.0), ValueError, r"axis must be .* rewards of shape \(\); got"),
        (
            lambda: group_advantages(REWARDS, axis=2),
            ValueError,
            r"group_advantages: axis must be .* rewards of shape \(3, 5\); got \(2,",
        ),
        (lambda: group_advantages(np.arange(3)), TypeError, "rewards must be of a real floating"),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
