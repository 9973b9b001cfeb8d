r"""L-BFGS: steps of Newton's method with a Hessian guessed from the last few gradients.

With the differences of parameters :math:`s_i = x_{i+1} - x_i`, of gradients :math:`y_i = g_{i+1} -
g_i`, and the weights :math:`\rho_i = 1 / \langle s_i, y_i \rangle`, the direction
:math:`H g` comes from two loops over the last m pairs:

.. math::

    q &= g; \quad \alpha_i = \rho_i \langle s_i, q \rangle, \; q \mathrel{-}= \alpha_i y_i
      && \text{newest first} \\
    r &= \gamma q; \quad r \mathrel{+}= (\alpha_i - \rho_i \langle y_i, r \rangle) s_i
      && \text{oldest first}

:math:`\gamma = \langle s, y \rangle / \|y\|^2` of the newest pair, and before there is one
:math:`\min(1, 1 / \|g\|)`. Pairs without positive curvature, :math:`\langle s, y \rangle > 0`, are
left out, their weight being 0: so H is always positive definite.

Reference:
  Nocedal and Wright, Numerical optimization, 2006, algorithms 7.4 and 7.5, and note 5.3.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    LearningRate,
    OptState,
    Params,
    TreeMismatchError,
    TreeRule,
    Updates,
    chain,
    global_norm,
    identity,
    needs_extra_args,
    rule,
    safe_increment,
    scalar_dtype,
    scale,
    scale_by_learning_rate,
    structure,
    transformation,
    zeros_like,
)
from grad_core.errors import shown
from grad_core.rules import in_compute_precision
from grad_second_order._line import check_beside_params, half_square
from grad_second_order._parts import Arrays, Part, add, inner, wide
from grad_second_order.zoom import scale_by_zoom_linesearch


class ScaleByLBFGSState(NamedTuple):
    """The last parameters and gradients, and the memory of their differences.

    Attributes:
      count: The number of updates.
      params: The last parameters.
      updates: The gradients there.
      diff_params_memory: The last differences of parameters; leaves have a first axis of the
        memory's size, around which the newest moves.
      diff_updates_memory: Those of gradients.
      weights_memory: Their weights; 0 where there is no pair, or none of positive curvature.
    """

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    params: Params
    updates: Updates
    diff_params_memory: Params
    diff_updates_memory: Updates
    weights_memory: jax.Array


@rule
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> TreeRule:
    """Multiplies gradients by the L-BFGS guess at the inverse Hessian, H g; see the module.

    State: 2 m + 2 numbers a parameter, with the default 88 bytes for float32.

    Args:
      memory_size: The number m of pairs that are remembered, >= 1.
      scale_init_precond: Whether to scale by gamma; with False, gamma is 1.

    Returns:
      A transformation whose state is a `ScaleByLBFGSState`. Its ``update`` needs the parameters.

    Raises:
      ValueError: If `memory_size` is not positive.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_second_order import scale_by_lbfgs
      >>> tx = scale_by_lbfgs()
      >>> h = jnp.array([1.0, 10.0])  # of the quadratic with the gradient h x
      >>> x = jnp.array([2.0, 0.0])
      >>> _, state = tx.update(h * x, tx.init(x), x)
      >>> x = jnp.array([1.0, 0.0])
      >>> updates, state = tx.update(h * x, state, x)
      >>> updates
      Array([1., 0.], dtype=float32)
    """
    if memory_size < 1:
        raise ValueError(f"scale_by_lbfgs: memory_size must be >= 1; got {memory_size}.")

    def init(params: Params) -> OptState:
        structure.check_inexact(params, "params")
        zeros = jax.tree.map(zeros_like, params)
        memory = jax.tree.map(
            lambda zero: jnp.broadcast_to(zero, (memory_size, *zero.shape)), zeros
        )
        return ScaleByLBFGSState(
            count=jnp.zeros([], jnp.int32),
            params=zeros,
            updates=jax.tree.map(zeros_like, params),
            diff_params_memory=memory,
            diff_updates_memory=jax.tree.map(jnp.copy, memory),
            weights_memory=jnp.zeros([memory_size], scalar_dtype(params)),
        )

    def update(updates: Updates, state: Any, params: Params) -> tuple[Updates, OptState]:
        _check(updates, state, params)
        part = Part(updates)
        g, p = part.arrays(updates), part.arrays(params)
        newest = (state.count - 1) % memory_size
        s, y, weights = _remembered(part, g, p, state, newest)
        ages = (newest - jnp.arange(memory_size)) % memory_size  # newest first
        gamma = _initial_scale(wide(g), y, weights, ages) if scale_init_precond else 1.0
        direction = _two_loops(wide(g), s, y, weights, ages, gamma)
        return part.filled(updates, direction), ScaleByLBFGSState(
            count=safe_increment(state.count),
            params=part.filled(state.params, p),
            updates=part.filled(state.updates, g),
            diff_params_memory=part.filled(state.diff_params_memory, s),
            diff_updates_memory=part.filled(state.diff_updates_memory, y),
            weights_memory=weights,
        )

    return TreeRule(update, init, needs_params=True)


def _check(updates: Updates, state: Any, params: Params) -> None:
    if not all(hasattr(state, field) for field in ScaleByLBFGSState._fields):
        raise TreeMismatchError(
            f"the state must be a ScaleByLBFGSState; got {shown(state)}. "
            "Was it made by another init?"
        )
    check_beside_params(updates, params, "updates")
    check_beside_params(updates, state.params, "updates")


def _remembered(
    part: Part, g: Arrays, p: Arrays, last: Any, newest: jax.Array
) -> tuple[Arrays, Arrays, jax.Array]:
    """The memories s and y and the weights, with the newest pair; none at the first update."""
    last_g, last_p = part.arrays(last.updates), part.arrays(last.params)
    s_memory, y_memory = map(part.arrays, (last.diff_params_memory, last.diff_updates_memory))
    weights = last.weights_memory
    s = _differences(p, last_p, s_memory, last.count > 0)
    y = _differences(g, last_g, y_memory, last.count > 0)
    curvature, fall = inner(s, y), jnp.abs(inner(s, last_g))
    info = jnp.finfo(weights.dtype)  # type: ignore[no-untyped-call]
    # Less than that is rounding.
    is_good = (curvature > float(info.eps) * fall) & (curvature >= float(info.tiny))
    weight = jnp.where(is_good, 1 / jnp.where(is_good, curvature, 1), 0)
    return (
        [_put(m, x, newest) for m, x in zip(s_memory, s, strict=True)],
        [_put(m, x, newest) for m, x in zip(y_memory, y, strict=True)],
        _put(weights, weight.astype(weights.dtype), newest),
    )


def _differences(new: Arrays, old: Arrays, memory: Arrays, is_known: jax.Array) -> Arrays:
    """New minus old in the memory's dtype; zeros if there is no old."""

    def subtract(a: jax.Array, b: jax.Array, m: jax.Array) -> jax.Array:
        difference = in_compute_precision(a) - in_compute_precision(b)
        return jnp.where(is_known, difference, 0).astype(m.dtype)

    return [subtract(*row) for row in zip(new, old, memory, strict=True)]


def _put(memory: jax.Array, x: jax.Array, i: jax.Array) -> jax.Array:
    updated: jax.Array = jax.lax.dynamic_update_index_in_dim(memory, x, i, 0)
    return updated


def _take(memory: Arrays, i: jax.Array) -> Arrays:
    return [
        in_compute_precision(jax.lax.dynamic_index_in_dim(m, i, 0, keepdims=False)) for m in memory
    ]


def _initial_scale(g: Arrays, y: Arrays, weights: jax.Array, ages: jax.Array) -> jax.Array:
    """The number gamma: <s, y> / |y|^2 of the newest pair that has a weight."""
    is_good = weights[ages] > 0
    newest = ages[jnp.argmax(is_good)]
    is_any = jnp.any(is_good)
    norm = global_norm([jnp.where(is_any, a, b) for a, b in zip(_take(y, newest), g, strict=True)])
    curvature = 1 / jnp.where(is_any, weights[newest], 1)
    # Divided twice, since the square of the norm may overflow.
    by_pair = curvature / jnp.where(is_any, norm, 1) / jnp.where(is_any, norm, 1)
    return jnp.where(is_any, by_pair, 1 / jnp.maximum(norm, 1))


def _two_loops(
    g: Arrays, s: Arrays, y: Arrays, weights: jax.Array, ages: jax.Array, gamma: Any
) -> Arrays:
    """The direction H g, newest pairs first and then oldest first."""

    def forget(q: Arrays, i: jax.Array) -> tuple[Arrays, jax.Array]:
        alpha = weights[i] * inner(_take(s, i), q)
        return add(q, -alpha, _take(y, i)), alpha

    def recall(r: Arrays, pair: tuple[jax.Array, jax.Array]) -> tuple[Arrays, None]:
        i, alpha = pair
        beta = weights[i] * inner(_take(y, i), r)
        return add(r, alpha - beta, _take(s, i)), None

    q, alphas = jax.lax.scan(forget, g, ages)
    r = [(gamma * x).astype(x.dtype) for x in q]
    r, _ = jax.lax.scan(recall, r, (ages, alphas), reverse=True)
    return r


_ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


@needs_extra_args(value_fn=half_square)
@transformation
def lbfgs(
    learning_rate: LearningRate | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformationExtraArgs:
    """L-BFGS: steps along -H g, of a size that a line search finds; see the module.

    With a line search, its ``update`` takes ``value``, ``grad`` and ``value_fn``, of which
    `scale_by_zoom_linesearch` tells. `run` minimises with it, to a tolerance.

    Complex gradients must be conjugated, but not the extra argument ``grad``.

    State: 2 m + 3 numbers a parameter, with the default 92 bytes for float32.

    Args:
      learning_rate: What the direction is multiplied by before the search: a number, an array of
        shape () or a schedule; 1 with None, as is best with a line search.
      memory_size: As for `scale_by_lbfgs`.
      scale_init_precond: As for `scale_by_lbfgs`.
      linesearch: What makes steps of directions; with None, the learning rate alone.

    Returns:
      A transformation whose state is the tuple of a `ScaleByLBFGSState`, that of the learning rate,
      and that of the line search.

    Raises:
      ValueError: If `memory_size` is not positive.
      MissingArgumentError: By ``update``, without parameters, or without ``value_fn`` if there is a
        line search.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates
      >>> from grad_second_order import lbfgs, value_and_grad_from_state
      >>> def rosenbrock(x):
      ...     return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
      >>> optimizer = lbfgs()
      >>> value_and_grad = value_and_grad_from_state(rosenbrock)
      >>> x = jnp.zeros(2)
      >>> state = optimizer.init(x)
      >>> for _ in range(30):
      ...     value, grad = value_and_grad(x, state=state)
      ...     updates, state = optimizer.update(
      ...         grad, state, x, value=value, grad=grad, value_fn=rosenbrock
      ...     )
      ...     x = apply_updates(x, updates)
      >>> print(jnp.array_str(x, precision=3))
      [1. 1.]
    """
    return chain(
        scale_by_lbfgs(memory_size, scale_init_precond),
        scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate),
        identity() if linesearch is None else linesearch,
    )
