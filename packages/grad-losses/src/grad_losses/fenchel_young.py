r"""Fenchel-Young losses: of any regularized argmax, whose mistakes are their gradients.

A function :math:`\Omega^*(z) = \max_p (p \cdot z - \Omega(p))` of scores, whose gradient is the
prediction, makes a loss of scores z and targets y:

.. math::

    L(z, y) = \Omega^*(z) - y \cdot z, \qquad \nabla_z L = \nabla \Omega^*(z) - y
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_core import exempt
from grad_losses._checks import ShapeError, broadcast_shape, floating, real, widened
from grad_losses._logits import product


@exempt("is_a_loss", reason="it makes losses")
def make_fenchel_young_loss(max_fun: Callable[..., ArrayLike]) -> Callable[..., jax.Array]:
    """Makes the Fenchel-Young loss of a maximum, max_fun(scores) - sum(targets * scores).

    It is the loss up to the constant Omega(targets), which is 0 for one-hot targets and, for
    example, ``jax.nn.logsumexp``. That one gives the cross entropy, ``jnp.max`` the perceptron's.

    Args:
      max_fun: The maximum, a convex function of the scores of one example, of shape [classes],
        that returns a number. It may be a Monte-Carlo estimate, as of a perturbed maximum, and
        take further arguments.

    Returns:
      A function ``loss(scores, targets, *args, **kwargs)`` of scores [..., classes] and targets of
      a shape that broadcasts. It gives losses [...] in the dtype that both promote to. Further
      arguments are passed on to `max_fun` as they are.

    Raises:
      TypeError: If `max_fun` is not callable; by the loss, if scores are not floating point.
      ValueError: By the loss, if shapes do not broadcast or `max_fun` does not return a number.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_losses import make_fenchel_young_loss
      >>> cross_entropy = make_fenchel_young_loss(jax.nn.logsumexp)
      >>> cross_entropy(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 0.0]])).round(4)
      Array([0.6931], dtype=float32)

    Reference:
      Blondel, Martins and Niculae, Learning with Fenchel-Young losses, 2020,
      https://arxiv.org/abs/1901.02324; Berthet et al., Learning with differentiable perturbed
      optimizers, 2020, https://arxiv.org/abs/2002.08676.
    """
    if not callable(max_fun):
        raise TypeError(f"make_fenchel_young_loss: max_fun must be callable; got {max_fun!r}.")

    def fenchel_young_loss(
        scores: ArrayLike, targets: ArrayLike, *args: Any, **kwargs: Any
    ) -> jax.Array:
        name = "fenchel_young_loss"
        scores, targets = floating(name, "scores", scores), real(name, "targets", targets)
        dtype = jnp.result_type(scores, targets)
        if not broadcast_shape(name, scores=scores, targets=targets):
            raise ShapeError(f"{name}: scores and targets must have an axis of classes, the last.")
        scores, targets = jnp.broadcast_arrays(*widened(scores, targets))

        def maximum(scores: jax.Array) -> jax.Array:
            value = jnp.asarray(max_fun(scores, *args, **kwargs))
            if value.shape:
                raise ShapeError(
                    f"{name}: max_fun must return a number for scores of shape {scores.shape}; got "
                    f"an array of shape {value.shape}. Reduce it over the classes."
                )
            return value

        maxima: jax.Array = jnp.vectorize(maximum, signature="(n)->()")(scores)
        return (maxima - jnp.sum(product(targets, scores), axis=-1)).astype(dtype)

    return fenchel_young_loss
