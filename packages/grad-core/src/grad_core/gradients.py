"""Operations that act on gradients only and leave values alone."""

import jax
import jax.numpy as jnp
import numpy as np

from grad_core.types import Numeric, Tree

__all__ = ["scale_gradient"]


def scale_gradient(inputs: Tree, scale: Numeric) -> Tree:
    """Return the inputs unchanged, with their gradient multiplied by ``scale``.

    ``f(x) = x``, ``df = scale * dx``. A scale of -1 reverses gradients, as in adversarial domain
    adaptation; a scale of 0 stops them, NaN and infinity included.

    Args:
      inputs: tree of arrays. Leaves that have no gradient (integers, None) pass through.
      scale: real number of shape (), possibly traced. It gets no gradient itself.

    Returns:
      ``inputs``, bit for bit.

    Example:
      >>> import jax
      >>> from grad_core.gradients import scale_gradient
      >>> float(jax.grad(lambda x: scale_gradient(x, -0.5) ** 2)(3.0))
      -3.0

    Source: Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", 2015
    (scale -1).
    """
    if _is(scale, 0):
        return jax.lax.stop_gradient(inputs)
    if _is(scale, 1):
        return inputs
    scaled: Tree = jax.tree.map(lambda x: _scale_leaf(x, scale), inputs)
    return scaled


def _is(scale: Numeric, number: int) -> bool:
    """Whether ``scale`` is known, while tracing, to be ``number``."""
    return isinstance(scale, int | float | np.number) and bool(scale == number)


def _scale_leaf(x: jax.Array, scale: Numeric) -> jax.Array:
    if not jnp.issubdtype(jnp.result_type(x), jnp.inexact):
        return x
    return _identity(x, jax.lax.stop_gradient(scale))


@jax.custom_jvp
def _identity(x: jax.Array, scale: Numeric) -> jax.Array:
    del scale
    return x


@_identity.defjvp
def _identity_jvp(
    primals: tuple[jax.Array, Numeric], tangents: tuple[jax.Array, object]
) -> tuple[jax.Array, jax.Array]:
    (x, scale), (dx, _) = primals, tangents
    return x, (dx * scale).astype(dx.dtype)
