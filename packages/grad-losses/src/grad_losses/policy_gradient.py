r"""Losses of policies that are improved by samples of the policy before: PPO and GRPO.

With the ratio :math:`r = \pi / \pi_\mathrm{old}` of the probabilities of a token (or action), its
advantage A and the probability :math:`\rho` under a fixed reference,

.. math::

    \mathrm{ppo} &= -\min(r A, \mathrm{clip}(r, 1 - \epsilon, 1 + \epsilon') A) \\
    \mathrm{grpo} &= \mathrm{ppo} + \beta \Big(\frac{\rho}{\pi} - \log \frac{\rho}{\pi} - 1\Big)

where GRPO takes for advantages the rewards of a group of responses to one prompt, less their mean,
divided by their standard deviation. All is computed from logarithms of probabilities.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import (
    ShapeError,
    axes_of,
    between,
    broadcast_shape,
    floating,
    real,
    same_shape,
    widened,
)
from grad_losses._logits import class_mask
from grad_losses._vectors import centered, unit

_NOW = np.array([[-1.5, -0.4, -2.5], [-0.3, -1.2, -0.8]], np.float32)
_REFERENCE = np.array([[-1.1, -0.9, -2.0], [-0.6, -1.5, -0.2]], np.float32)
_BEFORE = np.array([[-1.3, -1.0, -2.4], [-0.9, -1.15, -0.7]], np.float32)
_ADVANTAGES = np.array([[0.7, 0.7, 0.7], [-1.2, -1.2, -1.2]], np.float32)
_NEGATIVE = (-math.inf, 0.0)


@example(_NOW, _BEFORE, _ADVANTAGES)
@promises(
    ranges={"log_probs": _NEGATIVE, "old_log_probs": _NEGATIVE},
    infinite=("log_probs", "old_log_probs"),
)
def ppo_clip_loss(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    advantages: ArrayLike,
    *,
    clip: ArrayLike = 0.2,
    clip_high: ArrayLike | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    """PPO: minus the advantage times the ratio of probabilities, clipped where it pays to stray.

    Args:
      log_probs: Log probabilities of tokens or actions taken, of any shape and floating point
        dtype.
      old_log_probs: Those under the policy that took them, of the same shape.
      advantages: How much better they were than expected, of any real dtype and a shape that
        broadcasts with `log_probs`; one per response is ``advantages[:, None]``.
      clip: How far, in [0, 1], the ratio may fall below 1 (and rise above it) before the loss is
        flat, a number or an array that broadcasts.
      clip_high: How far >= 0 it may rise above 1; as `clip` with None.
      where: Which tokens count, booleans that broadcast with `log_probs`; all with None.

    Returns:
      The losses, of the shape of `log_probs` (each token has its own), in the dtype that the log
      probabilities promote to; 0 for tokens that do not count.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes do not fit, `where` is not boolean, or `clip` or `clip_high` is out of
        its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ppo_clip_loss
      >>> old = jnp.log(jnp.array([0.5, 0.5, 0.5]))
      >>> new = jnp.log(jnp.array([0.55, 0.9, 0.9]))
      >>> ppo_clip_loss(new, old, jnp.array([1.0, 1.0, -1.0]), clip=0.25).round(2)
      Array([-1.1 , -1.25,  1.8 ], dtype=float32)

    Reference:
      Schulman et al., Proximal policy optimization algorithms, 2017, equation 7,
      https://arxiv.org/abs/1707.06347
    """
    name = "ppo_clip_loss"
    (now, before), mask, dtype = _tokens(
        name, where, log_probs=log_probs, old_log_probs=old_log_probs
    )
    loss = _clipped(name, now - before, advantages, clip, clip_high)
    return jnp.where(mask, loss, 0).astype(dtype)


@example(_NOW, _BEFORE, _ADVANTAGES, _REFERENCE)
@promises(
    ranges={"log_probs": _NEGATIVE, "old_log_probs": _NEGATIVE, "reference_log_probs": _NEGATIVE},
    infinite=("log_probs", "old_log_probs", "reference_log_probs"),
)
def grpo_loss(
    log_probs: ArrayLike,
    old_log_probs: ArrayLike,
    advantages: ArrayLike,
    reference_log_probs: ArrayLike | None = None,
    *,
    clip: ArrayLike = 0.2,
    clip_high: ArrayLike | None = None,
    beta: ArrayLike = 0.04,
    where: ArrayLike | None = None,
) -> jax.Array:
    """GRPO: the loss of PPO, with advantages relative to a group, and a divergence per token.

    Means are yours to take: GRPO takes that over each response, then that over responses,
    ``loss.mean(-1, where=mask).mean()``; DAPO the mean over all tokens.

    Args:
      log_probs: Log probabilities of the tokens, of any shape and floating point dtype.
      old_log_probs: Those under the policy that wrote them, of the same shape. With
        ``jax.lax.stop_gradient(log_probs)`` the policy wrote them just now.
      advantages: Of any real dtype and a shape that broadcasts with `log_probs`; such as
        ``group_advantages(rewards)[..., None]``.
      reference_log_probs: Those under the reference, of the same shape; no divergence with None.
      clip: How far, in [0, 1], the ratio may fall below 1 (and rise above it) before the loss is
        flat, a number or an array that broadcasts.
      clip_high: How far >= 0 it may rise above 1; as `clip` with None.
      beta: The weight >= 0 of the divergence, a number or an array that broadcasts.
      where: Which tokens count, booleans that broadcast with `log_probs`; all with None.

    Returns:
      The losses, of the shape of `log_probs` (each token has its own), in the dtype that the log
      probabilities promote to; 0 for tokens that do not count.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes do not fit, `where` is not boolean, or a number is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import group_advantages, grpo_loss
      >>> log_probs = jnp.log(jnp.array([[0.5, 0.2], [0.1, 0.4]]))
      >>> advantages = group_advantages(jnp.array([1.0, 0.0]))[:, None]
      >>> grpo_loss(log_probs, log_probs, advantages, log_probs).round(4)
      Array([[-1., -1.],
             [ 1.,  1.]], dtype=float32)

    Reference:
      Shao et al., DeepSeekMath, 2024, equations 3 and 4, https://arxiv.org/abs/2402.03300;
      Schulman, Approximating KL divergence, 2020 (k3).
    """
    name = "grpo_loss"
    between(name, 0, math.inf, beta=beta)
    if reference_log_probs is None:
        beta, reference_log_probs = 0.0, old_log_probs
    (now, before, reference), mask, dtype = _tokens(
        name,
        where,
        log_probs=log_probs,
        old_log_probs=old_log_probs,
        reference_log_probs=reference_log_probs,
    )
    loss = _clipped(name, now - before, advantages, clip, clip_high)
    loss += _divergence(jnp.asarray(beta), reference - now)
    return jnp.where(mask, loss, 0).astype(dtype)


@example(np.array([[1.0, 0.0, 0.5, 0.2], [0.3, 0.9, -0.5, 0.1]], np.float32))
def group_advantages(
    rewards: ArrayLike,
    *,
    axis: int = -1,
    scale: bool = True,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Rewards relative to their group: less their mean, in units of their standard deviation.

    (r - mean(r)) / std(r), where std divides by the size of the group, not by one less.

    Args:
      rewards: Of the responses to each prompt, of shape [..., group] and floating point dtype.
      axis: The axis of the group.
      scale: Whether to divide by the standard deviation; Dr. GRPO does not.
      where: Which responses count, booleans that broadcast with `rewards`; all with None.

    Returns:
      The advantages, of the shape and dtype of `rewards`; exactly 0 for groups of equal rewards,
      and for responses that do not count.

    Raises:
      TypeError: If `rewards` is not floating point.
      ValueError: If `axis` does not exist, or `where` is not boolean or does not fit.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import group_advantages
      >>> group_advantages(jnp.array([[1.0, 0.0, 1.0, 0.0], [0.1, 0.1, 0.1, 0.1]]))
      Array([[ 1., -1.,  1., -1.],
             [ 0.,  0.,  0.,  0.]], dtype=float32)

    Reference:
      Shao et al., DeepSeekMath, 2024, section 4.1.2, https://arxiv.org/abs/2402.03300; Liu et al.,
      Understanding R1-Zero-like training, 2025, for the one without division.
    """
    name = "group_advantages"
    rewards = floating(name, "rewards", rewards)
    (axis,) = axes_of(name, (axis,), "rewards", rewards)
    dtype = rewards.dtype
    mask = class_mask(name, where, rewards, "rewards")
    advantages = centered(widened(rewards)[0], mask, axis)
    if scale:
        count = jnp.sum(mask, axis=axis, keepdims=True)
        advantages = jnp.sqrt(count.astype(advantages.dtype)) * unit(advantages, axis)
    return advantages.astype(dtype)


def _tokens(
    loss: str, where: ArrayLike | None, **log_probs: ArrayLike
) -> tuple[list[jax.Array], jax.Array, jnp.dtype]:
    """Arguments of one shape to compute with, the mask of that shape, and the dtype to return."""
    arrays = {name: floating(loss, name, value) for name, value in log_probs.items()}
    same_shape(loss, **arrays)
    wide = widened(*arrays.values())
    mask = class_mask(loss, where, wide[0], "log_probs")
    return (
        [jnp.where(mask, array, 0) for array in wide],
        mask,
        jnp.result_type(*arrays.values()),
    )


def _clipped(
    loss: str,
    log_ratio: jax.Array,
    advantages: ArrayLike,
    clip: ArrayLike,
    clip_high: ArrayLike | None,
) -> jax.Array:
    """``-min(r A, clip(r) A)``: the ratio is bounded above where A > 0, and below where A < 0."""
    clip_high = clip if clip_high is None else clip_high
    between(loss, 0, 1, clip=clip)
    between(loss, 0, math.inf, clip_high=clip_high)
    advantages = real(loss, "advantages", advantages)
    if broadcast_shape(loss, advantages=advantages, log_probs=log_ratio) != log_ratio.shape:
        raise ShapeError(
            f"{loss}: advantages of shape {advantages.shape} have more elements than log_probs of "
            f"shape {log_ratio.shape}."
        )
    advantages = advantages.astype(log_ratio.dtype)
    low, high = jnp.log1p(jnp.negative(clip)), jnp.log1p(clip_high)
    # Bounded before exp: an infinite ratio has gradients that are NaN also where it is not used.
    bounded = jnp.where(
        advantages >= 0,
        jnp.where(log_ratio > high, high, log_ratio),
        jnp.where(log_ratio < low, low, log_ratio),
    )
    return -advantages * jnp.exp(bounded)


def _divergence(weight: jax.Array, log_ratio: jax.Array) -> jax.Array:
    """The estimate k3 of KL(policy, reference), ``r - log(r) - 1`` with r = reference / policy.

    It is infinite where r or its reciprocal is, but nothing where the weight is 0.
    """
    is_void = (weight == 0) & jnp.isinf(jnp.exp(jnp.abs(log_ratio)))
    largest = jnp.finfo(log_ratio.dtype).max  # type: ignore[no-untyped-call]
    # Of an infinite ratio the difference would be NaN.
    log_ratio = jnp.where(is_void, 0, jnp.where(log_ratio > largest, largest, log_ratio))
    return weight * (jnp.expm1(log_ratio) - log_ratio)
