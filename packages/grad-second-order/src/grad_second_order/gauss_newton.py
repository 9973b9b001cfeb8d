r"""Generalized Gauss-Newton matrices: the loss curves, the model does not.

With the Jacobian J of the outputs by the parameters and the Hessian of the loss by the outputs,

.. math::

    G = J^\top (\nabla_z^2 \ell)\, J,

which is the Hessian of models linear in their parameters, and never negative where the loss is
convex in the outputs.
"""

from typing import Any

import jax

from grad_core import Params, PyTree, tree
from grad_second_order._outputs import (
    Model,
    diagonal_by_output,
    linearized,
    products,
    sandwich,
)
from grad_second_order._vectors import (
    Loss,
    Operator,
    Space,
    check_at_least,
    check_real,
    check_scalar,
    examples,
    mean_over,
)


def ggn_operator(
    model: Model, loss: Loss, params: Params, inputs: PyTree, targets: PyTree
) -> Operator:
    """The generalized Gauss-Newton matrix as a function that multiplies it with trees: v -> G v.

    Args:
      model: ``model(params, inputs)``, the outputs: a tree of real arrays of any shapes.
      loss: ``loss(outputs, targets)``, a number.
      params: The tree of real parameters.
      inputs: The second argument of `model`.
      targets: The second argument of `loss`.

    Returns:
      A function from trees like `params` to such trees. It can be used under `jit` and `vmap`, and
      keeps what the model computed on the way.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: By the function, if a tree is not like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import ggn_operator
      >>> model = lambda w, x: jnp.sin(w) * x
      >>> loss = lambda z, y: jnp.mean((z - y) ** 2) / 2
      >>> product = ggn_operator(model, loss, jnp.zeros(1), jnp.array([1.0, 3.0]), jnp.zeros(2))
      >>> product(jnp.ones(1))  # the mean of x**2
      Array([5.], dtype=float32)

    Reference:
      Schraudolph, Fast curvature matrix-vector products for second-order gradient descent, 2002.
    """
    at = linearized("ggn_operator", lambda p: model(p, inputs), params)
    check_scalar("ggn_operator", "loss", loss, at.outputs, targets)
    _, curve = jax.linearize(jax.grad(lambda z: loss(z, targets)), at.outputs)
    return sandwich("ggn_operator", params, at, curve)


def ggn_diagonal(
    model: Model,
    loss: Loss,
    params: Params,
    inputs: PyTree,
    targets: PyTree,
    *,
    chunk_size: int = 8,
) -> Any:
    """The diagonal of the generalized Gauss-Newton matrix, exactly.

    It costs two backward passes for each example and output. `exact_diagonal` of `ggn_operator`
    costs a product for each parameter instead, and takes any loss.

    Args:
      model: ``model(params, inputs)``, an array whose first axis counts the examples, as in every
        array of `inputs`; no example may depend on others. It is called on single examples.
      loss: ``loss(outputs, targets)``, the mean over the examples.
      params: The tree of real parameters.
      inputs: The second argument of `model`.
      targets: The second argument of `loss`, a tree of arrays with the examples first.
      chunk_size: How many pairs of example and output to compute at once. Temporary memory is that
        of about `chunk_size` gradients.

    Returns:
      The diagonal, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import ggn_diagonal
      >>> model = lambda w, x: jnp.sin(w) * x
      >>> loss = lambda z, y: jnp.mean((z - y) ** 2) / 2
      >>> ggn_diagonal(model, loss, jnp.zeros(1), jnp.array([1.0, 3.0]), jnp.zeros(2))
      Array([5.], dtype=float32)

    Reference:
      Dangel, Kunstner and Hennig, BackPACK: packing more into backprop, 2020.
    """
    check_at_least("ggn_diagonal", 1, chunk_size=chunk_size)
    check_real("ggn_diagonal", "params", params)
    check_scalar("ggn_diagonal", "loss", lambda p: loss(model(p, inputs), targets), params)
    _, rows = examples("ggn_diagonal", (inputs, targets))

    def middle(outputs: jax.Array, row: Any, u: jax.Array) -> jax.Array:
        curve: jax.Array = jax.jvp(jax.grad(lambda z: loss(z, row[1])), (outputs,), (u,))[1]
        return curve

    return tree.cast_like(diagonal_by_output(model, params, rows, middle, chunk_size), params)


def monte_carlo_ggn_diagonal(
    model: Model,
    loss: Loss,
    params: Params,
    inputs: PyTree,
    targets: PyTree,
    *,
    key: jax.Array,
    num_samples: int = 1,
    chunk_size: int = 8,
) -> Any:
    """Estimates the diagonal of the generalized Gauss-Newton matrix from random signs u.

    The mean of (J^T u) * (J^T H u), H the Hessian of the loss by the outputs: unbiased for every
    loss, at two backward passes a sample. It may be negative where the diagonal is not;
    `gauss_newton_bartlett_diagonal` never is, but needs a likelihood.

    Args:
      model: ``model(params, inputs)``, the outputs: a tree of real arrays of any shapes.
      loss: ``loss(outputs, targets)``, a number.
      params: The tree of real parameters.
      inputs: The second argument of `model`.
      targets: The second argument of `loss`.
      key: A random key.
      num_samples: How many samples to take the mean of.
      chunk_size: How many of them to compute at once.

    Returns:
      The estimate, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If `num_samples` or `chunk_size` is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import monte_carlo_ggn_diagonal
      >>> model = lambda w, x: w * x
      >>> loss = lambda z, y: jnp.sum((z - y) ** 2) / 2
      >>> x = jnp.array([1.0, 3.0])
      >>> monte_carlo_ggn_diagonal(
      ...     model, loss, jnp.zeros(2), x, jnp.zeros(2), key=jax.random.key(0)
      ... )
      Array([1., 9.], dtype=float32)
    """
    function = "monte_carlo_ggn_diagonal"
    check_at_least(function, 1, num_samples=num_samples, chunk_size=chunk_size)
    at = linearized(function, lambda p: model(p, inputs), params)
    check_scalar(function, "loss", loss, at.outputs, targets)
    _, curve = jax.linearize(jax.grad(lambda z: loss(z, targets)), at.outputs)
    space = Space(function, "outputs", at.outputs)

    def sample(key: jax.Array) -> Any:
        u = space.tree(space.draw(key, "rademacher"))
        return products(at.pull(u), at.pull(curve(u)))

    keys = jax.random.split(key, num_samples)
    return tree.cast_like(mean_over(sample, keys, chunk_size), params)
