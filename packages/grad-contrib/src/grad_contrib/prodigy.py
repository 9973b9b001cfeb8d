r"""Prodigy: Adam that estimates its own learning rate, the distance to the solution.

With the estimate :math:`d_t`, from a tiny :math:`d_0`, and :math:`\lambda_t = \gamma_t d_{t-1}
\sqrt{1 - \beta_2^t} / (1 - \beta_1^t)`, where the learning rate :math:`\gamma_t` is a factor near
1; inner products and the 1-norm are over the whole tree:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) d_{t-1} g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |d_{t-1} g_t|^2 \\
    r_t &= \beta_3 r_{t-1} + (d_{t-1} / d_0) \lambda_t \langle g_t, \theta_0 - \theta_t \rangle \\
    s_t &= \beta_3 s_{t-1} + (d_{t-1} / d_0) \lambda_t g_t \\
    d_t &= \max(d_{t-1}, c \, r_t / \|s_t\|_1) \\
    \theta_{t+1} &= \theta_t - \lambda_t \left(
        \frac{m_t}{\sqrt{v_t} + d_t \varepsilon} + w \theta_t \right)

The distance is that from the first parameters, so nothing but `prodigy` should move them: what
scales or clips its updates spoils the estimate. While all gradients have been zero, updates are
zero and the state stays as it is, the count included.

References:
  Mishchenko and Defazio, Prodigy: an expeditiously adaptive parameter-free learner, 2023
  (arXiv 2306.06101), algorithm 4; the factor d / d_0 is its implementation's.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from grad_contrib._arguments import pair_of_decays
from grad_contrib._sums import dot, rate_at, rows, total, wide_zeros
from grad_core import (
    Decay,
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskedState,
    MaskOrFn,
    NonNegative,
    OptState,
    Params,
    Real,
    Scalar,
    SharedNumber,
    TreeRule,
    Updates,
    abs_sq,
    add_decayed_weights,
    copy_of,
    example,
    rule,
    safe_divide,
    safe_increment,
    safe_sqrt,
    second_moment,
    transformation,
    with_extra_args_support,
)


class ProdigyState(NamedTuple):
    """Moments m and v, the sum s, the first parameters, the estimate d, the sum r, the count."""

    exp_avg: Updates
    exp_avg_sq: Updates
    grad_sum: Updates
    params0: Params
    estim_lr: jax.Array
    numerator_weighted: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuple.count


@example(estim_lr0=0.05)  # the default's first steps are too short to see
@transformation
def prodigy(
    learning_rate: LearningRate = 1.0,
    betas: tuple[Scalar, Scalar] = (0.9, 0.999),
    beta3: Decay | None = None,
    eps: NonNegative = 1e-8,
    estim_lr0: NonNegative = 1e-6,
    estim_lr_coef: Real = 1.0,
    weight_decay: Real = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: MaskOrFn | None = None,
) -> GradientTransformationExtraArgs:
    """Prodigy: AdamW whose learning rate is an estimate of the distance to the solution.

    State: four numbers a parameter, 16 bytes for float32, 14 for bfloat16, whose moments are kept
    in float32 too: at first they are as small as `estim_lr0`.

    Args:
      learning_rate: What multiplies the estimate, 1 or a schedule that falls from it: a number, an
        array of shape () or a schedule; its sign is free.
      betas: The decays of the first and the second moment, in [0, 1].
      beta3: The decay of the sums that make the estimate; the root of the second beta with None.
      eps: Added to the root, in units of the estimate.
      estim_lr0: The first estimate, to be smaller than any sensible learning rate.
      estim_lr_coef: What the new estimate is multiplied by; the way to tune it.
      weight_decay: The multiple of the parameters that is added; the whole step size multiplies it.
      safeguard_warmup: Whether to leave the learning rate out of the 1-norm (d^2 / d_0 in place of
        its factor), so that a warm-up does not make the estimate too large.
      weight_decay_mask: Which leaves to decay, as in `masked`; all with None.

    Returns:
      A transformation whose state is a `ProdigyState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_contrib import prodigy
      >>> from grad_core import apply_updates
      >>> optimizer = prodigy()
      >>> params = jnp.array([10.0, -20.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(100):
      ...     grads = jax.grad(lambda p: jnp.sum(jnp.abs(p - 1.0)))(params)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     params = apply_updates(params, updates)
      >>> bool(1.0 < state.estim_lr < 21.0)
      True
    """
    b1, b2 = pair_of_decays("prodigy", betas)
    b3 = b2**0.5 if beta3 is None else beta3
    return _prodigy(  # type: ignore[return-value]
        _direction(learning_rate, b1, b2, b3, eps, estim_lr0, estim_lr_coef, safeguard_warmup),
        add_decayed_weights(weight_decay, weight_decay_mask),
        _steps(learning_rate, b1, b2),
        weight_decay_mask is not None,
    )


@rule
def _prodigy(
    direction: GradientTransformation,
    decay: GradientTransformation,
    steps: GradientTransformation,
    is_masked: bool,
) -> TreeRule:
    """A direction, the decay of weights, and the step size; the last two keep nothing."""
    decay_state = MaskedState(EmptyState()) if is_masked else EmptyState()

    def update(
        updates: Updates, state: ProdigyState, params: Params, **extra_args: object
    ) -> tuple[Updates, OptState]:
        point, step = with_extra_args_support(direction), with_extra_args_support(steps)
        new: Any
        u, new = point.update(updates, state, params)
        u, _ = decay.update(u, decay_state, params)
        known = {"last_count": state.count, "d": state.estim_lr, "moves": new.count > 0}
        u, _ = step.update(u, EmptyState(), **known)
        return u, new

    return TreeRule(update, direction.init, inner_state=lambda state: state)


def _step_size(
    learning_rate: LearningRate, b1: Any, b2: Any, count: jax.Array, d: jax.Array
) -> Any:
    """The factor lambda of the next step."""
    t = safe_increment(count)
    bias_correction = (1 - b2**t) ** 0.5 / (1 - b1**t)
    return d * rate_at(learning_rate, count) * bias_correction


@rule
def _direction(
    learning_rate: LearningRate,
    b1: Decay,
    b2: Decay,
    b3: Decay,
    eps: NonNegative,
    estim_lr0: NonNegative,
    estim_lr_coef: Real,
    safeguard_warmup: bool,
) -> LeafRule:
    """Prodigy's direction, m / (sqrt(v) + d * eps), and its whole state."""

    def once(
        updates: Updates,
        params: Params,
        grad_sum: Updates,
        params0: Params,
        estim_lr: jax.Array,
        numerator_weighted: jax.Array,
        last_count: jax.Array,
    ) -> dict[str, Any]:
        d = estim_lr
        weight = safe_divide(d, jnp.asarray(estim_lr0, d.dtype))
        size = _step_size(learning_rate, b1, b2, last_count, d)
        g_weight = weight * (d if safeguard_warmup else size)
        trees = rows(updates, params, params0, grad_sum)
        way, length = [], []
        for g, p, p0, s in trees:
            way.append(dot(g, p0 - p))
            length.append(jnp.sum(jnp.abs(b3 * s + g_weight * g)))
        r = b3 * numerator_weighted + weight * size * total(way)
        estimate = estim_lr_coef * safe_divide(r, total(length))
        moves = total(length) > 0
        return {
            "d": d,
            "g_weight": g_weight,
            "estim_lr": jnp.maximum(d, estimate),
            "numerator_weighted": r,
            "count": jnp.where(moves, safe_increment(last_count), last_count),
        }

    def step(
        g: jax.Array,
        p: jax.Array,
        exp_avg: jax.Array,
        exp_avg_sq: jax.Array,
        grad_sum: jax.Array,
        params0: jax.Array,
        d: jax.Array,
        g_weight: jax.Array,
        estim_lr: jax.Array,
    ) -> tuple[jax.Array, ...]:
        m = b1 * exp_avg + (1 - b1) * d * g
        v = b2 * exp_avg_sq + (1 - b2) * abs_sq(d * g)
        u = safe_divide(m, safe_sqrt(v) + estim_lr * eps)
        return u, m, v, b3 * grad_sum + g_weight * g, params0

    return LeafRule(
        step,
        ProdigyState,
        once=once,
        exp_avg=wide_zeros,
        exp_avg_sq=second_moment(),
        grad_sum=wide_zeros,
        params0=copy_of,
        estim_lr=SharedNumber(lambda params: estim_lr0),
        numerator_weighted=SharedNumber(lambda params: 0.0),
        count=np.int32(0),
    )


@rule
def _steps(learning_rate: LearningRate, b1: Decay, b2: Decay) -> LeafRule:
    """Prodigy's step, -lambda * u, or none while no gradient has been seen."""

    def once(last_count: jax.Array, d: jax.Array, moves: jax.Array) -> dict[str, Any]:
        size = _step_size(learning_rate, b1, b2, last_count, d)
        return {"size": jnp.where(moves, size, 0.0)}

    return LeafRule(lambda g, size: -size * g, once=once)
