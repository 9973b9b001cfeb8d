r"""Hessians: their products with vectors and their diagonals, never the matrix.

The gradient's derivative along v is the product (Pearlmutter's trick),

.. math::

    H v = \left.\frac{d}{d\varepsilon}\, \nabla f(\theta + \varepsilon v)\right|_{\varepsilon = 0},

at the cost of about two gradients. The operator linearizes the gradient once, so that further
products repeat neither the forward nor the backward pass. An entry of the diagonal,

.. math::

    h_{ii} = \left.\frac{d^2}{d\varepsilon^2}\,
        f(\theta + \varepsilon e_i)\right|_{\varepsilon = 0},

needs no backward pass at all.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from grad_core import Params, PyTree
from grad_second_order._vectors import (
    Loss,
    Operator,
    Space,
    check_alike,
    check_at_least,
    check_real,
    check_scalar,
)
from grad_second_order.diagonals import exact_diagonal


def hessian_operator(loss: Loss, params: Params, *batch: PyTree) -> Operator:
    """The Hessian of a loss as a function that multiplies it with trees: v -> H v.

    Args:
      loss: A function of the parameters and of `batch` that returns a number.
      params: The tree of real parameters at which the Hessian is taken.
      *batch: Further arguments of `loss`.

    Returns:
      A function from trees like `params` to such trees. It can be used under `jit` and `vmap`, and
      keeps what the loss computed on the way.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: By the function, if a tree is not like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import hessian_operator
      >>> product = hessian_operator(lambda p: p["a"] ** 2 * p["b"], {"a": 3.0, "b": 2.0})
      >>> product({"a": 1.0, "b": 0.0})  # the column (2 b, 2 a)
      {'a': Array(4., dtype=float32, weak_type=True), 'b': Array(6., dtype=float32, weak_type=True)}

    Reference:
      Pearlmutter, Fast exact multiplication by the Hessian, 1994.
    """
    return _operator("hessian_operator", loss, params, *batch)


def _operator(function: str, loss: Loss, params: Params, *batch: PyTree) -> Operator:
    check_real(function, "params", params)
    check_scalar(function, "loss", loss, params, *batch)
    _, product = jax.linearize(jax.grad(lambda p: loss(p, *batch)), params)

    def multiply(v: PyTree) -> PyTree:
        check_alike(function, ("params", "v"), params, v)
        return product(v)

    return multiply


def hessian_diagonal(loss: Loss, params: Params, *batch: PyTree, chunk_size: int = 64) -> Any:
    """The diagonal of the Hessian of a loss, exactly: a second derivative for each parameter.

    Temporary memory is that of about `chunk_size` gradients. Losses that only have a backward pass
    (`jax.custom_vjp`) work too, by products.

    Args:
      loss: A function of the parameters and of `batch` that returns a number.
      params: The tree of real parameters.
      *batch: Further arguments of `loss`.
      chunk_size: How many of them to compute at once.

    Returns:
      The second derivatives, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import hessian_diagonal
      >>> hessian_diagonal(lambda p: jnp.sum(p["w"] ** 3), {"w": jnp.array([1.0, 2.0])})
      {'w': Array([ 6., 12.], dtype=float32)}
    """
    return _diagonal("hessian_diagonal", loss, params, *batch, chunk_size=chunk_size)


def _diagonal(function: str, loss: Loss, params: Params, *batch: PyTree, chunk_size: int) -> Any:
    check_at_least(function, 1, chunk_size=chunk_size)
    space = Space(function, "params", params)
    check_scalar(function, "loss", loss, params, *batch)
    arrays = jax.tree.map(jnp.asarray, params)

    def entry(i: jax.Array) -> jax.Array:
        e = space.tree(jnp.zeros(space.size, space.dtype).at[i].set(1))

        def slope(p: PyTree) -> jax.Array:
            derivative: jax.Array = jax.jvp(lambda p: loss(p, *batch), (p,), (e,))[1]
            return derivative

        second: jax.Array = jax.jvp(slope, (arrays,), (e,))[1]
        return second

    indices = jnp.arange(space.size)
    try:
        jax.eval_shape(entry, indices[0])
    except (TypeError, NotImplementedError):  # JAX's errors where there is a custom_vjp
        product = _operator(function, loss, params, *batch)
        return exact_diagonal(product, params, chunk_size=chunk_size)
    return space.tree(jax.lax.map(entry, indices, batch_size=min(chunk_size, space.size)))


def hvp(loss: Loss, v: jax.Array, params: Params, inputs: PyTree, targets: PyTree) -> Any:
    """The product of the Hessian of a loss with a vector; `hessian_operator` takes trees.

    Args:
      loss: ``loss(params, inputs, targets)``, a number.
      v: The vector, of shape (P,): parameters in the order of `jax.flatten_util.ravel_pytree`.
      params: The tree of P real parameters.
      inputs: The second argument of `loss`.
      targets: The third.

    Returns:
      The product, a tree like `params` (so a vector if `params` is one).

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If `v` has another shape.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import hvp
      >>> loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2) / 2
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros(2)
      >>> hvp(loss, jnp.array([1.0, 1.0]), jnp.zeros(2), x, y)
      Array([0.5, 2. ], dtype=float32)
    """
    space = Space("hvp", "params", params)
    check_alike("hvp", ("ravel(params)", "v"), ravel_pytree(params)[0], v)
    return _operator("hvp", loss, params, inputs, targets)(space.tree(v))


def hessian_diag(
    loss: Loss, params: Params, inputs: PyTree, targets: PyTree, *, chunk_size: int = 64
) -> jax.Array:
    """The diagonal of the Hessian of a loss as one vector; see `hessian_diagonal`.

    Args:
      loss: ``loss(params, inputs, targets)``, a number.
      params: The tree of P real parameters.
      inputs: The second argument of `loss`.
      targets: The third.
      chunk_size: How many of them to compute at once; memory is proportional to it.

    Returns:
      The second derivatives, of shape (P,), in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import hessian_diag
      >>> loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2) / 2
      >>> x, y = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.zeros(2)
      >>> hessian_diag(loss, jnp.zeros(2), x, y)
      Array([0.5, 2. ], dtype=float32)
    """
    diagonal = _diagonal("hessian_diag", loss, params, inputs, targets, chunk_size=chunk_size)
    return ravel_pytree(diagonal)[0]
