r"""NovoGrad: Adam with one second moment a leaf, taken before the momentum.

For the gradient g_t of a leaf, a layer's kernel say, with one number :math:`v_t`:

.. math::

    v_t &= \beta_2 v_{t-1} + (1 - \beta_2) \lVert g_t \rVert^2, \qquad
    v_1 = \lVert g_1 \rVert^2 \\
    m_t &= \beta_1 m_{t-1} + g_t / (\sqrt{v_t + \bar\varepsilon} + \varepsilon) + \lambda \theta_t

and the step is :math:`-\alpha m_t`.

References:
  Ginsburg et al., Stochastic gradient methods with layer-wise adaptive moments for training of
  deep networks, 2019 (arXiv 1905.11286).
"""

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
    PyTree,
    Updates,
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


class ScaleByNovogradState(NamedTuple):
    """The number of updates, the momentum, and each leaf's mean square norm, of shape ()."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    mu: Updates
    nu: PyTree


@rule
def scale_by_novograd(
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-8,
    eps_root: NonNegative = 0.0,
    weight_decay: LearningRate = 0.0,
    mu_dtype: DType | None = None,
    *,
    nu_dtype: DType | None = None,
) -> LeafRule:
    """NovoGrad's direction, the momentum of g / (sqrt(v + eps_root) + eps) + weight_decay * p.

    Args:
      b1: Decay of the momentum, in [0, 1].
      b2: Decay of the mean square norm, in [0, 1].
      eps: Added to the root, against division by zero.
      eps_root: Added under the root.
      weight_decay: The multiple of the parameters that is added; a number, an array of shape (),
        or a schedule.
      mu_dtype: The dtype of the momentum; the parameter's with None.
      nu_dtype: The dtype of the mean square norm; with None the parameter's, but at least float32.

    Returns:
      A transformation whose state is a `ScaleByNovogradState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import scale_by_novograd
      >>> tx = scale_by_novograd()
      >>> params = jnp.zeros(2)
      >>> tx.update(jnp.array([0.0, -4.0]), tx.init(params), params)[0].round(4)
      Array([ 0., -1.], dtype=float32)
    """

    def once(count: jax.Array) -> dict[str, Any]:
        decay = weight_decay(count) if callable(weight_decay) else weight_decay
        return {"decay": decay, "is_first": count == 0}

    def step(
        g: jax.Array,
        p: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        decay: jax.Array,
        is_first: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        square = jnp.sum(abs_sq(g))
        nu = jnp.where(is_first, square, b2 * nu + (1 - b2) * square)
        mu = b1 * mu + safe_divide(g, safe_sqrt(nu + eps_root) + eps) + decay * p
        return mu, mu, nu

    def zero(p: jax.Array) -> jax.Array:
        return second_moment(nu_dtype)(jnp.zeros((), jnp.result_type(p)))

    return LeafRule(step, ScaleByNovogradState, once=once, mu=first_moment(mu_dtype), nu=zero)


@example(1e-2)
@transformation
def novograd(
    learning_rate: LearningRate,
    b1: Decay = 0.9,
    b2: Decay = 0.25,
    eps: NonNegative = 1e-6,
    eps_root: NonNegative = 0.0,
    weight_decay: LearningRate = 0.0,
    *,
    mu_dtype: DType | None = None,
    nu_dtype: DType | None = None,
) -> GradientTransformationExtraArgs:
    """NovoGrad: momentum of gradients that are first divided by the norm of their leaf.

    State: one number a parameter, 4 bytes for float32, and one a leaf.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      b1: As for `scale_by_novograd`, and so are the others.
      b2: Decay of the mean square norm.
      eps: Added to the root.
      eps_root: Added under the root.
      weight_decay: The multiple of the parameters that is added; the learning rate multiplies it
        too.
      mu_dtype: The dtype of the momentum.
      nu_dtype: The dtype of the mean square norm.

    Returns:
      A transformation whose state is the tuple of a `ScaleByNovogradState` and the learning rate's
      state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_optimizers import novograd
      >>> optimizer = novograd(0.5)
      >>> params = jnp.array([0.0, -4.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(4)
      Array([-0. ,  0.5], dtype=float32)
    """
    return chain(
        scale_by_novograd(
            b1, b2, eps, eps_root, weight_decay, mu_dtype=mu_dtype, nu_dtype=nu_dtype
        ),
        scale_by_learning_rate(learning_rate),
    )
