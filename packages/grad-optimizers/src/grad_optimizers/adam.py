r"""Adam, and AdamW with decoupled weight decay.

For the gradient g_t of a parameter, elementwise:

.. math::

    m_t &= \beta_1 m_{t-1} + (1 - \beta_1) g_t \\
    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) |g_t|^2 \\
    \hat m_t &= m_t / (1 - \beta_1^t), \qquad \hat v_t = v_t / (1 - \beta_2^t) \\
    u_t &= \hat m_t / (\sqrt{\hat v_t + \bar\varepsilon} + \varepsilon)

Adam steps by :math:`-\alpha u_t`, AdamW by :math:`-\alpha (u_t + \lambda \theta_t)`. With
Nesterov's look-ahead, :math:`\hat m_t = \beta_1 m_t / (1 - \beta_1^{t+1}) + (1 - \beta_1) g_t / (1
- \beta_1^t)`.

References:
  Kingma and Ba, Adam: a method for stochastic optimization, 2014 (arXiv 1412.6980).
  Dozat, Incorporating Nesterov momentum into Adam, 2016.
  Loshchilov and Hutter, Decoupled weight decay regularization, 2017 (arXiv 1711.05101).
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


class ScaleByAdamState(NamedTuple):
    """The number of updates, and the first and second moments of the gradients."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: Updates


@rule
def scale_by_adam(
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """Adam's direction, u = m_hat / (sqrt(v_hat + eps_root) + eps); see the module for the rest.

    Args:
      b1: Decay of the first moment, in [0, 1].
      b2: Decay of the second moment, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment; the parameter's with None.
      nesterov: Whether to look one step ahead.
      nu_dtype: The dtype of the second moment; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByAdamState`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_adam
      >>> tx = scale_by_adam()
      >>> tx.update(jnp.array([3.0, -0.01]), tx.init(jnp.zeros(2)))[0].round(4)
      Array([ 1., -1.], dtype=float32)
    """

    def once(t: jax.Array) -> dict[str, Any]:
        # As factors, since dividing every element by them would cost more than all the rest.
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
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        mu_hat = c1_next * b1 * mu + c1 * (1 - b1) * g if nesterov else c1 * mu
        nu_hat = c2 * nu
        return safe_divide(mu_hat, safe_sqrt(nu_hat + eps_root) + eps), mu, nu

    return LeafRule(
        step, ScaleByAdamState, once=once, mu=first_moment(mu_dtype), nu=second_moment(nu_dtype)
    )


@example(1e-2)
@transformation
def adam(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adam: descent along the first moment, scaled by the root of the second.

    State: two numbers a parameter, 8 bytes for float32, 6 for bfloat16 (4 with
    ``nu_dtype=jnp.bfloat16``, at the price of second moments that stop at half their value).

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      nesterov: Whether to look one step ahead (NAdam).
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of a `ScaleByAdamState` and the learning rate's
      state.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_core import apply_updates
      >>> from grad_optimizers import adam
      >>> optimizer = adam(learning_rate=0.1)
      >>> params = jnp.array([1.0, 2.0])
      >>> state = optimizer.init(params)
      >>> for _ in range(100):
      ...     grads = jax.grad(lambda p: jnp.sum(p**2))(params)
      ...     updates, state = optimizer.update(grads, state, params)
      ...     params = apply_updates(params, updates)
      >>> bool(jnp.all(jnp.abs(params) < 0.1))
      True
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        scale_by_learning_rate(learning_rate),
    )


@example(1e-2)
@transformation
def adamw(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.999,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    mu_dtype: DType | None = None,
    weight_decay: LearningRate = 1e-4,
    mask: MaskOrFn | None = None,
    *,
    nesterov: bool = False,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """Adam with decoupled weight decay: the step is -learning_rate * (u + weight_decay * p).

    State: as for `adam`, 8 bytes a parameter for float32, 6 for bfloat16.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_adam`, and so are the others.
      b2: Decay of the second moment.
      eps: Added to the root.
      eps_root: Added under the root.
      mu_dtype: The dtype of the first moment.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mask: Which leaves to decay, as in `masked`; all with None.
      nesterov: Whether to look one step ahead (NAdamW).
      nu_dtype: The dtype of the second moment.

    Returns:
      A transformation whose state is the tuple of the states of Adam, the decay and the rate.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import adamw
      >>> optimizer = adamw(1e-3, weight_decay=0.1, mask=r".*kernel")
      >>> params = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
      >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
      >>> updates["kernel"], updates["bias"]
      (Array([-0.0011, -0.0011], dtype=float32), Array([-0.001, -0.001], dtype=float32))
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, nu_dtype=nu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )
