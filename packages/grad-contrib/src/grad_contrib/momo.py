r"""MoMo: momentum whose step size comes from a model of the loss and a bound below it.

With means :math:`d_t` of the gradients, :math:`\bar f_t` of the losses and :math:`\gamma_t` of
:math:`\langle g, \theta \rangle`, decayed by :math:`\beta`, and a lower bound :math:`f_*` of the
loss, the model of the loss is :math:`\max(\bar f_t - \gamma_t + \langle d_t, \theta \rangle, \rho_t
f_*) / \rho_t`. With a metric D, 1 for MoMo and Adam's root of the second moment for MoMo-Adam, the
step goes to the minimum of

.. math::

    \max(\bar f_t - \gamma_t + \langle d_t, \theta \rangle, \rho_t f_*)
        + \frac{\rho_t}{2 \alpha_t} \|\theta - \theta_t\|_D^2
        + \frac{\rho_t \lambda}{2} \|\theta\|_D^2

which is, over the whole tree:

.. math::

    \tau_t &= \min\left(\frac{\alpha_t}{\rho_t}, \frac{\max(0, (1 + \alpha_t \lambda)
        (\bar f_t - \rho_t f_* - \gamma_t) + \langle d_t, \theta_t \rangle)}
        {\|d_t\|_{D^{-1}}^2}\right) \\
    \theta_{t+1} &= \frac{\theta_t - \tau_t D^{-1} d_t}{1 + \alpha_t \lambda}

MoMo's means start from the first gradient and loss, and :math:`\rho_t = 1`; MoMo-Adam's start from
0, with :math:`\rho_t = 1 - \beta_1^t` and :math:`D = \sqrt{v_t / (1 - \beta_2^t)} + \varepsilon`.
A bound that adapts is the one for which the last step was the best, at least the given one, and
halved first whenever the model falls below it.

References:
  Schaipp et al., MoMo: momentum models for adaptive learning rates, 2023 (arXiv 2305.07583).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_contrib._sums import dot, rate_at, rows, sq_norm, total
from grad_core import (
    Decay,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Numeric,
    Params,
    Real,
    SharedNumber,
    Updates,
    abs_sq,
    first_moment,
    needs_extra_args,
    rule,
    safe_divide,
    safe_sqrt,
    second_moment,
    transformation,
)


class MomoState(NamedTuple):
    """The means of gradients, losses and inner products, the lower bound, the count."""

    exp_avg: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuple.count


class MomoAdamState(NamedTuple):
    """The same with the second moment of the gradients."""

    exp_avg: Updates
    exp_avg_sq: Updates
    barf: jax.Array
    gamma: jax.Array
    lb: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuple.count


@needs_extra_args(value=2.0)
@transformation
def momo(
    learning_rate: LearningRate = 1.0,
    beta: Decay = 0.9,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """MoMo: gradient descent with momentum and an adaptive step size; see the module.

    Its ``update`` takes the loss as the extra argument ``value``, of shape (). State: one number a
    parameter, of its dtype.

    Args:
      learning_rate: The largest step size: a number, an array of shape () or a schedule.
      beta: Decay of the means, in [0, 1].
      lower_bound: A lower bound of the loss; 0 for most.
      weight_decay: The weight of the penalty, applied by a proximal step.
      adapt_lower_bound: Whether to estimate the bound, from `lower_bound` upwards.

    Returns:
      A transformation whose state is a `MomoState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters or ``value``.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_contrib import momo
      >>> from grad_core import apply_updates
      >>> optimizer = momo()
      >>> params = jnp.array([3.0, 4.0])
      >>> value, grads = jax.value_and_grad(lambda p: jnp.sum(p**2))(params)
      >>> state = optimizer.init(params)
      >>> updates, state = optimizer.update(grads, state, params, value=value)
      >>> apply_updates(params, updates)
      Array([1.5, 2. ], dtype=float32)
    """
    return _momo(learning_rate, beta, lower_bound, weight_decay, adapt_lower_bound)  # type: ignore[return-value]


@needs_extra_args(value=2.0)
@transformation
def momo_adam(
    learning_rate: LearningRate = 1e-2,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    lower_bound: Real = 0.0,
    weight_decay: NonNegative = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """MoMo-Adam: Adam with an adaptive step size; see the module.

    Its ``update`` takes the loss as the extra argument ``value``, of shape (). State: two numbers a
    parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: The largest step size: a number, an array of shape () or a schedule.
      b1: Decay of the means, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      eps: Added to the root of the second moment.
      lower_bound: A lower bound of the loss; 0 for most.
      weight_decay: The weight of the penalty, applied by a proximal step.
      adapt_lower_bound: Whether to estimate the bound, from `lower_bound` upwards.

    Returns:
      A transformation whose state is a `MomoAdamState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters or ``value``.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import momo_adam
      >>> optimizer = momo_adam(0.1)
      >>> params = jnp.array([3.0, -4.0])
      >>> optimizer.update(params, optimizer.init(params), params, value=12.5)[0].round(3)
      Array([-0.1,  0.1], dtype=float32)
    """
    return _momo_adam(learning_rate, b1, b2, eps, lower_bound, weight_decay, adapt_lower_bound)  # type: ignore[return-value]


class _Model(NamedTuple):
    """What is known of the loss: means, <d, p>, the square of the norm of d, and the weight rho."""

    f: jax.Array
    gamma: jax.Array
    along: jax.Array
    sq_norm: jax.Array
    rho: Any = 1.0

    def step(
        self, rate: Any, weight_decay: Any, lb: jax.Array, least: Any, adapts: bool
    ) -> dict[str, Any]:
        """The step size, the shrinkage, and the bound afterwards."""
        shrinkage = 1 + rate * weight_decay
        height = shrinkage * (self.f - self.gamma) + self.along
        if adapts:
            halved = jnp.maximum(height / (2 * shrinkage * self.rho), least)
            lb = jnp.where(height < shrinkage * self.rho * lb, halved, lb)
        gap = jnp.maximum(height - shrinkage * self.rho * lb, 0.0)
        size = jnp.minimum(rate / self.rho, safe_divide(gap, self.sq_norm))
        if adapts:
            reached = self.f - self.gamma + self.along - size * self.sq_norm / 2
            lb = jnp.maximum(reached / self.rho, least)
        return {
            "size": size,
            "decay": rate * weight_decay,
            "barf": self.f,
            "gamma": self.gamma,
            "lb": lb,
        }


@rule
def _momo(
    learning_rate: LearningRate,
    beta: Decay,
    lower_bound: Real,
    weight_decay: NonNegative,
    adapt_lower_bound: bool,
) -> LeafRule:
    """MoMo's step, -(size * d + decay * p) / (1 + decay), where decay is rate * weight_decay."""

    def once(
        count: jax.Array,
        updates: Updates,
        params: Params,
        exp_avg: Updates,
        barf: jax.Array,
        gamma: jax.Array,
        lb: jax.Array,
        value: Numeric,
    ) -> dict[str, Any]:
        old = jnp.where(count == 0, 0.0, 1 * beta)  # the first mean is the first value
        new = jnp.where(count == 0, 1.0, 1 - beta)
        trees = list(rows(updates, params, exp_avg))
        model = _Model(
            f=old * barf + new * jnp.asarray(value, barf.dtype),
            gamma=old * gamma + new * total(dot(g, p) for g, p, _ in trees),
            along=total(dot(old * d + new * g, p) for g, p, d in trees),
            sq_norm=sq_norm(old * d + new * g for g, _, d in trees),
        )
        rate = rate_at(learning_rate, count)
        step = model.step(rate, weight_decay, lb, lower_bound, adapt_lower_bound)
        return {"old": old, "new": new, **step}

    def step(
        g: jax.Array,
        p: jax.Array,
        exp_avg: jax.Array,
        old: jax.Array,
        new: jax.Array,
        size: jax.Array,
        decay: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        d = old * exp_avg + new * g
        return -(size * d + decay * p) / (1 + decay), d

    zero = SharedNumber(lambda params: 0.0)
    return LeafRule(
        step,
        MomoState,
        once=once,
        exp_avg=first_moment(),
        barf=zero,
        gamma=zero,
        lb=SharedNumber(lambda params: lower_bound),
    )


@rule
def _momo_adam(
    learning_rate: LearningRate,
    b1: Decay,
    b2: Decay,
    eps: NonNegative,
    lower_bound: Real,
    weight_decay: NonNegative,
    adapt_lower_bound: bool,
) -> LeafRule:
    """MoMo-Adam's step, -(size * d / D + decay * p) / (1 + decay)."""

    def moments(g: jax.Array, d: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        return b1 * d + (1 - b1) * g, b2 * v + (1 - b2) * abs_sq(g)

    def scaled(d: jax.Array, v: jax.Array, c2: jax.Array) -> jax.Array:
        return safe_divide(d, safe_sqrt(c2 * v) + eps)

    def once(
        count: jax.Array,
        t: jax.Array,
        updates: Updates,
        params: Params,
        exp_avg: Updates,
        exp_avg_sq: Updates,
        barf: jax.Array,
        gamma: jax.Array,
        lb: jax.Array,
        value: Numeric,
    ) -> dict[str, Any]:
        c2 = 1 / (1 - b2**t)
        products, along, squares = [], [], []
        for g, p, d, v in rows(updates, params, exp_avg, exp_avg_sq):
            new_d, new_v = moments(g, d, v)
            products.append(dot(g, p))
            along.append(dot(new_d, p))
            squares.append(dot(new_d, scaled(new_d, new_v, c2)))
        f = jnp.asarray(value, barf.dtype)
        model = _Model(
            f=b1 * barf + (1 - b1) * f,
            gamma=b1 * gamma + (1 - b1) * total(products),
            along=total(along),
            sq_norm=total(squares),
            rho=1 - b1**t,
        )
        rate = rate_at(learning_rate, count)
        step = model.step(rate, weight_decay, lb, lower_bound, adapt_lower_bound)
        return {"c2": c2, **step}

    def step(
        g: jax.Array,
        p: jax.Array,
        exp_avg: jax.Array,
        exp_avg_sq: jax.Array,
        c2: jax.Array,
        size: jax.Array,
        decay: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        d, v = moments(g, exp_avg, exp_avg_sq)
        return -(size * scaled(d, v, c2) + decay * p) / (1 + decay), d, v

    zero = SharedNumber(lambda params: 0.0)
    return LeafRule(
        step,
        MomoAdamState,
        once=once,
        exp_avg=first_moment(),
        exp_avg_sq=second_moment(),
        barf=zero,
        gamma=zero,
        lb=SharedNumber(lambda params: lower_bound),
    )
