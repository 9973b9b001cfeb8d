r"""Fromage: steps as long as a share of each layer's weights, which then shrink to their length.

For each leaf:

.. math::

    \theta_{t+1} = \frac{1}{\sqrt{1 + \alpha^2}}
        \left(\theta_t - \alpha \frac{\|\theta_t\|}{\|g_t\|} g_t\right)

where the factor keeps the norm of the weights if the gradient is orthogonal to them.

References:
  Bernstein et al., On the distance between two neural networks and the stability of learning,
  2020 (arXiv 2002.03432).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from grad_core import (
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    NonNegative,
    Numeric,
    ScaleByScheduleState,
    add_decayed_weights,
    chain,
    example,
    rule,
    scale_by_trust_ratio,
    transformation,
)


class ScaleByFromageState(NamedTuple):
    """What `fromage` kept in the first releases, for code that names it; now it keeps nothing."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count


@example(1e-2)
@transformation
def fromage(
    learning_rate: LearningRate, min_norm: NonNegative = 1e-6
) -> GradientTransformationExtraArgs:
    """Fromage: steps of the norm learning_rate * |p| for each leaf p, and no growth of |p|.

    State: none.

    Args:
      learning_rate: A number, an array of shape () or a schedule; its sign is free.
      min_norm: The least value of the norms of parameters and gradients.

    Returns:
      A transformation whose state is the tuple of the states of the trust ratio, the rate and the
      shrinking.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates
      >>> from grad_optimizers import fromage
      >>> optimizer = fromage(0.75)
      >>> params = jnp.array([1.0, 0.0])
      >>> updates, _ = optimizer.update(jnp.array([0.0, 5.0]), optimizer.init(params), params)
      >>> print(jnp.array_str(apply_updates(params, updates), precision=4))
      [ 0.8 -0.6]
    """
    return chain(
        scale_by_trust_ratio(min_norm),
        _shortened_step(learning_rate),
        add_decayed_weights(_mapped(_shrinkage, learning_rate)),
    )


@rule
def _shortened_step(learning_rate: LearningRate) -> LeafRule:
    """The shrunk step, -alpha / sqrt(1 + alpha^2) * g."""

    def factor(alpha: Numeric) -> Numeric:
        return -alpha / (1 + alpha * alpha) ** 0.5

    if not callable(learning_rate):
        return LeafRule(lambda g: factor(learning_rate) * g)

    def once(count: jax.Array) -> dict[str, Numeric]:
        return {"factor": factor(learning_rate(count))}

    return LeafRule(lambda g, factor: factor * g, ScaleByScheduleState, once=once)


def _shrinkage(alpha: Numeric) -> Numeric:
    """The part that weights lose, 1 / sqrt(1 + alpha^2) - 1, without cancellation."""
    root = (1 + alpha * alpha) ** 0.5
    return -alpha * alpha / (root * (1 + root))


def _mapped(function: Callable[[Numeric], Numeric], rate: LearningRate) -> Any:
    """The function of a number, or of each value of a schedule."""
    return (lambda count: function(rate(count))) if callable(rate) else function(rate)
