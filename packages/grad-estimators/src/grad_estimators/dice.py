r"""DiCE: objectives whose derivatives of every order are unbiased.

The magic box is 1 in value, and keeps the probability of what was sampled in its derivatives:

.. math::

    \square(\ell) = e^{\ell - \perp(\ell)}, \qquad
    \nabla \square(\ell) = \square(\ell) \, \nabla \ell

with :math:`\perp`, which stops gradients. Each cost is multiplied by the box of the log
probabilities of all nodes that it depends on; each node may have a baseline, of value 0:

.. math::

    L = \sum_c \square\Bigl(\sum_{w \to c} \log p(w)\Bigr) \, c
        + \sum_w \bigl(1 - \square(\log p(w))\bigr) \, b_w
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from grad_estimators._sampling import (
    DistBuilder,
    Function,
    Params,
    Term,
    build,
    check_call,
    draws,
    jacobians,
    log_density,
    scalar,
    surrogate,
)


def magic_box(log_prob: ArrayLike) -> jax.Array:
    """One, with the derivatives of exp(log_prob) / stop_gradient(exp(log_prob)), of every order.

    Args:
      log_prob: Log probabilities of samples, of any shape, differentiable in the parameters. The
        samples themselves must not be: stop their gradients.

    Returns:
      Ones of the shape of `log_prob`; at -inf too, where derivatives are zero.

    Example:
      >>> import jax
      >>> from grad_estimators import magic_box
      >>> magic_box(-3.0), jax.grad(lambda x: magic_box(x**2))(3.0)
      (Array(1., dtype=float32, weak_type=True), Array(6., dtype=float32, weak_type=True))

    Reference:
      Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator, 2018, section 4.
    """
    log_prob = jnp.asarray(log_prob)
    log_prob = jnp.where(log_prob == -jnp.inf, 0, log_prob)
    return jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))


def dice_objective(
    log_probs: Mapping[str, ArrayLike],
    costs: Sequence[tuple[ArrayLike, Iterable[str]]],
    baselines: Mapping[str, ArrayLike] | None = None,
) -> jax.Array:
    """The objective of a stochastic computation graph, whose derivatives are unbiased.

    See the module for the equation. It holds for one draw of the whole graph, or for many along
    leading axes; take the mean over these, and derivatives of that.

    Args:
      log_probs: For each node that was sampled, by a name, its log probability given what it
        depends on; differentiable in the parameters, and not through samples.
      costs: The costs of which the sum counts, each with the names of all nodes that it depends on,
        directly or through other nodes.
      baselines: For some nodes, by name, a baseline that does not depend on that node, nor on
        nodes after it. It changes variances of first derivatives, and no mean.

    Returns:
      The objective, of the shape that all arrays broadcast to. Its value is the sum of the costs.

    Raises:
      ValueError: If a cost or a baseline names a node that has no log probability.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import dice_objective
      >>> x = jnp.array([1.0, 0.0, 1.0])  # draws of a coin, and then of a normal around it
      >>> y = jnp.array([1.5, -0.5, 0.0])
      >>> def objective(logit, loc):
      ...     log_probs = {
      ...         "x": x * logit - jax.nn.softplus(logit),
      ...         "y": -0.5 * (y - loc * x) ** 2,
      ...     }
      ...     costs = [(3.0 * x, ["x"]), (x * y, ["x", "y"])]
      ...     return jnp.mean(dice_objective(log_probs, costs))
      >>> hessian = jax.jit(jax.hessian(objective, (0, 1)))(0.0, 1.0)

    Reference:
      Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator, 2018, sections 4
      and 4.2.
    """
    log_probs = {node: jnp.asarray(log_prob) for node, log_prob in log_probs.items()}
    baselines = {} if baselines is None else baselines
    causes = [tuple(nodes) for _, nodes in costs]
    for nodes in (*causes, tuple(baselines)):
        for node in nodes:
            if node not in log_probs:
                raise ValueError(
                    f"dice_objective: {node!r} has no log probability; those given are of "
                    f"{', '.join(map(repr, log_probs)) or 'no node'}. Add it to log_probs."
                )
    terms = [
        magic_box(sum((log_probs[node] for node in nodes), start=jnp.zeros(()))) * cost
        for (cost, _), nodes in zip(costs, causes, strict=True)
    ]
    terms += [(1 - magic_box(log_probs[node])) * b for node, b in baselines.items()]
    return jnp.asarray(sum(terms, start=jnp.zeros(())))


def dice_jacobians(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    baseline: ArrayLike = 0.0,
) -> Any:
    """First derivatives of the terms of `dice_surrogate`, one for each sample.

    Without a baseline they are those of `score_function_jacobians`. See `dice_surrogate` for
    higher orders.

    Args:
      function: As of `score_function_jacobians`, and so are the other arguments.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      baseline: A scalar near E[f] that does not depend on the samples.

    Returns:
      For each of `params`, in a list or tuple like it, an array (num_samples, *param.shape).

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import dice_jacobians, multi_normal
      >>> params, key = [jnp.ones(2), jnp.zeros(2)], jax.random.key(0)
      >>> [x.shape for x in dice_jacobians(jnp.sum, params, multi_normal, key, 5, baseline=2.0)]
      [(5, 2), (5, 2)]

    Reference:
      Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator, 2018.
    """
    name = "dice_jacobians"
    return jacobians(*_dice(name, function, params, dist_builder, rng, num_samples, baseline))


def dice_surrogate(
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    baseline: ArrayLike = 0.0,
) -> jax.Array:
    r"""The mean of f, whose derivatives of every order are unbiased score function estimates.

    .. math:: \frac1n \sum_i b + \square(\log p(x_i)) \, (f(x_i) - b)

    Where f depends on the parameters, too, all cross terms are there.

    Args:
      function: As of `score_function_jacobians`, and so are the other arguments. What it closes
        over gets its derivatives, too.
      params: The parameters.
      dist_builder: Makes the distribution from them.
      rng: A random key.
      num_samples: How many samples.
      baseline: A scalar b near E[f] that does not depend on the samples.

    Returns:
      A scalar.

    Raises:
      TypeError: If an argument is of the wrong kind.
      ValueError: If `num_samples` is not positive, or f gives no scalar.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from grad_estimators import dice_surrogate, multi_normal
      >>> def objective(loc):
      ...     params, key = [loc, 0.0], jax.random.key(0)
      ...     return dice_surrogate(lambda x: x**2, params, multi_normal, key, 100_000, 1.0)
      >>> bool(abs(jax.jit(jax.grad(jax.grad(objective)))(0.0) - 2) < 0.1)
      True

    Reference:
      Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator, 2018.
    """
    name = "dice_surrogate"
    return surrogate(*_dice(name, function, params, dist_builder, rng, num_samples, baseline))


def _dice(
    name: str,
    function: Function,
    params: Params,
    dist_builder: DistBuilder,
    rng: jax.Array,
    num_samples: int,
    baseline: ArrayLike,
) -> tuple[Term, Params, Any]:
    check_call(name, function, params, dist_builder, rng, num_samples)
    f = scalar(name, function)
    b = jax.lax.stop_gradient(jnp.asarray(baseline))

    def term(params: Params, sample: Any) -> jax.Array:
        log_prob = log_density(build(dist_builder, params), sample)
        return b + magic_box(log_prob) * (f(sample) - b)

    return term, params, draws(build(dist_builder, params), rng, num_samples)
