r"""Fisher matrices: the mean over examples of outer products of gradients g of log-likelihoods.

.. math::

    F = \frac1N \sum_n \mathbb{E}_y\!\left[g_n(y)\, g_n(y)^\top\right]
      = \frac1N \sum_n J_n^\top M_n J_n .

The *true* Fisher matrix takes the expectation over the targets y that the model expects, exactly;
the *Monte-Carlo* one over targets sampled from the model; the *empirical* one puts the targets of
the data in their place. M_n is then the Fisher matrix by the outputs, or the mean of outer products
of gradients by the outputs.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from grad_core import Params, PyTree, tree
from grad_second_order._outputs import (
    Model,
    diagonal_by_output,
    linearized,
    number_of_examples,
    products,
    sandwich,
)
from grad_second_order._vectors import (
    Loss,
    Operator,
    check_at_least,
    check_real,
    check_scalar,
    examples,
    mean_over,
)
from grad_second_order.likelihoods import Likelihood


def fisher_operator(
    model: Model, likelihood: Likelihood, params: Params, inputs: PyTree
) -> Operator:
    """The true Fisher matrix as a function that multiplies it with trees: v -> F v.

    For the likelihoods here it equals the generalized Gauss-Newton matrix of the mean negative
    log-likelihood.

    Args:
      model: ``model(params, inputs)``, an array whose first axis counts the examples.
      likelihood: Of the targets given the outputs, as `categorical_likelihood` makes it.
      params: The tree of real parameters.
      inputs: The second argument of `model`, arrays with the examples first.

    Returns:
      A function from trees like `params` to such trees, to be used under `jit` and `vmap` too.

    Raises:
      TypeError: If a parameter is not real and floating-point.
      ValueError: If there is no such first axis; by the function, if a tree is not like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import fisher_operator, gaussian_likelihood
      >>> x = jnp.array([1.0, 3.0])
      >>> fisher_operator(lambda w, x: w * x, gaussian_likelihood(), jnp.zeros(1), x)(jnp.ones(1))
      Array([5.], dtype=float32)

    Reference:
      Martens, New insights and perspectives on the natural gradient method, 2020.
    """
    at = linearized("fisher_operator", lambda p: model(p, inputs), params)
    number = number_of_examples("fisher_operator", at.outputs, inputs)
    return sandwich(
        "fisher_operator", params, at, lambda u: likelihood.fisher(at.outputs, u) / number
    )


def monte_carlo_fisher_operator(
    model: Model,
    likelihood: Likelihood,
    params: Params,
    inputs: PyTree,
    *,
    key: jax.Array,
    num_samples: int = 1,
) -> Operator:
    """An estimate of the Fisher matrix, from targets sampled from the model: v -> F v.

    Unbiased, and positive semi-definite. The targets are drawn once: every product is with the same
    matrix.

    Args:
      model: ``model(params, inputs)``, an array whose first axis counts the examples.
      likelihood: Of the targets given the outputs, as `categorical_likelihood` makes it.
      params: The tree of real parameters.
      inputs: The second argument of `model`, arrays with the examples first.
      key: A random key.
      num_samples: How many targets to draw for each example.

    Returns:
      A function from trees like `params` to such trees, to be used under `jit` and `vmap` too.

    Raises:
      TypeError: If a parameter is not real and floating-point.
      ValueError: If there is no such first axis, or `num_samples` is not a positive integer; by the
        function, if a tree is not like `params`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import gaussian_likelihood, monte_carlo_fisher_operator
      >>> @jax.jit
      ... def multiply(v, x, key):
      ...     return monte_carlo_fisher_operator(
      ...         lambda w, x: w * x,
      ...         gaussian_likelihood(),
      ...         jnp.zeros(1),
      ...         x,
      ...         key=key,
      ...         num_samples=1000,
      ...     )(v)
      >>> product = multiply(jnp.ones(1), jnp.array([1.0, 3.0]), jax.random.key(0))
      >>> print(f"{product[0]:.0f}")  # the mean of x**2
      5
    """
    function = "monte_carlo_fisher_operator"
    check_at_least(function, 1, num_samples=num_samples)
    at = linearized(function, lambda p: model(p, inputs), params)
    number = number_of_examples(function, at.outputs, inputs)
    keys = jax.random.split(key, num_samples)
    scores = jax.vmap(lambda key: sampled_score(likelihood, key, at.outputs))(keys)

    def middle(u: jax.Array) -> jax.Array:
        along = jnp.sum(scores * u, axis=tuple(range(2, scores.ndim)), keepdims=True)
        return jnp.mean(scores * along, axis=0) / number

    return sandwich(function, params, at, middle)


def sampled_score(likelihood: Likelihood, key: jax.Array, outputs: jax.Array) -> jax.Array:
    """The gradient by the outputs of the negative log-likelihood of targets sampled from them."""
    targets = likelihood.sample(key, jax.lax.stop_gradient(outputs))
    score: jax.Array = jax.grad(lambda z: jnp.sum(likelihood.negative_log_likelihood(z, targets)))(
        outputs
    )
    return score


def empirical_fisher_operator(loss: Loss, params: Params, *batch: PyTree) -> Operator:
    """The empirical Fisher matrix as a function that multiplies it with trees: v -> F v.

    The mean over the examples of g (g . v), with g the gradient of the loss of one.

    Args:
      loss: ``loss(params, *batch)``, a number; it is called on batches of one.
      params: The tree of real parameters.
      *batch: Trees of arrays whose first axis counts the examples.

    Returns:
      A function from trees like `params` to such trees, to be used under `jit` and `vmap` too.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis; by the function, if a tree is not like `params`.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import empirical_fisher_operator
      >>> product = empirical_fisher_operator(
      ...     lambda w, x: jnp.mean(w * x), jnp.zeros(()), jnp.array([1.0, 3.0])
      ... )
      >>> product(jnp.ones(()))  # the mean of x**2
      Array(5., dtype=float32)
    """
    function = "empirical_fisher_operator"
    check_real(function, "params", params)
    check_scalar(function, "loss", loss, params, *batch)
    number, rows = examples(function, batch)
    at = linearized(function, lambda p: jax.vmap(lambda row: loss(p, *row))(rows), params)
    return sandwich(function, params, at, lambda u: u / number)


def fisher_diagonal(
    model: Model, likelihood: Likelihood, params: Params, inputs: PyTree, *, chunk_size: int = 8
) -> Any:
    """The diagonal of the true Fisher matrix, exactly.

    It costs two backward passes for each example and output; `gauss_newton_bartlett_diagonal`
    estimates it with one a sample.

    Args:
      model: ``model(params, inputs)``, an array whose first axis counts the examples, as in every
        array of `inputs`; no example may depend on others. It is called on single examples.
      likelihood: Of the targets given the outputs, as `categorical_likelihood` makes it.
      params: The tree of real parameters.
      inputs: The second argument of `model`.
      chunk_size: How many pairs of example and output to compute at once.

    Returns:
      The diagonal, a tree like `params`.

    Raises:
      TypeError: If a parameter is not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import fisher_diagonal, gaussian_likelihood
      >>> x = jnp.array([1.0, 3.0])
      >>> fisher_diagonal(lambda w, x: w * x, gaussian_likelihood(), jnp.zeros(1), x)
      Array([5.], dtype=float32)
    """
    check_at_least("fisher_diagonal", 1, chunk_size=chunk_size)
    check_real("fisher_diagonal", "params", params)
    _, rows = examples("fisher_diagonal", (inputs,))

    def middle(outputs: jax.Array, row: Any, u: jax.Array) -> jax.Array:
        return likelihood.fisher(outputs, u)

    return tree.cast_like(diagonal_by_output(model, params, rows, middle, chunk_size), params)


def empirical_fisher_diagonal(
    loss: Loss, params: Params, *batch: PyTree, chunk_size: int = 8
) -> Any:
    """The diagonal of the empirical Fisher matrix: the mean of squared per-example gradients.

    Args:
      loss: ``loss(params, *batch)``, a number; it is called on batches of one.
      params: The tree of real parameters.
      *batch: Trees of arrays whose first axis counts the examples.
      chunk_size: How many gradients to compute at once. Temporary memory is proportional to it.

    Returns:
      The diagonal, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import empirical_fisher_diagonal
      >>> loss = lambda w, x: jnp.mean(x @ w)
      >>> empirical_fisher_diagonal(loss, jnp.zeros(2), jnp.array([[1.0, 0.0], [-1.0, 4.0]]))
      Array([1., 8.], dtype=float32)
    """
    return _empirical("empirical_fisher_diagonal", loss, params, *batch, chunk_size=chunk_size)


def _empirical(function: str, loss: Loss, params: Params, *batch: PyTree, chunk_size: int) -> Any:
    check_at_least(function, 1, chunk_size=chunk_size)
    check_real(function, "params", params)
    check_scalar(function, "loss", loss, params, *batch)
    _, rows = examples(function, batch)

    def squares(row: Any) -> Any:
        g = jax.grad(loss)(params, *row)
        return products(g, g)

    return tree.cast_like(mean_over(squares, rows, chunk_size), params)


def fisher_diag(
    negative_log_likelihood: Loss,
    params: Params,
    inputs: PyTree,
    targets: PyTree,
    *,
    chunk_size: int = 8,
) -> jax.Array:
    """The diagonal of the empirical Fisher matrix as one vector; see `empirical_fisher_diagonal`.

    The mean over the examples of squared gradients, not the square of the mean gradient.

    Args:
      negative_log_likelihood: ``f(params, inputs, targets)``, a number; it is called on batches of
        one.
      params: The tree of P real parameters.
      inputs: The second argument, a tree of arrays whose first axis counts the examples.
      targets: The third, likewise.
      chunk_size: How many gradients to compute at once; memory is proportional to it.

    Returns:
      The diagonal, of shape (P,), in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If there is no such first axis, or `chunk_size` is not a positive integer.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import fisher_diag
      >>> loss = lambda w, x, y: jnp.mean((x @ w - y) ** 2) / 2
      >>> x, y = jnp.array([[1.0], [1.0]]), jnp.array([1.0, -1.0])
      >>> fisher_diag(loss, jnp.zeros(1), x, y)  # gradients -1 and 1
      Array([1.], dtype=float32)
    """
    diagonal = _empirical(
        "fisher_diag", negative_log_likelihood, params, inputs, targets, chunk_size=chunk_size
    )
    return ravel_pytree(diagonal)[0]
