"""What the gradients of single examples tell of a batch: their norms, and how far they disagree.

They are computed in chunks, so that memory is that of a few gradients and not of the whole batch.
"""

from typing import Any

import jax

from grad_core import Params, PyTree, tree
from grad_second_order._outputs import products
from grad_second_order._vectors import (
    Loss,
    check_at_least,
    check_real,
    check_scalar,
    examples,
    mean_over,
)


def per_example_gradient_norms(
    loss: Loss, params: Params, *batch: PyTree, chunk_size: int = 8
) -> jax.Array:
    """The Euclidean norm of the gradient of each example.

    Args:
      loss: ``loss(params, *batch)``, a number; it is called on batches of one.
      params: The tree of real parameters.
      *batch: Trees of arrays whose first axis counts the examples.
      chunk_size: How many gradients to compute at once.

    Returns:
      The norms, of shape (examples,), in the widest dtype of `params` and at least float32. They
      neither overflow nor underflow on the way.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import per_example_gradient_norms
      >>> loss = lambda w, x: jnp.mean(x @ w)
      >>> per_example_gradient_norms(loss, jnp.zeros(2), jnp.array([[3.0, 4.0], [0.0, 1.0]]))
      Array([5., 1.], dtype=float32)
    """
    rows = _rows("per_example_gradient_norms", loss, params, batch, chunk_size)
    norms: jax.Array = jax.lax.map(
        lambda row: tree.norm(jax.grad(loss)(params, *row)), rows, batch_size=chunk_size
    )
    return norms


def gradient_variance(loss: Loss, params: Params, *batch: PyTree, chunk_size: int = 8) -> Any:
    """The variance, over the examples, of every entry of the gradient.

    The mean over the N examples of (g_n - g)**2, g their mean: that of the empirical distribution,
    as `numpy.var` has it. Times N / (N - 1) it is unbiased. g is computed first, so that nothing
    cancels.

    Args:
      loss: ``loss(params, *batch)``, a number; it is called on batches of one.
      params: The tree of real parameters.
      *batch: Trees of arrays whose first axis counts the examples.
      chunk_size: How many gradients to compute at once.

    Returns:
      The variances, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import gradient_variance
      >>> loss = lambda w, x: jnp.mean(x @ w)
      >>> gradient_variance(loss, jnp.zeros(2), jnp.array([[3.0, 4.0], [1.0, 4.0]]))
      Array([1., 0.], dtype=float32)
    """
    rows = _rows("gradient_variance", loss, params, batch, chunk_size)

    def gradient(row: Any) -> Any:
        return jax.grad(loss)(params, *row)

    mean = mean_over(gradient, rows, chunk_size)

    def square(row: Any) -> Any:
        error = tree.sub(gradient(row), mean)
        return products(error, error)

    return tree.cast_like(mean_over(square, rows, chunk_size), params)


def _rows(function: str, loss: Loss, params: Params, batch: Any, chunk_size: int) -> Any:
    check_at_least(function, 1, chunk_size=chunk_size)
    check_real(function, "params", params)
    check_scalar(function, "loss", loss, params, *batch)
    return examples(function, batch)[1]
