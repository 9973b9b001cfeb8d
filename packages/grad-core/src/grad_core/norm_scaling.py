"""Scaling of updates by norms: of the parameters, of the updates, of the way gone so far."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core.conformance import example, exempt
from grad_core.hyperparameters import DType, NonNegative, Real
from grad_core.linear_algebra import global_norm
from grad_core.numerics import safe_divide, safe_norm, safe_root_mean_squares, safe_sqrt
from grad_core.rules import LeafRule
from grad_core.statistics import at_least_float32, copy_of, zeros_like
from grad_core.transformations import rule
from grad_core.types import EmptyState, PyTree, Updates

ScaleByTrustRatioState = EmptyState


class ScaleByDistanceOverGradientsState(NamedTuple):
    """For each leaf, how far it went, how large its gradients were, and where it started.

    The largest distance from the first parameter, of shape (); the sum of the squares of all
    gradients, of shape (1,); the first parameter.
    """

    max_dist: PyTree
    grad_sum_of_squares: PyTree
    init_params: PyTree


@rule
def scale_by_sign() -> LeafRule:
    """Replaces each element by its sign: u = g / |g|, and 0 where g is 0.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale_by_sign
      >>> tx = scale_by_sign()
      >>> tx.update(jnp.array([-3.0, 0.0, 0.1]), tx.init(jnp.zeros(3)))[0]
      Array([-1.,  0.,  1.], dtype=float32)

    Reference:
      Bernstein et al., signSGD: compressed optimisation for non-convex problems, 2018.
    """
    return LeafRule(lambda g: jnp.sign(g))


@exempt(
    "extreme_gradients_are_finite[float16]",
    reason="the product with the norm of the parameter is beyond float16",
)
@rule
def scale_by_param_block_norm(min_scale: NonNegative = 1e-3) -> LeafRule:
    """Multiplies each leaf by the norm of its parameter: u = max(|p|, min_scale) * g.

    Args:
      min_scale: The least factor, so that zeros can move.

    Returns:
      A transformation without state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale_by_param_block_norm
      >>> tx = scale_by_param_block_norm()
      >>> params = jnp.array([3.0, 4.0])
      >>> tx.update(jnp.array([1.0, 2.0]), tx.init(params), params)[0]
      Array([ 5., 10.], dtype=float32)
    """
    return LeafRule(lambda g, p: g * safe_norm(p, min_scale))


@rule
def scale_by_param_block_rms(min_scale: NonNegative = 1e-3) -> LeafRule:
    """Multiplies each leaf by its parameter's root mean square: u = max(rms(p), min_scale) * g.

    Args:
      min_scale: The least factor, so that zeros can move.

    Returns:
      A transformation without state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale_by_param_block_rms
      >>> tx = scale_by_param_block_rms()
      >>> params = jnp.array([1.0, 7.0])
      >>> tx.update(jnp.array([1.0, 2.0]), tx.init(params), params)[0]
      Array([ 5., 10.], dtype=float32)

    Reference:
      Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018,
      section 8.
    """
    return LeafRule(lambda g, p: g * safe_root_mean_squares(p, min_scale))


@rule
def scale_by_trust_ratio(
    min_norm: NonNegative = 0.0, trust_coefficient: Real = 1.0, eps: NonNegative = 0.0
) -> LeafRule:
    """Gives each leaf's update the norm of its parameter: u = trust_coefficient * |p| / |g| * g.

    In full, u = trust_coefficient * |p| * g / (|g| + eps), with norms of at least `min_norm`; and
    u = g where one of the norms is 0.

    Args:
      min_norm: The least value of both norms.
      trust_coefficient: The factor, of any sign.
      eps: Added to the norm of the update.

    Returns:
      A transformation without state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale_by_trust_ratio
      >>> tx = scale_by_trust_ratio()
      >>> params = jnp.array([3.0, 4.0])
      >>> tx.update(jnp.array([0.0, 0.1]), tx.init(params), params)[0]
      Array([0., 5.], dtype=float32)

    Reference:
      You et al., Large batch optimization for deep learning: training BERT in 76 minutes, 2019,
      section 3.
    """

    def step(g: jax.Array, p: jax.Array) -> jax.Array:
        p_norm, g_norm = safe_norm(p, min_norm), safe_norm(g, min_norm)
        passes = (p_norm == 0) | (g_norm == 0)
        # Divided first: the quotient is at most 1, while the ratio of the norms may overflow.
        unit = g / jnp.where(passes, 1.0, g_norm + eps)
        return unit * jnp.where(passes, 1.0, trust_coefficient * p_norm)

    return LeafRule(step)


@rule
def normalize_by_update_norm(scale_factor: Real = 1.0, eps: NonNegative = 1e-6) -> LeafRule:
    """Divides updates by their global norm: u = scale_factor * g / (|g| + eps).

    |g|^2 sums over all leaves. Zeros stay zeros, also with `eps` 0.

    Args:
      scale_factor: The norm that updates get, of any sign.
      eps: Added to the norm.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import normalize_by_update_norm
      >>> tx = normalize_by_update_norm(10.0, eps=0.0)
      >>> updates = {"a": jnp.array([3.0]), "b": jnp.array([4.0])}
      >>> tx.update(updates, tx.init(updates))[0]
      {'a': Array([6.], dtype=float32), 'b': Array([8.], dtype=float32)}
    """

    def once(updates: Updates) -> dict[str, Any]:
        divisor = global_norm(updates) + eps
        return {"divisor": jnp.where(divisor == 0, 1.0, divisor)}

    return LeafRule(lambda g, divisor: scale_factor * (g / divisor), once=once)


@example(reps_rel=0.5)  # the default's first steps are too short to see
@rule
def scale_by_distance_over_gradients(
    reps_rel: NonNegative = 1e-6,
    eps: NonNegative = 1e-8,
    param_dtype: DType = jnp.float32,
    global_scale: Real = 1.0,
) -> LeafRule:
    """Takes steps of the length that a parameter moved, over the root of its gradients' squares.

    For each leaf, with p_0 its first parameter::

        r' = max(r, |p - p_0|),    from r = reps_rel * (1 + |p_0|)
        s' = s + |g|^2,            from s = 0
        u = global_scale * r' / sqrt(s' + eps) * g

    This is layer-wise DoG, a learning rate without tuning.

    Args:
      reps_rel: The first distance, relative to 1 + |p_0|.
      eps: Added under the root.
      param_dtype: The dtype that p_0 is kept in (its complex counterpart, if p is complex). In one
        narrower than the parameter's, p_0 is rounded, and the error counts as distance.
      global_scale: The factor, of any sign.

    Returns:
      A transformation whose state is a `ScaleByDistanceOverGradientsState`.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import scale_by_distance_over_gradients
      >>> tx = scale_by_distance_over_gradients(reps_rel=0.1)
      >>> params = jnp.array([4.0])
      >>> updates, state = tx.update(jnp.array([100.0]), tx.init(params), params)
      >>> updates
      Array([0.5], dtype=float32)

    Reference:
      Ivgi et al., DoG is SGD's best friend: a parameter-free dynamic step size schedule, 2023,
      section 2 and appendix (L-DoG).
    """

    def first_distance(p: jax.Array) -> jax.Array:
        p = zeros_like(p) if isinstance(p, jax.ShapeDtypeStruct) else jnp.asarray(p)
        wide = at_least_float32(p)
        return (1 + safe_norm(p.astype(jnp.promote_types(p.dtype, wide)), 0.0)) * reps_rel

    def first_params(p: jax.Array) -> jax.Array:
        is_complex = jnp.issubdtype(jnp.result_type(p), jnp.complexfloating)
        dtype = jnp.promote_types(param_dtype, jnp.complex64) if is_complex else param_dtype
        return copy_of(p, dtype)

    def step(
        g: jax.Array,
        p: jax.Array,
        max_dist: jax.Array,
        grad_sum_of_squares: jax.Array,
        init_params: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        max_dist = jnp.maximum(max_dist, safe_norm(p - init_params, 0.0))
        grad_sum_of_squares = grad_sum_of_squares + safe_norm(g, 0.0) ** 2
        root = safe_sqrt(grad_sum_of_squares[0] + eps)
        return (
            safe_divide(g, root) * (max_dist * global_scale),
            max_dist,
            grad_sum_of_squares,
            init_params,
        )

    return LeafRule(
        step,
        ScaleByDistanceOverGradientsState,
        max_dist=first_distance,
        grad_sum_of_squares=lambda p: jnp.zeros(1, at_least_float32(p)),
        init_params=first_params,
    )
