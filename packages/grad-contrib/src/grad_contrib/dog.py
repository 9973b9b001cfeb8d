r"""DoG and DoWG: steps of the distance gone so far, over the root of the sum of squared gradients.

With the largest distance from the first parameters, :math:`\bar r_t = \max(\bar r_{t-1}, \|\theta_t
- \theta_0\|)`, from a small :math:`\bar r_0`; norms are over the whole tree. DoG:

.. math::

    G_t &= G_{t-1} + \|g_t\|^2 \\
    \theta_{t+1} &= \theta_t - \alpha \frac{\bar r_t}{\sqrt{G_t + \varepsilon}} g_t

and DoWG, which weighs the squares by the distances at which they were met:

.. math::

    v_t &= v_{t-1} + \bar r_t^2 \|g_t\|^2 \\
    \theta_{t+1} &= \theta_t - \alpha \frac{\bar r_t^2}{\sqrt{v_t} + \varepsilon} g_t

The learning rate :math:`\alpha` is a factor near 1. Nothing makes the steps small in the end, so
averages of the iterates, such as `params_ema` keeps, do better than the last of them. Layer by
layer, DoG is `scale_by_distance_over_gradients`.

References:
  Ivgi et al., DoG is SGD's best friend: a parameter-free dynamic step size schedule, 2023
  (arXiv 2302.12022).
  Khaled et al., DoWG unleashed: an efficient universal parameter-free gradient descent method, 2023
  (arXiv 2305.16284).
"""

from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np

from grad_contrib._sums import rows, sq_norm
from grad_core import (
    GradientTransformationExtraArgs,
    LeafRule,
    LearningRate,
    MaskOrFn,
    NonNegative,
    Numeric,
    Params,
    Real,
    SharedNumber,
    Updates,
    add_decayed_weights,
    chain,
    copy_of,
    example,
    rule,
    safe_divide,
    safe_sqrt,
    scale_by_learning_rate,
    transformation,
    zeros_like,
)

InitStep: TypeAlias = Literal["distance", "learning_rate", "heuristic"]
_KINDS = get_args(InitStep)


class DoGState(NamedTuple):
    """Whether no step was made, the first parameters, the largest distance, the squares' sum."""

    is_init_step: jax.Array
    init_params: Params
    max_dist: jax.Array
    sum_sq_norm_grads: jax.Array


class DoWGState(NamedTuple):
    """The first parameters, the weighted sum of squares, the square of the largest distance."""

    init_params: Params
    weighted_sq_norm_grads: jax.Array
    estim_sq_dist: jax.Array


@example(init_step=("distance", 0.1))  # the default's first steps are too short to see
@transformation
def dog(
    learning_rate: LearningRate = 1.0,
    init_step: tuple[InitStep, float] = ("heuristic", 1e-6),
    eps: NonNegative = 1e-8,
    weight_decay: Real | None = None,
    mask: MaskOrFn | None = None,
) -> GradientTransformationExtraArgs:
    """DoG: gradient descent by distance over gradients; see the module for the rest.

    State: one number a parameter, of its dtype: the first parameters.

    Args:
      learning_rate: What multiplies the step, 1 or near it: a number, an array of shape () or a
        schedule; its sign is free.
      init_step: What makes the first step, and a number x >= 0: ``("distance", x)``, the first
        distance x; ``("heuristic", x)``, the distance x * (1 + |p|), for the first parameters p;
        ``("learning_rate", x)``, steps of x times the gradient until something has moved.
      eps: Added under the root.
      weight_decay: The multiple of the parameters that is added to the gradients; none with None.
      mask: Which leaves to decay, as in `masked`; all with None.

    Returns:
      A transformation whose state is the tuple of the states of the decay, a `DoGState`, and the
      learning rate's.

    Raises:
      ValueError: If there is no such `init_step`.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import dog
      >>> optimizer = dog(init_step=("distance", 0.5))
      >>> params = jnp.array([3.0, 4.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.3, -0.4], dtype=float32)
    """
    kind, number = _checked(init_step)
    return chain(
        add_decayed_weights(0.0 if weight_decay is None else weight_decay, mask),
        _scale_by_dog(eps, number, kind),
        scale_by_learning_rate(learning_rate),
    )


def _checked(init_step: tuple[InitStep, float]) -> tuple[InitStep, float]:
    """The argument, if it is a pair of a kind and a number that is not negative."""
    is_pair = isinstance(init_step, tuple | list) and len(init_step) == 2
    if not is_pair or init_step[0] not in _KINDS:
        raise ValueError(
            f"dog: init_step must be a pair of one of {', '.join(_KINDS)}, and a number; "
            f"got {init_step!r}."
        )
    kind, number = init_step
    if isinstance(number, int | float) and not number >= 0:
        raise ValueError(f"dog: the number of init_step must be >= 0; got {init_step!r}.")
    return kind, number


def _norm_of(params: Params) -> jax.Array:
    """The norm of the first parameters; 0 for mere shapes."""
    leaves = jax.tree.leaves(params)
    known = (zeros_like(p) if isinstance(p, jax.ShapeDtypeStruct) else p for p in leaves)
    return safe_sqrt(sq_norm(map(jnp.asarray, known)))


@rule
def _scale_by_dog(eps: NonNegative, number: NonNegative, kind: InitStep) -> LeafRule:
    """Multiplies by DoG's step size."""

    def first_distance(params: Params) -> Numeric:
        if kind == "learning_rate":
            return 0.0
        return number * (1 + _norm_of(params)) if kind == "heuristic" else number

    def once(
        updates: Updates,
        params: Params,
        is_init_step: jax.Array,
        init_params: Params,
        max_dist: jax.Array,
        sum_sq_norm_grads: jax.Array,
    ) -> dict[str, Any]:
        sq_way, sq_norm_grads = _sq_way_and_gradients(updates, params, init_params)
        distance = jnp.maximum(max_dist, safe_sqrt(sq_way))
        squares = sum_sq_norm_grads + sq_norm_grads
        size = safe_divide(distance, safe_sqrt(squares + eps))
        if kind == "learning_rate":
            size = jnp.where(is_init_step, number, size)
        return {
            "size": size,
            "is_init_step": is_init_step & (sq_norm_grads == 0),
            "max_dist": distance,
            "sum_sq_norm_grads": squares,
        }

    return LeafRule(
        _scaled,
        DoGState,
        once=once,
        is_init_step=np.bool_(True),
        init_params=copy_of,
        max_dist=SharedNumber(first_distance),
        sum_sq_norm_grads=SharedNumber(lambda params: 0.0),
    )


@transformation
def dowg(
    learning_rate: LearningRate = 1.0,
    init_estim_sq_dist: NonNegative | None = None,
    eps: NonNegative = 1e-4,
    weight_decay: Real | None = None,
    mask: MaskOrFn | None = None,
) -> GradientTransformationExtraArgs:
    """DoWG: gradient descent by distance over weighted gradients; see the module for the rest.

    State: one number a parameter, of its dtype: the first parameters.

    Args:
      learning_rate: What multiplies the step, 1 or near it: a number, an array of shape () or a
        schedule; its sign is free.
      init_estim_sq_dist: The square of the first distance; `eps` with None.
      eps: Added to the root.
      weight_decay: The multiple of the parameters that is added to the gradients; none with None.
      mask: Which leaves to decay, as in `masked`; all with None.

    Returns:
      A transformation whose state is the tuple of the states of the decay, a `DoWGState`, and the
      learning rate's.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_contrib import dowg
      >>> optimizer = dowg(init_estim_sq_dist=0.25, eps=0.0)
      >>> params = jnp.array([3.0, 4.0])
      >>> optimizer.update(params, optimizer.init(params), params)[0].round(3)
      Array([-0.3, -0.4], dtype=float32)
    """
    first = eps if init_estim_sq_dist is None else init_estim_sq_dist
    return chain(
        add_decayed_weights(0.0 if weight_decay is None else weight_decay, mask),
        _scale_by_dowg(eps, first),
        scale_by_learning_rate(learning_rate),
    )


@rule
def _scale_by_dowg(eps: NonNegative, first_sq_dist: NonNegative) -> LeafRule:
    """Multiplies by DoWG's step size, from the square of its first distance."""

    def once(
        updates: Updates,
        params: Params,
        init_params: Params,
        weighted_sq_norm_grads: jax.Array,
        estim_sq_dist: jax.Array,
    ) -> dict[str, Any]:
        sq_way, sq_norm_grads = _sq_way_and_gradients(updates, params, init_params)
        sq_distance = jnp.maximum(estim_sq_dist, sq_way)
        weighted = weighted_sq_norm_grads + sq_distance * sq_norm_grads
        return {
            "size": safe_divide(sq_distance, safe_sqrt(weighted) + eps),
            "weighted_sq_norm_grads": weighted,
            "estim_sq_dist": sq_distance,
        }

    return LeafRule(
        _scaled,
        DoWGState,
        once=once,
        init_params=copy_of,
        weighted_sq_norm_grads=SharedNumber(lambda params: 0.0),
        estim_sq_dist=SharedNumber(lambda params: first_sq_dist),
    )


def _scaled(
    g: jax.Array, p: jax.Array, init_params: jax.Array, size: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return size * g, init_params  # p is asked for, that its shape be checked


def _sq_way_and_gradients(
    updates: Updates, params: Params, init_params: Params
) -> tuple[jax.Array, jax.Array]:
    """The squares of the distance from the first parameters, and of the norm of the gradients."""
    trees = list(rows(updates, params, init_params))
    return sq_norm(p - p0 for _, p, p0 in trees), sq_norm(g for g, _, _ in trees)
