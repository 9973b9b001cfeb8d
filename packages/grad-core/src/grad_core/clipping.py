"""Clipping of updates: by value, by block, by global norm, by unit, by example."""

import functools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from grad_core import structure
from grad_core.conformance import example, exempt
from grad_core.hyperparameters import NonNegative, Parameter
from grad_core.linear_algebra import global_norm
from grad_core.numerics import abs_sq, real_dtype, safe_root_mean_squares, safe_sqrt, widen
from grad_core.rules import LeafRule
from grad_core.transformations import rule
from grad_core.types import EmptyState, Numeric, PyTree, Updates

ClipState = EmptyState
ClipByGlobalNormState = EmptyState
AdaptiveGradClipState = EmptyState

Axis: TypeAlias = int | tuple[int, ...] | None


@exempt("complex64", reason="an order, and so a least and a largest value, needs real numbers")
@example(1.0)
@rule
def clip(max_delta: NonNegative) -> LeafRule:
    """Clips each element into an interval around zero: u = min(max(g, -max_delta), max_delta).

    Args:
      max_delta: The largest modulus an element keeps; 0 gives zeros.

    Returns:
      A transformation without state.

    Raises:
      ValueError: By ``update``, if updates are complex; `clip_by_block_rms` and
        `clip_by_global_norm` take them.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import clip
      >>> tx = clip(1.0)
      >>> tx.update(jnp.array([-5.0, 0.5]), tx.init(jnp.zeros(2)))[0]
      Array([-1. ,  0.5], dtype=float32)
    """

    def step(g: jax.Array) -> jax.Array:
        if jnp.iscomplexobj(g):
            raise ValueError(
                "clip: updates must be real, for complex numbers have no order; "
                "use clip_by_block_rms or clip_by_global_norm."
            )
        return jnp.clip(g, -max_delta, max_delta)

    return LeafRule(step)


@example(1.0)
@rule
def clip_by_block_rms(threshold: NonNegative) -> LeafRule:
    """Scales each leaf so that its root mean square is at most `threshold`.

    u = g * min(1, threshold / rms(g)), with rms(g)^2 = mean |g_i|^2.

    Args:
      threshold: The largest root mean square that passes unchanged; 0 gives zeros.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import clip_by_block_rms
      >>> tx = clip_by_block_rms(2.0)
      >>> updates = {"large": jnp.array([1.0, -7.0]), "small": jnp.array([1.0, 2.0])}
      >>> tx.update(updates, tx.init(updates))[0]
      {'large': Array([ 0.4, -2.8], dtype=float32), 'small': Array([1., 2.], dtype=float32)}

    Reference:
      Shazeer and Stern, Adafactor: adaptive learning rates with sublinear memory cost, 2018,
      section 6.
    """
    return LeafRule(lambda g: g * _factor(safe_root_mean_squares(g, 0.0), threshold))


@example(1.0)
@rule
def clip_by_global_norm(max_norm: NonNegative) -> LeafRule:
    """Scales all updates by one factor so that their global norm is at most `max_norm`.

    u = g * min(1, max_norm / |g|), where |g|^2 sums over all leaves. The norm is accumulated in at
    least float32 and neither overflows nor underflows; the factor is computed once.

    Args:
      max_norm: The largest norm that passes unchanged; 0 gives zeros.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import clip_by_global_norm
      >>> tx = clip_by_global_norm(1.0)
      >>> tx.update({"w": jnp.array([3.0, 4.0])}, tx.init({"w": jnp.zeros(2)}))[0]
      {'w': Array([0.6, 0.8], dtype=float32)}

    Reference:
      Pascanu et al., On the difficulty of training recurrent neural networks, 2012.
    """

    def once(updates: Updates) -> dict[str, Any]:
        return {"factor": _factor(global_norm(updates), max_norm)}

    def step(g: jax.Array, factor: jax.Array) -> jax.Array:
        return g * factor

    return LeafRule(step, once=once)


@example(0.1)
@rule
def adaptive_grad_clip(
    clipping: NonNegative, eps: NonNegative = 1e-3, axis: Axis = None
) -> LeafRule:
    """Scales the updates of each unit to at most a fraction of the norm of its parameters.

    u = g * min(1, clipping * max(|p|, eps) / |g|), with the norms of `unitwise_norm`.

    Args:
      clipping: The largest ratio of the norms of update and parameter; 0 gives zeros.
      eps: The least norm a parameter is taken to have, so that zeros can move.
      axis: The axes to reduce, of all leaves alike; chosen by `unitwise_norm` with None.

    Returns:
      A transformation without state.

    Raises:
      MissingArgumentError: By ``update``, without parameters.
      ValueError: By ``update``, if a leaf has no such axis, or too many to choose by None.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import adaptive_grad_clip
      >>> tx = adaptive_grad_clip(0.1)
      >>> params = jnp.array([[3.0, 0.0], [4.0, 0.5]])  # two units, of norms 5 and 0.5
      >>> grads = jnp.array([[6.0, 0.01], [8.0, 0.0]])
      >>> tx.update(grads, tx.init(params), params)[0]
      Array([[0.3 , 0.01],
             [0.4 , 0.  ]], dtype=float32)

    Reference:
      Brock et al., High-performance large-scale image recognition without normalization, 2021,
      equation 3.
    """

    def step(g: jax.Array, p: jax.Array) -> jax.Array:
        axes = _unit_axes(g.shape) if axis is None else axis
        largest = jnp.maximum(_norms(p, axes), eps) * clipping
        return g * _unit_factor(_norms(g, axes), largest, 1e-6)

    return LeafRule(step)


def unitwise_norm(x: jax.Array, axis: Axis = None) -> jax.Array:
    """Computes the Euclidean norm of each unit of a layer, repeated for each of its elements.

    A unit is what one output of a layer depends on. With `axis` None the shape tells: scalars and
    vectors (whatever has at most one axis longer than 1) are one unit; matrices and stacks of
    them, (in, out) and (in, heads, out), are reduced along axis 0; kernels of convolutions, in 2
    or 3 dimensions and with channels last, along all axes but the last.

    Args:
      x: An array of any shape; real, complex or integer.
      axis: The axis or axes to reduce.

    Returns:
      A real array of the shape of `x`, accumulated in at least float32, without overflow or
      underflow on the way.

    Raises:
      ValueError: If `axis` is not among the axes of `x`, or is None and `x` has more than five.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import unitwise_norm
      >>> unitwise_norm(jnp.array([[3.0, 1.0], [4.0, 0.0]]))
      Array([[5., 1.],
             [5., 1.]], dtype=float32)

    Reference:
      Brock et al., High-performance large-scale image recognition without normalization, 2021,
      section 4.1.
    """
    norms: jax.Array = _unitwise_norm(jnp.asarray(x), axis)
    return norms


@functools.partial(jax.jit, static_argnums=1)
def _unitwise_norm(x: jax.Array, axis: Axis) -> jax.Array:
    norms = _norms(widen(x), _unit_axes(x.shape) if axis is None else axis)
    return jnp.broadcast_to(norms, x.shape).astype(real_dtype(x))


def unitwise_clip(
    g_norm: jax.Array, max_norm: jax.Array, grad: jax.Array, div_eps: Numeric = 1e-6
) -> jax.Array:
    """Scales units whose norm is too large down to it: u = g * max_norm / max(g_norm, div_eps).

    Units with g_norm < max_norm stay as they are.

    Args:
      g_norm: The norm of each element's unit, from `unitwise_norm`; of the shape of `grad`.
      max_norm: The largest norm of each element's unit, of the same shape.
      grad: The gradient.
      div_eps: The least divisor.

    Returns:
      An array of the shape and dtype of `grad`.

    Raises:
      ValueError: If the shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import unitwise_clip, unitwise_norm
      >>> g = jnp.array([[3.0, 0.5], [4.0, 0.0]])
      >>> unitwise_clip(unitwise_norm(g), jnp.ones((2, 2)), g)
      Array([[0.6, 0.5],
             [0.8, 0. ]], dtype=float32)

    Reference:
      Brock et al., High-performance large-scale image recognition without normalization, 2021,
      equation 3.
    """
    shapes = {name: jnp.shape(x) for name, x in (("g_norm", g_norm), ("max_norm", max_norm))}
    for name, shape in shapes.items():
        if shape != jnp.shape(grad):
            raise ValueError(
                f"unitwise_clip: {name} must have the shape of grad, {jnp.shape(grad)}; "
                f"got {shape}."
            )
    factor = _unit_factor(widen(g_norm), widen(max_norm), div_eps)
    return (widen(grad) * factor).astype(jnp.result_type(grad))


def per_example_global_norm_clip(
    grads: Updates, l2_norm_clip: NonNegative
) -> tuple[Updates, jax.Array]:
    """Clips the gradient of each example by its global norm, and adds them: the sum of DP-SGD.

    u = sum_i g_i * min(1, l2_norm_clip / |g_i|), where |g_i|^2 sums over all leaves.

    Args:
      grads: A tree of gradients with one axis of examples in front, the same length in all.
      l2_norm_clip: The largest norm C that an example's gradient keeps; 0 gives zeros.

    Returns:
      The sum over the examples, without that axis, and how many were clipped, of shape () and
      dtype int32.

    Raises:
      ValueError: If a leaf has no axis of examples, or the lengths differ; it names the path.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import per_example_global_norm_clip
      >>> grads = {"w": jnp.array([[3.0, 4.0], [0.5, 0.0]])}  # two examples
      >>> total, num_clipped = per_example_global_norm_clip(grads, 2.5)
      >>> total["w"], int(num_clipped)
      (Array([2., 2.], dtype=float32), 1)

    Reference:
      Abadi et al., Deep learning with differential privacy, 2016, algorithm 1.
    """
    _check_examples("per_example_global_norm_clip", grads)
    _NON_NEGATIVE.check("per_example_global_norm_clip", "l2_norm_clip", l2_norm_clip)
    total, num_clipped = _clip_examples(grads, l2_norm_clip)
    return total, num_clipped


def per_example_layer_norm_clip(
    grads: Updates, global_l2_norm_clip: NonNegative, uniform: bool = True
) -> tuple[Updates, PyTree]:
    """Clips the gradient of each example by the norm of each leaf, and adds them.

    u_l = sum_i g_il * min(1, C_l / |g_il|) for each leaf l. The squares of the C_l add up to that
    of `global_l2_norm_clip`, so an example's clipped gradient has at most that norm.

    Args:
      grads: A tree of gradients with one axis of examples in front, the same length in all.
      global_l2_norm_clip: The largest norm C that an example's gradient keeps; 0 gives zeros.
      uniform: Whether all leaves get the same share, C_l = C / sqrt(number of leaves); otherwise
        the share goes by size, C_l = C * sqrt(size of the leaf / size of all).

    Returns:
      The sum over the examples, without that axis, and the tree of how many were clipped, each of
      shape () and dtype int32.

    Raises:
      ValueError: If a leaf has no axis of examples, or the lengths differ; it names the path.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import per_example_layer_norm_clip
      >>> grads = [jnp.full((2, 3), 2.0), jnp.array([[0.5], [3.0]])]
      >>> total, num_clipped = per_example_layer_norm_clip(grads, 2.0, uniform=False)
      >>> total
      [Array([2., 2., 2.], dtype=float32), Array([1.5], dtype=float32)]
      >>> [int(n) for n in num_clipped]
      [2, 1]

    Reference:
      McMahan et al., Learning differentially private recurrent language models, 2017, section 3.
    """
    _check_examples("per_example_layer_norm_clip", grads)
    _NON_NEGATIVE.check("per_example_layer_norm_clip", "global_l2_norm_clip", global_l2_norm_clip)
    leaves, treedef = jax.tree.flatten(grads)
    sizes = [1 if uniform else math.prod(jnp.shape(g)[1:]) for g in leaves]
    shares = [math.sqrt(size / max(sum(sizes), 1)) for size in sizes]
    pairs = [
        _clip_examples(g, global_l2_norm_clip * w) for g, w in zip(leaves, shares, strict=True)
    ]
    totals, num_clipped = zip(*pairs, strict=True) if pairs else ((), ())
    return jax.tree.unflatten(treedef, totals), jax.tree.unflatten(treedef, num_clipped)


_NON_NEGATIVE = Parameter.of(NonNegative)


def _check_examples(name: str, grads: Updates) -> None:
    leaves = jax.tree_util.tree_flatten_with_path(grads)[0]
    length = None
    for path, g in leaves:
        shape, where = jnp.shape(g), structure.where("grads", path)
        if not shape:
            raise ValueError(
                f"{name}: {where} has shape (), but the first axis of each leaf must be that of "
                "the examples; take per-example gradients with jax.vmap(jax.grad(...))."
            )
        length = shape[0] if length is None else length
        if shape[0] != length:
            first = structure.where("grads", leaves[0][0])
            raise ValueError(
                f"{name}: the first axis, of examples, must have the same length in each leaf, but "
                f"{where} has shape {shape} and {first} has {jnp.shape(leaves[0][1])}."
            )


@jax.jit
def _clip_examples(grads: Updates, max_norm: Numeric) -> tuple[Updates, jax.Array]:
    """The sum of the clipped gradients, and how many were clipped."""
    leaves = [widen(g) for g in jax.tree.leaves(grads)]
    if not leaves:
        return grads, jnp.zeros([], jnp.int32)
    of_leaves = [_norms(g, tuple(range(1, g.ndim))).reshape(-1) for g in leaves]
    norms = _norms(jnp.stack(of_leaves), 0)[0]
    factors = _factor(norms, max_norm)

    def total(g: jax.Array) -> jax.Array:
        # No matrix product: on TPU it is rounded to bfloat16.
        weights = factors.reshape((-1,) + (1,) * (g.ndim - 1))
        return jnp.sum(widen(g) * weights, axis=0).astype(g.dtype)

    return jax.tree.map(total, grads), jnp.sum(norms > max_norm, dtype=jnp.int32)


def _factor(norm: jax.Array, max_norm: Numeric) -> jax.Array:
    """min(1, max_norm / norm), also at 0, and with finite derivatives there."""
    exceeds = norm > max_norm
    return jnp.where(exceeds, max_norm / jnp.where(exceeds, norm, 1.0), 1.0)


def _unit_factor(norm: jax.Array, max_norm: jax.Array, div_eps: Numeric) -> jax.Array:
    """What brings units of this norm down to `max_norm`."""
    divisor = jnp.maximum(norm, div_eps)
    return jnp.where(norm < max_norm, 1.0, max_norm / jnp.where(divisor == 0, 1.0, divisor))


def _unit_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes to reduce for the norm of a unit, told by the shape."""
    ndim = len(shape)
    if sum(n != 1 for n in shape) <= 1:
        return tuple(range(ndim))
    if ndim <= 3:
        return (0,)
    if ndim <= 5:
        return tuple(range(ndim - 1))
    raise ValueError(
        f"unitwise_norm: an array of shape {shape} has more than five axes, so axis must say which "
        "to reduce."
    )


def _norms(x: jax.Array, axis: Axis) -> jax.Array:
    """Euclidean norms along axes, which are kept with size 1; the derivative at 0 is 0."""
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0.0)
    unit = jax.lax.stop_gradient(jnp.where((largest > 0) & (largest < jnp.inf), largest, 1.0))
    return unit * safe_sqrt(jnp.sum(abs_sq(x / unit), axis=axis, keepdims=True))
