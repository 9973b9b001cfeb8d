r"""RAdam: Adam that trusts its second moment only once enough gradients went into it.

With Adam's moments m_t and v_t of the gradient g_t and their corrections, :math:`\rho_t` is how
many gradients v_t is worth, and :math:`r_t` makes up for the variance of so few:

.. math::

    \rho_\infty &= (1 + \beta_2) / (1 - \beta_2), \qquad
    \rho_t = \rho_\infty - 2 t \beta_2^t / (1 - \beta_2^t) \\
    r_t &= \sqrt{\frac{(\rho_t - 4) (\rho_t - 2) \rho_\infty}
                      {(\rho_\infty - 4) (\rho_\infty - 2) \rho_t}} \\
    u_t &= r_t \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)
    \text{ where } \rho_t \ge \text{threshold}, \text{ else } \hat m_t

and the step is :math:`-\alpha u_t`. Nesterov's look-ahead is told in `grad_optimizers.adam`.

The difference that defines :math:`\rho_t` loses all digits but a few, as :math:`\rho_\infty` is
large. With :math:`x = -\log(\beta_2) / 2` and :math:`L(x) = \coth x - 1 / x` it is the same as
:math:`\rho_t = t (1 - L(t x)) + L(x)`, which loses none.

References:
  Liu et al., On the variance of the adaptive learning rate and beyond, 2019 (arXiv 1908.03265).
"""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Real,
    abs_sq,
    chain,
    example,
    first_moment,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    second_moment,
    transformation,
)
from grad_optimizers.adam import ScaleByAdamState


@rule
def scale_by_radam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Real = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """RAdam's direction, r * m_hat / (sqrt(v_hat + eps_root) + eps), at first m_hat.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      threshold: The worth of the second moment, in gradients, from which it is used. Up to 4 the
        variance is infinite, so that it is not used whatever the threshold.
      nesterov: Whether to look one step ahead.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdamState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_radam
      >>> tx = scale_by_radam()
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 3.  , -0.01], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        c1, c2 = 1 / (1 - b1**t), 1 / (1 - b2**t)
        x = -jnp.log1p(-(1 - b2)) / 2  # -log(b2) / 2, from the precise 1 - b2
        rho = t * (1 - _langevin(t * x)) + _langevin(x)
        s = (1 - b2) / (1 + b2)  # 1 / rho_infinity
        trusted = (rho >= threshold) & (rho > 4)
        rho = jnp.where(trusted, rho, 5.0)
        s = jnp.where(trusted, s, 0.0)
        r = safe_sqrt((rho - 4) * (rho - 2) * s / ((1 - 4 * s) * (1 - 2 * s) * rho))
        c1_next = 1 / (1 - b1 ** (t + 1)) if nesterov else c1
        return {"c1": c1, "c2": c2, "c1_next": c1_next, "r": r, "trusted": trusted}

    def step(
        g: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        c1: jax.Array,
        c2: jax.Array,
        c1_next: jax.Array,
        r: jax.Array,
        trusted: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        mu_hat = c1_next * b1 * mu + c1 * (1 - b1) * g if nesterov else c1 * mu
        u = safe_divide(r * mu_hat, safe_sqrt(c2 * nu + eps_root) + eps)
        return jnp.where(trusted, u, mu_hat), mu, nu

    return LeafRule(
        step, ScaleByAdamState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


def _langevin(x: jax.Array) -> jax.Array:
    """coth(x) - 1 / x for x >= 0; if small as x / (3 + x^2 / (5 + x^2 / (7 + ...)))."""
    small = jnp.minimum(x, 1.0)
    denominator = 19.0 + 0 * small
    for k in range(17, 1, -2):
        denominator = k + small**2 / denominator
    large = jnp.maximum(x, 1.0)
    return jnp.where(x < 1, small / denominator, 1 / jnp.tanh(large) - 1 / large)


@example(1e-2)
@transformation
def radam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    threshold: Real = 5.0,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """RAdam: Adam that warms up by itself, from momentum to adaptive steps.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_radam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      threshold: The worth of the second moment, in gradients, from which it is used.
      nesterov: Whether to look one step ahead.
      mu_dtype: The dtype of the first moment.
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import radam
      >>> optimizer = radam(0.25)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.5 ,  0.75], dtype=float32)
    """
    return chain(
        scale_by_radam(
            b1,
            b2,
            eps,
            eps_root,
            threshold,
            nesterov=nesterov,
            mu_dtype=mu_dtype,
            nu_dtype=nu_dtype,
        ),
        scale_by_learning_rate(learning_rate),
    )
