"""Gradient centralization."""

import jax
import jax.numpy as jnp

from grad_core.rules import LeafRule
from grad_core.transformations import rule


@rule
def centralize() -> LeafRule:
    """Subtracts from each slice along the first axis its mean: u = g - mean(g).

    The mean is over all axes but the first. Scalars and vectors pass as they are.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import centralize
      >>> tx = centralize()
      >>> updates = {"bias": jnp.array([1.0]), "kernel": jnp.array([[1.0, 3.0], [5.0, 5.0]])}
      >>> updates, _ = tx.update(updates, tx.init(updates))
      >>> updates["bias"], updates["kernel"]
      (Array([1.], dtype=float32), Array([[-1.,  1.],
             [ 0.,  0.]], dtype=float32))

    Reference:
      Yong et al., Gradient centralization: a new optimization technique for deep neural networks,
      2020, equation 1.
    """

    def step(g: jax.Array) -> jax.Array:
        if g.ndim < 2:
            return g
        return g - jnp.mean(g, axis=tuple(range(1, g.ndim)), keepdims=True)

    return LeafRule(step)
