r"""RMSProp: gradients over the root of the mean of their squares, or over their deviation.

For the gradient g_t of a parameter, elementwise:

.. math::

    v_t &= \beta v_{t-1} + (1 - \beta) |g_t|^2 \\
    u_t &= g_t / \sqrt{v_t + \varepsilon}

or :math:`g_t / (\sqrt{v_t} + \varepsilon)`. The centered variant divides by the standard deviation:

.. math::

    m_t &= \beta m_{t-1} + (1 - \beta) g_t \\
    u_t &= g_t / \sqrt{v_t - |m_t|^2 + \varepsilon}

With bias correction, :math:`m_t / (1 - \beta^t)` and :math:`v_t / (1 - \beta^t)` stand for
:math:`m_t` and :math:`v_t` in the directions. RMSProp steps by :math:`-\alpha u_t`, or by a
momentum of these steps.

References:
  Tieleman and Hinton, Neural networks for machine learning, lecture 6.5, 2012.
  Graves, Generating sequences with recurrent neural networks, 2013 (arXiv 1308.0850).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Updates,
    abs_sq,
    chain,
    example,
    full_like,
    identity,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    trace,
    transformation,
    zeros_like,
)


class ScaleByRmsState(NamedTuple):
    """The second moment of the gradients."""

    nu: Updates


class ScaleByRmsWithCountState(NamedTuple):
    """The number of updates, for bias correction, and the second moment of the gradients."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    nu: Updates


class ScaleByRStdDevState(NamedTuple):
    """The first and second moments of the gradients."""

    mu: Updates
    nu: Updates


class ScaleByRStdDevWithCountState(NamedTuple):
    """The number of updates, for bias correction, and both moments of the gradients."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates


@rule
def scale_by_rms(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Divides by the root of the mean square of past gradients, u = g / sqrt(v + eps).

    Args:
      decay: Decay of the second moment, in [0, 1].
      eps: Added under the root, or to it.
      initial_scale: The second moment before the first update.
      eps_in_sqrt: Whether `eps` stands under the root; u = g / (sqrt(v) + eps) if not.
      bias_correction: Whether to divide the second moment by 1 - decay^t.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByRmsState`, or with `bias_correction` a
      `ScaleByRmsWithCountState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_rms
      >>> tx = scale_by_rms(decay=0.75)
      >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 2., -2.], dtype=float32)
    """

    def step(g: jax.Array, nu: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array]:
        nu = decay * nu + (1 - decay) * abs_sq(g)
        return safe_divide(g, _root(c * nu, eps, eps_in_sqrt)), nu

    return LeafRule(
        step,
        ScaleByRmsWithCountState if bias_correction else ScaleByRmsState,
        once=_correction(decay, bias_correction),
        nu=_started_at(initial_scale, nu_dtype),
    )


@rule
def scale_by_stddev(
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Divides by the standard deviation of past gradients, u = g / sqrt(v - |m|^2 + eps).

    Args:
      decay: Decay of both moments, in [0, 1].
      eps: Added under the root, or to it.
      initial_scale: The second moment before the first update.
      eps_in_sqrt: Whether `eps` stands under the root; u = g / (sqrt(v - |m|^2) + eps) if not.
      bias_correction: Whether to divide both moments by 1 - decay^t.
      mu_dtype: The dtype of the first moment; with None the parameter's, but at least float32,
        since the variance is the small difference of large moments.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByRStdDevState`, or with `bias_correction` a
      `ScaleByRStdDevWithCountState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_stddev
      >>> tx = scale_by_stddev(decay=0.8)
      >>> tx.update(jnp.array([3.0, -0.1]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 2.5, -2.5], dtype=float32)
    """

    def step(
        g: jax.Array, mu: jax.Array, nu: jax.Array, c: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * abs_sq(g)
        # v - |m|^2 as a product, since |m|^2 may overflow; rounding may make it negative.
        rms, mean = safe_sqrt(c * nu), jnp.abs(c * mu)
        variance = jnp.maximum(rms - mean, 0) * (rms + mean)
        return safe_divide(g, _root(variance, eps, eps_in_sqrt)), mu, nu

    def first_mu(p: jax.Array) -> jax.Array:
        return zeros_like(p, mu_dtype or jnp.promote_types(jnp.result_type(p), jnp.float32))

    return LeafRule(
        step,
        ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState,
        once=_correction(decay, bias_correction),
        mu=first_mu,
        nu=_started_at(initial_scale, nu_dtype),
    )


def _root(square: jax.Array, eps: NonNegative, eps_in_sqrt: bool) -> jax.Array:
    return safe_sqrt(square + eps) if eps_in_sqrt else safe_sqrt(square) + eps


def _correction(decay: Decay, bias_correction: bool) -> Callable[..., dict[str, Any]]:
    """The factor that corrects moments."""
    if bias_correction:
        return lambda t: {"c": 1 / (1 - decay**t)}
    return lambda: {"c": 1.0}


def _started_at(value: NonNegative, dtype: DType | None) -> Callable[[jax.Array], jax.Array]:
    zeros = second_moment(dtype)
    return lambda p: full_like(zeros(p), value)


@example(1e-3)
@transformation
def rmsprop(
    learning_rate: LearningRate,
    decay: Decay = 0.9,
    eps: NonNegative = 1e-8,
    initial_scale: NonNegative = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Decay | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
    *,
    accumulator_dtype: DType | None = None,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """RMSProp: descent along gradients over the root of their mean square.

    State: one number a parameter, 4 bytes for float32 and for bfloat16; if centered, another one
    of 4 bytes; with momentum one more, in the parameter's dtype.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      decay: As for `scale_by_rms`, and so are the others up to `eps_in_sqrt`.
      eps: Added under the root, or to it.
      initial_scale: The second moment before the first update.
      eps_in_sqrt: Whether `eps` stands under the root.
      centered: Whether to divide by the standard deviation, as `scale_by_stddev` does.
      momentum: The decay of a sum of past steps, in [0, 1]; None for none.
      nesterov: Whether the momentum looks one step ahead.
      bias_correction: Whether to correct the moments' start from zero.
      accumulator_dtype: The dtype of the momentum; the parameter's with None.
      mu_dtype: The dtype of the first moment, if centered.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of the scaling, the learning rate
      and the momentum.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import rmsprop
      >>> optimizer = rmsprop(0.1, decay=0.75)
      >>> optimizer.update(jnp.array([3.0]), optimizer.init(jnp.array([0.0])))[0]
      Array([-0.2], dtype=float32)
    """
    arguments = (decay, eps, initial_scale, eps_in_sqrt, bias_correction)
    if centered:
        scaling = scale_by_stddev(*arguments, mu_dtype=mu_dtype, nu_dtype=nu_dtype)
    else:
        scaling = scale_by_rms(*arguments, nu_dtype=nu_dtype)
    return chain(
        scaling,
        scale_by_learning_rate(learning_rate),
        identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype),
    )
