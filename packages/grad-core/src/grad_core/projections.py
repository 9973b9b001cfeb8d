"""Euclidean projections onto convex sets (and spheres), of trees seen as one long vector.

The projection of x onto a set S is the point of S nearest to x, ``argmin_{y in S} ||y - x||``.

Three formulas carry most of this module (sums and maxima run over all elements of all leaves):

* Simplex ``{y >= 0, sum y = s}``: ``y = max(x - t, 0)``, ``t = max_k (u_1 + ... + u_k - s) / k``,
  where ``u`` is x in descending order. (Held, Wolfe and Crowder, 1974; Duchi et al., 2008.)
* l1 ball and sphere: ``y = sign(x) * max(|x| - t, 0)``, the simplex applied to the moduli.
* Hyperplane ``{<a, y> = b}``: ``y = x - (<a, x> - b) / ||a||^2 * a``.

Arithmetic is done in at least float32, and the result has the dtypes of the input (float32 for
integers, where a projection is fractional). All projections are differentiable almost everywhere
and have finite derivatives everywhere. In the complex case ``<a, x>`` is ``sum conj(a) * x``.
Where a set is empty (a tree without elements has none of sum 1) the input is returned.
"""

import numbers
from collections.abc import Callable

import jax
import jax.numpy as jnp

from grad_core import tree as tree_lib
from grad_core.numerics import safe_divide, widen
from grad_core.tree._map import map_leaves
from grad_core.types import Numeric, PyTree, Tree

__all__ = [
    "projection_box",
    "projection_halfspace",
    "projection_hypercube",
    "projection_hyperplane",
    "projection_l1_ball",
    "projection_l1_sphere",
    "projection_l2_ball",
    "projection_l2_sphere",
    "projection_linf_ball",
    "projection_non_negative",
    "projection_simplex",
    "projection_vector",
]


# --- boxes -----------------------------------------------------------------------------------


def projection_box(tree: Tree, lower: PyTree, upper: PyTree) -> Tree:
    """Project onto ``{y : lower <= y <= upper}``.

    ``y = min(max(x, lower), upper)``

    Args:
      tree: tree of real arrays, the x.
      lower: lower bounds: a number or array for all leaves, a tree of them like ``tree``, or a
        prefix of one. None means no bound.
      upper: upper bounds, likewise.

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex, or the bounds do not fit the tree.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_box
      >>> projection_box({"a": jnp.array([-2.0, 0.5])}, -1.0, {"a": 0.25})
      {'a': Array([-1.  ,  0.25], dtype=float32)}
    """
    return _box("projection_box", tree, lower, upper)


def projection_hypercube(tree: Tree, scale: PyTree = 1) -> Tree:
    """Project onto the cube ``{y : 0 <= y <= scale}``.

    ``y = min(max(x, 0), scale)``

    Args:
      tree: tree of real arrays, the x.
      scale: length of the edges, non-negative; or a tree of lengths as in `projection_box`.

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex, or ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_hypercube
      >>> projection_hypercube({"a": jnp.array([-2.0, 0.5, 3.0])})
      {'a': Array([0. , 0.5, 1. ], dtype=float32)}
    """
    _check_scale("projection_hypercube", scale)
    return _box("projection_hypercube", tree, 0, scale)


def projection_linf_ball(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the ball of the maximum norm, ``{y : max |y_i| <= scale}``.

    ``y = min(max(x, -scale), scale)``

    Args:
      tree: tree of real arrays, the x.
      scale: radius, non-negative.

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex, or ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_linf_ball
      >>> projection_linf_ball({"a": jnp.array([-2.0, 0.5])})
      {'a': Array([-1. ,  0.5], dtype=float32)}
    """
    _check_scale("projection_linf_ball", scale)
    return _box("projection_linf_ball", tree, map_leaves(lambda s: -s, scale), scale)


def projection_non_negative(tree: Tree) -> Tree:
    """Project onto the non-negative orthant, ``{y : y >= 0}``.

    ``y = max(x, 0)``, with derivative 0 at 0.

    Args:
      tree: tree of real arrays, the x.

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_non_negative
      >>> projection_non_negative({"a": jnp.array([-2.0, 0.5])})
      {'a': Array([0. , 0.5], dtype=float32)}
    """
    _check_real("projection_non_negative", tree)
    return map_leaves(jax.nn.relu, tree)


def _box(name: str, tree: Tree, lower: PyTree, upper: PyTree) -> Tree:
    _check_real(name, tree)
    if lower is not None:
        tree = map_leaves(_at_least, tree, jax.tree.broadcast(lower, tree))
    if upper is not None:
        tree = map_leaves(_at_most, tree, jax.tree.broadcast(upper, tree))
    return tree


def _at_least(x: Numeric, bound: Numeric) -> jax.Array:
    return _cast_back(jnp.maximum(x, bound), x)


def _at_most(x: Numeric, bound: Numeric) -> jax.Array:
    return _cast_back(jnp.minimum(x, bound), x)


# --- simplex and l1 --------------------------------------------------------------------------


def projection_simplex(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the simplex, ``{y : y >= 0, sum_i y_i = scale}``.

    ``y = max(x - t, 0)`` with t such that the sum is right; found by sorting, exactly.

    Args:
      tree: tree of real arrays, the x.
      scale: the sum, non-negative, of shape ().

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: a leaf is complex, or ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_simplex
      >>> projection_simplex({"a": jnp.array([0.25, 1.0]), "b": jnp.array(0.5)})
      {'a': Array([0.  , 0.75], dtype=float32), 'b': Array(0.25, dtype=float32)}

    Source: Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", 2008, figure 1.
    """
    _check_scale("projection_simplex", scale)
    _check_real("projection_simplex", tree)
    return _as_vector(lambda x: _simplex(x, scale), tree)


def projection_l1_sphere(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the l1 sphere, ``{y : sum_i |y_i| = scale}``.

    ``y = sign(x) * z``, z the projection of ``|x|`` onto the simplex. The sphere is not convex:
    where x has zeros there may be several nearest points, and the one with positive signs is
    returned.

    Args:
      tree: tree of real or complex arrays, the x.
      scale: radius, non-negative, of shape ().

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_l1_sphere
      >>> projection_l1_sphere(jnp.array([-0.25, 0.25]), 2.0)
      Array([-1.,  1.], dtype=float32)
    """
    _check_scale("projection_l1_sphere", scale)
    return _as_vector(lambda x: _sign(x) * _simplex(jnp.abs(x), scale), tree)


def projection_l1_ball(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the l1 ball, ``{y : sum_i |y_i| <= scale}``.

    ``y = x`` inside, else the projection onto the sphere.

    Args:
      tree: tree of real or complex arrays, the x.
      scale: radius, non-negative, of shape ().

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_l1_ball
      >>> projection_l1_ball(jnp.array([-3.0, 2.5]))
      Array([-0.75,  0.25], dtype=float32)

    Source: Duchi et al., "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", 2008.
    """
    _check_scale("projection_l1_ball", scale)

    def project(x: jax.Array) -> jax.Array:
        inside = jnp.sum(jnp.abs(x)) <= scale
        return jnp.where(inside, x, _sign(x) * _simplex(jnp.abs(x), scale))

    return _as_vector(project, tree)


def _simplex(x: jax.Array, scale: Numeric) -> jax.Array:
    # The largest element is the origin: no sum then cancels, however large x is.
    x = x - jax.lax.stop_gradient(jnp.max(x))
    descending = jnp.sort(x, descending=True)
    counts = jnp.arange(1, x.size + 1, dtype=x.dtype)
    threshold = jnp.max((jnp.cumsum(descending) - scale) / counts)
    return jnp.maximum(x - threshold, 0)


def _sign(x: jax.Array) -> jax.Array:
    """``x / |x|``, and 1 at zero."""
    return jnp.where(x == 0, jnp.ones_like(x), jnp.sign(x))


# --- l2 --------------------------------------------------------------------------------------


def projection_l2_sphere(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the Euclidean sphere, ``{y : ||y|| = scale}``.

    ``y = scale * x / ||x||``. All points of the sphere are nearest to ``x = 0``; the one with
    equal coordinates is returned.

    Args:
      tree: tree of real or complex arrays, the x.
      scale: radius, non-negative, of shape ().

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_l2_sphere
      >>> projection_l2_sphere({"a": jnp.array([3.0, 4.0])}, 10.0)
      {'a': Array([6., 8.], dtype=float32)}
    """
    _check_scale("projection_l2_sphere", scale)
    is_zero = tree_lib.norm(tree) == 0
    direction = tree_lib.where(is_zero, tree_lib.ones_like(tree), tree)
    length = tree_lib.norm(direction)
    return _leafwise(lambda x: scale * (x / length), direction)


def projection_l2_ball(tree: Tree, scale: Numeric = 1) -> Tree:
    """Project onto the Euclidean ball, ``{y : ||y|| <= scale}``.

    ``y = x * min(1, scale / ||x||)``

    Args:
      tree: tree of real or complex arrays, the x.
      scale: radius, non-negative, of shape ().

    Returns:
      The projection, of the structure of ``tree``.

    Raises:
      ValueError: ``scale`` is a negative number.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_l2_ball
      >>> projection_l2_ball({"a": jnp.array([3.0, 4.0])}, 10.0)
      {'a': Array([3., 4.], dtype=float32)}
    """
    _check_scale("projection_l2_ball", scale)
    norm = tree_lib.norm(tree)
    inside = norm <= scale
    length = jnp.where(inside, 1, norm)
    return _leafwise(lambda x: jnp.where(inside, x, scale * (x / length)), tree)


# --- planes ----------------------------------------------------------------------------------


def projection_vector(x: Tree, a: PyTree) -> Tree:
    """Project onto the line through the origin and a, ``{c * a}``.

    ``y = <a, x> / ||a||^2 * a``, and 0 for ``a = 0``.

    Args:
      x: tree of arrays.
      a: tree of the same structure and shapes.

    Returns:
      The projection, of the structure of ``x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_vector
      >>> projection_vector(jnp.array([1.0, 3.0]), jnp.array([0.0, 2.0]))
      Array([0., 3.], dtype=float32)
    """
    a, _ = _rescale(a)
    multiple = safe_divide(_dot(a, x), tree_lib.norm(a, squared=True))
    return _leafwise(lambda x, a: multiple * a, x, a)


def projection_hyperplane(x: Tree, a: PyTree, b: Numeric) -> Tree:
    """Project onto the hyperplane ``{y : <a, y> = b}``.

    ``y = x - (<a, x> - b) / ||a||^2 * a``. For ``a = 0`` there is no plane and x is returned.

    Args:
      x: tree of arrays.
      a: the normal, a tree of the same structure and shapes.
      b: number of shape ().

    Returns:
      The projection, of the structure of ``x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_hyperplane
      >>> projection_hyperplane(jnp.array([1.0, 3.0]), jnp.array([0.0, 2.0]), 4.0)
      Array([1., 2.], dtype=float32)
    """
    a, s = _rescale(a)
    multiple = safe_divide(_dot(a, x) - b / s, tree_lib.norm(a, squared=True))
    return _leafwise(lambda x, a: x - multiple * a, x, a)


def projection_halfspace(x: Tree, a: PyTree, b: Numeric) -> Tree:
    """Project onto the halfspace ``{y : <a, y> <= b}``.

    ``y = x - max(<a, x> - b, 0) / ||a||^2 * a``, with the real part of ``<a, x>`` in the complex
    case. For ``a = 0`` x is returned.

    Args:
      x: tree of arrays.
      a: the outward normal, a tree of the same structure and shapes.
      b: real number of shape ().

    Returns:
      The projection, of the structure of ``x``.

    Raises:
      ValueError: the trees differ in structure.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core.projections import projection_halfspace
      >>> projection_halfspace(jnp.array([1.0, 3.0]), jnp.array([0.0, 2.0]), 4.0)
      Array([1., 2.], dtype=float32)
    """
    a, s = _rescale(a)
    excess = jnp.maximum(jnp.real(_dot(a, x)) - b / s, 0)
    multiple = safe_divide(excess, tree_lib.norm(a, squared=True))
    return _leafwise(lambda x, a: x - multiple * a, x, a)


def _rescale(a: Tree) -> tuple[Tree, jax.Array]:
    """``a / s`` in at least float32, and ``s``, the power of two next to ``||a||``.

    A plane is the same for any multiple of its normal. This one has a norm near 1, so that its
    square neither overflows nor underflows, and dividing by a power of two rounds nothing.
    """
    _, exponent = jnp.frexp(jax.lax.stop_gradient(tree_lib.norm(a)))
    s = jnp.ldexp(jnp.ones((), jnp.float32), exponent - 1)
    return map_leaves(lambda x: widen(x) / s, a), s


def _dot(a: PyTree, x: PyTree) -> jax.Array:
    # x first, for an error about structure to blame a.
    return jnp.conj(tree_lib.vdot(map_leaves(widen, x), a))


# --- shared ----------------------------------------------------------------------------------


def _cast_back(result: jax.Array, x: Numeric) -> jax.Array:
    """``result`` in the dtype of ``x``, if that has fractions."""
    dtype = jnp.result_type(x)
    return result.astype(dtype) if jnp.issubdtype(dtype, jnp.inexact) else result


def _leafwise(project: Callable[..., jax.Array], tree: Tree, *rest: PyTree) -> Tree:
    """Map ``project`` over leaves in at least float32, and cast the results back."""
    return map_leaves(lambda x, *ys: _cast_back(project(widen(x), *ys), x), tree, *rest)


def _as_vector(project: Callable[[jax.Array], jax.Array], tree: Tree) -> Tree:
    """Apply ``project`` to all leaves as one vector of at least float32, and cast back."""
    leaves, treedef = jax.tree.flatten(tree)
    if not tree_lib.size(tree):
        return tree
    y = project(jnp.concatenate([jnp.ravel(widen(x)) for x in leaves]))
    projected, start = [], 0
    for x in leaves:
        part = y[start : start + jnp.size(x)].reshape(jnp.shape(x))
        projected.append(_cast_back(part, x) if jnp.iscomplexobj(x) else _cast_back(part.real, x))
        start += jnp.size(x)
    result: Tree = jax.tree.unflatten(treedef, projected)
    return result


def _check_scale(name: str, scale: PyTree) -> None:
    if isinstance(scale, numbers.Real) and not float(scale) >= 0:
        raise ValueError(f"{name}: scale must be at least 0, got {scale!r}.")


def _check_real(name: str, tree: PyTree) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if jnp.iscomplexobj(leaf):
            at = jax.tree_util.keystr(path) or "the root"
            raise ValueError(f"{name}: leaves must be real, got a complex one at {at}.")
