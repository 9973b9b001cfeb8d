"""The two estimates of the Hessian's diagonal that Sophia divides by; other optimizers may too.

Both cost about one more gradient. Neither keeps a state: an optimizer averages them over steps.

Reference:
  Liu, Li, Hall, Liang and Ma, Sophia: a scalable stochastic second-order optimizer for language
  model pre-training, 2023, algorithms 1 and 2.
"""

from typing import Any

import jax

from grad_core import Params, PyTree, tree
from grad_second_order._outputs import Model, linearized, number_of_examples, products
from grad_second_order._vectors import Distribution, Loss, check_at_least, mean_over
from grad_second_order.diagonals import hutchinson_diagonal
from grad_second_order.fisher import sampled_score
from grad_second_order.hessian import hessian_operator
from grad_second_order.likelihoods import Likelihood


def hutchinson_hessian_diagonal(
    loss: Loss,
    params: Params,
    *batch: PyTree,
    key: jax.Array,
    num_samples: int = 1,
    distribution: Distribution = "normal",
    chunk_size: int = 8,
) -> Any:
    """Estimates the diagonal of the Hessian of a loss by u * (H u), u random.

    Unbiased; it may be negative. Sophia's u is normal; signs (AdaHessian's) vary less.

    Args:
      loss: A function of the parameters and of `batch` that returns a number.
      params: The tree of real parameters.
      *batch: Further arguments of `loss`.
      key: A random key.
      num_samples: How many samples to take the mean of.
      distribution: Of the entries of u, ``"normal"`` or ``"rademacher"``.
      chunk_size: How many products to compute at once.

    Returns:
      The estimate, a tree like `params`.

    Raises:
      TypeError: If the loss is not one real number, or a parameter not real and floating-point.
      ValueError: If a number is not a positive integer, or `distribution` is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import hutchinson_hessian_diagonal
      >>> hutchinson_hessian_diagonal(
      ...     lambda w: jnp.sum(w**3),
      ...     jnp.array([1.0, 2.0]),
      ...     key=jax.random.key(0),
      ...     distribution="rademacher",
      ... )
      Array([ 6., 12.], dtype=float32)
    """
    return hutchinson_diagonal(
        hessian_operator(loss, params, *batch),
        params,
        key,
        num_samples=num_samples,
        distribution=distribution,
        chunk_size=chunk_size,
    )


def gauss_newton_bartlett_diagonal(
    model: Model,
    likelihood: Likelihood,
    params: Params,
    inputs: PyTree,
    *,
    key: jax.Array,
    num_samples: int = 1,
    chunk_size: int = 8,
) -> Any:
    """Estimates the diagonal of the Gauss-Newton matrix by N g * g, from sampled targets.

    g is the gradient of the mean negative log-likelihood of targets drawn from the model, one for
    each of the N examples. By Bartlett's identities gradients of different examples have mean 0, so
    that the estimate is unbiased, for the true Fisher matrix too; and it is never negative.

    Args:
      model: ``model(params, inputs)``, an array whose first axis counts the examples.
      likelihood: Of the targets given the outputs, as `categorical_likelihood` makes it.
      params: The tree of real parameters.
      inputs: The second argument of `model`, arrays with the examples first.
      key: A random key.
      num_samples: How many samples to take the mean of.
      chunk_size: How many of them to compute at once.

    Returns:
      The estimate, a tree like `params`.

    Raises:
      TypeError: If a parameter is not real and floating-point.
      ValueError: If there is no such first axis, or a number is not a positive integer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_second_order import bernoulli_likelihood, gauss_newton_bartlett_diagonal
      >>> gauss_newton_bartlett_diagonal(
      ...     lambda w, x: w * x,
      ...     bernoulli_likelihood(),
      ...     jnp.zeros(1),
      ...     jnp.array([2.0]),
      ...     key=jax.random.key(0),
      ... )
      Array([1.], dtype=float32)
    """
    function = "gauss_newton_bartlett_diagonal"
    check_at_least(function, 1, num_samples=num_samples, chunk_size=chunk_size)
    at = linearized(function, lambda p: model(p, inputs), params)
    number = number_of_examples(function, at.outputs, inputs)

    def sample(key: jax.Array) -> Any:
        total = at.pull(sampled_score(likelihood, key, at.outputs))
        return tree.scale(1 / number, products(total, total))

    keys = jax.random.split(key, num_samples)
    return tree.cast_like(mean_over(sample, keys, chunk_size), params)
