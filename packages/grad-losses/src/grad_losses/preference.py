r"""Losses that learn from preferences between responses of a language model.

All take the logarithms of probabilities, :math:`\log\pi` under the model that is trained and
:math:`\log\rho` under a fixed reference, of whole responses: + is the chosen one, - the rejected.
With the log ratio :math:`r = \log\pi - \log\rho`,

.. math::

    \mathrm{dpo} &= -(1 - \epsilon) \log \sigma(\beta (r_+ - r_-))
        - \epsilon \log \sigma(-\beta (r_+ - r_-)) \\
    \mathrm{ipo} &= \big(r_+ - r_- - \tfrac1{2\beta}\big)^2 \\
    \mathrm{simpo} &= -\log \sigma(\beta\,(\overline{\log\pi}_+ - \overline{\log\pi}_-) - \gamma) \\
    \mathrm{orpo} &= -\overline{\log\pi}_+ - \beta \log \sigma\Big(\log \frac{o_+}{o_-}\Big),
        \qquad o = \frac{p}{1 - p}, \quad p = e^{\overline{\log\pi}} \\
    \mathrm{kto} &= w_+\,\sigma(\beta (z - r)) \text{ if desirable, or } w_-\,\sigma(\beta (r - z))

where a bar is the mean over tokens. From logits of tokens, with a mask of the response, those are::

    tokens = -softmax_cross_entropy_with_integer_labels(logits, labels)
    whole, mean = tokens.sum(-1, where=mask), tokens.mean(-1, where=mask)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from grad_core import example, promises
from grad_losses._checks import between, floating, positive, same_shape, widened
from grad_losses.classification import sigmoid_binary_cross_entropy

_CHOSEN = np.array([-1.5, -0.4, -2.5], np.float32)
_REJECTED = np.array([-2.0, -0.7, -1.1], np.float32)
_CHOSEN_BEFORE = np.array([-1.9, -0.3, -2.2], np.float32)
_REJECTED_BEFORE = np.array([-1.7, -0.9, -1.4], np.float32)
_NEGATIVE = (-math.inf, 0.0)
_PAIRS = {"chosen": _NEGATIVE, "rejected": _NEGATIVE}
_PAIRS_BEFORE = {"reference_chosen": _NEGATIVE, "reference_rejected": _NEGATIVE}


@example(_CHOSEN, _REJECTED, _CHOSEN_BEFORE, _REJECTED_BEFORE)
@promises(ranges=_PAIRS | _PAIRS_BEFORE, infinite=(*_PAIRS, *_PAIRS_BEFORE))
def dpo_loss(
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
    label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
    """DPO: the logistic loss of preferring the chosen response, more than the reference does.

    Args:
      chosen: Log probabilities of the chosen responses, of any shape and floating point dtype.
      rejected: Those of the rejected responses, of the same shape.
      reference_chosen: Those of the chosen responses under the reference, of the same shape.
      reference_rejected: Those of the rejected responses under the reference.
      beta: The number > 0, or array that broadcasts, that log ratios are multiplied with.
      label_smoothing: The probability in [0, 1] that a preference is the wrong way round, a number
        or an array that broadcasts.

    Returns:
      The losses, of the same shape, in the dtype that the log probabilities promote to.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes differ, `beta` is not positive or `label_smoothing` not in [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import dpo_loss
      >>> before = jnp.array([-2.0, -2.0])
      >>> dpo_loss(jnp.array([-2.0, -3.0]), before, before, before, beta=1.0).round(4)
      Array([0.6931, 1.3133], dtype=float32)

    Reference:
      Rafailov et al., Direct preference optimization, 2023, equation 7,
      https://arxiv.org/abs/2305.18290; Mitchell, A note on DPO with noisy preferences, 2023.
    """
    name = "dpo_loss"
    positive(name, beta=beta)
    between(name, 0, 1, label_smoothing=label_smoothing)
    gap, dtype = _gap(name, chosen, rejected, reference_chosen, reference_rejected)
    return sigmoid_binary_cross_entropy(beta * gap, 1 - label_smoothing).astype(dtype)


@example(_CHOSEN, _REJECTED, _CHOSEN_BEFORE, _REJECTED_BEFORE)
@promises(ranges=_PAIRS | _PAIRS_BEFORE, infinite=(*_PAIRS, *_PAIRS_BEFORE))
def ipo_loss(
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
    *,
    beta: ArrayLike = 0.1,
) -> jax.Array:
    """IPO: the squared distance of the gap between log ratios from 1 / (2 beta).

    Unlike with DPO, the gap cannot grow without bounds on preferences that are never contradicted.

    Args:
      chosen: Log probabilities of the chosen responses, of any shape and floating point dtype.
      rejected: Those of the rejected responses, of the same shape.
      reference_chosen: Those of the chosen responses under the reference, of the same shape.
      reference_rejected: Those of the rejected responses under the reference.
      beta: How strongly the model is held to the reference, the tau of the paper; a number > 0 or
        an array that broadcasts.

    Returns:
      The losses, of the same shape, in the dtype that the log probabilities promote to.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes differ or `beta` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import ipo_loss
      >>> before = jnp.array([-2.0, -2.0])
      >>> ipo_loss(jnp.array([-2.0, -1.0]), before, before, before, beta=0.5)
      Array([1., 0.], dtype=float32)

    Reference:
      Azar et al., A general theoretical paradigm to understand learning from human preferences,
      2023, equation 17, https://arxiv.org/abs/2310.12036
    """
    name = "ipo_loss"
    positive(name, beta=beta)
    gap, dtype = _gap(name, chosen, rejected, reference_chosen, reference_rejected)
    return jnp.square(gap - 0.5 / beta).astype(dtype)


@example(_CHOSEN, _REJECTED)
@promises(ranges=_PAIRS, infinite=tuple(_PAIRS))
def simpo_loss(
    chosen: ArrayLike, rejected: ArrayLike, *, beta: ArrayLike = 2.0, margin: ArrayLike = 0.5
) -> jax.Array:
    """SimPO: the logistic loss of preferring the chosen response, per token, without a reference.

    Args:
      chosen: Mean log probabilities of the tokens of the chosen responses, of any shape and
        floating point dtype.
      rejected: Those of the rejected responses, of the same shape.
      beta: The number > 0, or array that broadcasts, that log probabilities are multiplied with.
      margin: By how much the chosen response should win, the gamma of the paper; a number or an
        array that broadcasts.

    Returns:
      The losses, of the same shape, in the dtype that the log probabilities promote to.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes differ or `beta` is not positive.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import simpo_loss
      >>> simpo_loss(jnp.array([-1.0]), jnp.array([-1.5]), beta=2.0, margin=1.0).round(4)
      Array([0.6931], dtype=float32)

    Reference:
      Meng, Xia and Chen, SimPO: Simple preference optimization with a reference-free reward, 2024,
      equation 6, https://arxiv.org/abs/2405.14734
    """
    name = "simpo_loss"
    positive(name, beta=beta)
    between(name, -math.inf, math.inf, margin=margin)
    (chosen, rejected), dtype = _log_probabilities(name, chosen=chosen, rejected=rejected)
    return jax.nn.softplus(margin - beta * (chosen - rejected)).astype(dtype)


@example(_CHOSEN, _REJECTED)
@promises(ranges=_PAIRS, infinite=tuple(_PAIRS))
def orpo_loss(chosen: ArrayLike, rejected: ArrayLike, *, beta: ArrayLike = 0.1) -> jax.Array:
    """ORPO: the usual loss of the chosen response, and beta times one of the odds of the two.

    Args:
      chosen: Mean log probabilities <= 0 of the tokens of the chosen responses, of any shape and
        floating point dtype.
      rejected: Those of the rejected responses, of the same shape.
      beta: The weight >= 0 of the loss of the odds, the lambda of the paper; a number or an array
        that broadcasts.

    Returns:
      The losses, of the same shape, in the dtype that the log probabilities promote to. They are
      exact up to a chosen probability of 1; a rejected one of 1 costs infinity.

    Raises:
      TypeError: If log probabilities are not floating point.
      ValueError: If shapes differ or `beta` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import orpo_loss
      >>> orpo_loss(
      ...     jnp.log(jnp.array([0.5, 1.0])), jnp.log(jnp.array([0.5, 0.2])), beta=1.0
      ... ).round(4)
      Array([1.3863, 0.    ], dtype=float32)

    Reference:
      Hong, Lee and Thorne, ORPO: Monolithic preference optimization without reference model, 2024,
      equations 6 and 7, https://arxiv.org/abs/2403.07691
    """
    name = "orpo_loss"
    between(name, 0, math.inf, beta=beta)
    (chosen, rejected), dtype = _log_probabilities(name, chosen=chosen, rejected=rejected)
    return (_odds_loss(chosen, rejected) * beta - chosen).astype(dtype)


@example(_CHOSEN, _CHOSEN_BEFORE, np.array([True, False, True]))
@promises(ranges={"policy": _NEGATIVE, "reference": _NEGATIVE}, infinite=("policy", "reference"))
def kto_loss(
    policy: ArrayLike,
    reference: ArrayLike,
    desirable: ArrayLike,
    *,
    kl: ArrayLike = 0.0,
    beta: ArrayLike = 0.1,
    desirable_weight: ArrayLike = 1.0,
    undesirable_weight: ArrayLike = 1.0,
) -> jax.Array:
    """KTO: how far responses, each good or bad by itself, are on the wrong side of the average.

    Args:
      policy: Log probabilities of the responses, of any shape and floating point dtype.
      reference: Those under the reference, of the same shape.
      desirable: Which responses are good, booleans of the same shape.
      kl: The divergence of the policy from the reference that log ratios are compared with, a
        number or an array that broadcasts. The paper takes the mean log ratio of other responses,
        such as those to other prompts of the batch. It counts as a constant in derivatives, and as
        0 if negative.
      beta: The number > 0, or array that broadcasts, that log ratios are multiplied with.
      desirable_weight: The weight >= 0 of desirable responses.
      undesirable_weight: The weight >= 0 of undesirable ones.

    Returns:
      The losses, of the same shape, in the dtype that the log probabilities promote to: between 0
      and the weight.

    Raises:
      TypeError: If log probabilities are not floating point or `desirable` not boolean.
      ValueError: If shapes differ or a number is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_losses import kto_loss
      >>> policy, good = jnp.array([-2.0, 5.0, 5.0]), jnp.array([True, True, False])
      >>> kto_loss(policy, jnp.array([-2.0, -2.0, -2.0]), good, beta=1.0).round(2)
      Array([0.5, 0. , 1. ], dtype=float32)

    Reference:
      Ethayarajh et al., KTO: Model alignment as prospect theoretic optimization, 2024, equation 8,
      https://arxiv.org/abs/2402.01306
    """
    name = "kto_loss"
    positive(name, beta=beta)
    between(name, -math.inf, math.inf, kl=kl)
    between(
        name,
        0,
        math.inf,
        desirable_weight=desirable_weight,
        undesirable_weight=undesirable_weight,
    )
    desirable = jnp.asarray(desirable)
    if desirable.dtype != bool:
        raise TypeError(
            f"{name}: desirable must be boolean; got {desirable.dtype}. Try desirable > 0."
        )
    (policy, reference), dtype = _log_probabilities(name, policy=policy, reference=reference)
    same_shape(name, policy=policy, desirable=desirable)
    advantage = policy - reference - jax.lax.stop_gradient(jnp.maximum(kl, 0))
    weight = jnp.where(desirable, desirable_weight, undesirable_weight)
    wrong = jnp.where(desirable, -advantage, advantage)
    return (weight * jax.nn.sigmoid(beta * wrong)).astype(dtype)


def _log_probabilities(loss: str, **named: ArrayLike) -> tuple[list[jax.Array], jnp.dtype]:
    """The arguments, of one shape, to compute with, and the dtype to return."""
    arrays = {name: floating(loss, name, value) for name, value in named.items()}
    same_shape(loss, **arrays)
    return widened(*arrays.values()), jnp.result_type(*arrays.values())


def _gap(
    loss: str,
    chosen: ArrayLike,
    rejected: ArrayLike,
    reference_chosen: ArrayLike,
    reference_rejected: ArrayLike,
) -> tuple[jax.Array, jnp.dtype]:
    """By how much the log ratio of the chosen exceeds that of the rejected; dtype to return."""
    (c, r, reference_c, reference_r), dtype = _log_probabilities(
        loss,
        chosen=chosen,
        rejected=rejected,
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )
    return (c - reference_c) - (r - reference_r), dtype


def _odds_loss(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
    """``log(1 + o_rejected / o_chosen)``, of the odds o = p / (1 - p), from log p."""
    is_right = chosen >= rejected
    high, low = jnp.where(is_right, chosen, rejected), jnp.where(is_right, rejected, chosen)
    # The ratio q <= 1 of the smaller odds to the larger is smooth where the larger are infinite.
    # Where both are, it counts as 1.
    are_certain = low == 0
    low = jnp.where(are_certain, -1, low)
    ratio = -jnp.expm1(high) * jnp.exp(_log_odds(low) - high)
    loss = jnp.log1p(jnp.where(are_certain, 1, ratio))
    # In the wrong order, log(1 + 1 / q) is log(1 + q) - log(q), and here no chosen p is 1.
    log_ratio = _log_odds(jnp.where(is_right, -1, high)) - _log_odds(low)
    return loss + jnp.where(is_right, 0, log_ratio)


def _log_odds(log_p: jax.Array) -> jax.Array:
    """``log(p / (1 - p))`` from log p."""
    return log_p - jnp.log(-jnp.expm1(log_p))
