r"""AdaBelief: Adam that scales by how far gradients are from what was expected.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    s_t &= \beta_2 s_{t-1} + (1 - \beta_2) |g_t - m_t|^2 + \bar\varepsilon \\
    \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat s_t = s_t / (1 - \beta_2^t) \\
    u_t &= \hat m_t / (\sqrt{\hat s_t} + \varepsilon)

and the step is :math:`-\alpha (u_t + \lambda \theta_t)`. With Nesterov's look-ahead, :math:`\hat
m_t = \beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1 - \beta_1^t)`.

References:
  Zhuang et al., AdaBelief optimizer: adapting stepsizes by the belief in observed gradients, 2020
  (arXiv 2010.07468).
"""

from typing import Any, NamedTuple

import jax

from grad_core import (
    Decay,
    DType,
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Updates,
    abs_sq,
    add_decayed_weights,
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


class ScaleByBeliefState(NamedTuple):
    """The number of updates, the mean of the gradients, and their mean squared surprise."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates


@rule
def scale_by_belief(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """AdaBelief's direction, u = m_hat / (sqrt(s_hat) + eps); see the module for the rest.

    Args:
      b1: Decay of the mean of the gradients, in [0, 1].
      b2: Decay of the mean of |g - m|^2, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added to the mean of |g - m|^2 in each update.
      nesterov: Whether to look one step ahead.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nu_dtype: The dtype of the mean of |g - m|^2; with None the parameter's, but at least
        float32.

    Returns:
      A transformation whose state is a `ScaleByBeliefState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_belief
      >>> tx = scale_by_belief(b1=0.5)  # in the first update g - m is b1 * g
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(3)
      Array([ 2., -2.], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        c1, c2 = 1 / (1 - b1**t), 1 / (1 - b2**t)
        return {"c1": c1, "c2": c2, "c1_next": 1 / (1 - b1 ** (t + 1)) if nesterov else c1}

    def step(
        g: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        c1: jax.Array,
        c2: jax.Array,
        c1_next: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g - mu) + eps_root
        mu_hat = c1_next * b1 * mu + c1 * (1 - b1) * g if nesterov else c1 * mu
        return safe_divide(mu_hat, safe_sqrt(c2 * nu) + eps), mu, nu

    return LeafRule(
        step, ScaleByBeliefState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


@example(1e-2)
@transformation
def adabelief(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-16,
    eps_root: NonNegative = 1e-16,
    weight_decay: LearningRate | None = None,
    weight_decay_mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """AdaBelief: long steps where gradients are as expected, short ones where they surprise.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_belief`, and so are the others.
      b2: Decay of the mean of |g - m|^2.
      eps: Added to the root.
      eps_root: Added to the mean of |g - m|^2 in each update.
      weight_decay: The multiple of the parameters that is added to the direction (decoupled); the
        learning rate multiplies it too. None adds nothing, and has no state.
      weight_decay_mask: Which leaves to decay, as in `masked`; all with None.
      nesterov: Whether to look one step ahead.
      mu_dtype: The dtype of the first moment.
      nu_dtype: The dtype of the mean of |g - m|^2.

    Returns:
      A transformation whose state is the tuple of a `ScaleByBeliefState`, the decay's state unless
      `weight_decay` is None, and the learning rate's.

    Raises:
      MissingArgumentError: By ``update``, without parameters, if there is a weight decay.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adabelief
      >>> optimizer = adabelief(0.25, b1=0.5)
      >>> params = jnp.array([2.0, -3.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0.5,  0.5], dtype=float32)
    """
    direction = scale_by_belief(
        b1, b2, eps, eps_root, nesterov=nesterov, mu_dtype=mu_dtype, nu_dtype=nu_dtype
    )
    if weight_decay is None:
        return chain(direction, scale_by_learning_rate(learning_rate))
    return chain(
        direction,
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
