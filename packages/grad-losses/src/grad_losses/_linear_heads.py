r"""Losses of the logits of a linear head, for a chunk of tokens at a time, never all at once.

With hidden states H [N, D], a kernel W [D, V] and a bias b [V], a loss of each token's logits has

.. math::

    Z = H W + b, \qquad
    \dot l_n = g_n \cdot \dot z_n, \quad g_n = \partial l_n / \partial z_n, \qquad
    \bar H = G W^\top, \quad \bar W = H^\top G, \quad \bar b = G^\top 1
    \quad\text{with rows } \bar l_n g_n \text{ of } G.

A chunk's logits are computed, used and dropped. Of a sum with known weights the gradients are
computed beside the value, from the same logits, so no logits are computed twice. Losses per token
get their cotangents later, and then compute the logits again; the cotangents are multiplied into G
before the sum over tokens that gives the gradient of W, which is held in float32.

A token's place in its chunk is the leading axis when tokens are split, so that tokens sharded over
devices stay where they are.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, floating
from grad_losses._linear_maps import with_transpose

_CHUNK = 2**24  # logits that are always few enough to hold at a time
_BLOCK = 2**24  # elements of the kernel's gradient that are computed at a time


class Head(NamedTuple):
    """What logits are computed from: [N, D], [D, V], [V]. Also gradients and tangents of these."""

    hidden: jax.Array
    kernel: jax.Array
    bias: jax.Array | None


class Chunks(NamedTuple):
    """How tokens are split."""

    count: int
    size: int


# A loss of the logits [n, V] of n tokens, of arrays with one row a token, and of shared arrays.
Loss = Callable[[jax.Array, Any, Any], jax.Array]
Reduction = Literal["none", "mean", "sum"]


def head_of(
    loss: str, hidden: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None, prefix: str = ""
) -> tuple[Head, tuple[int, ...]]:
    """The arguments of `loss`, checked, with tokens along one axis, and the tokens' shape."""
    names = [prefix + name for name in ("hidden", "kernel", "bias")]
    hidden, kernel = (floating(loss, *pair) for pair in zip(names, (hidden, kernel), strict=False))
    if hidden.ndim < 1 or kernel.ndim != 2 or hidden.shape[-1] != kernel.shape[0]:
        raise ShapeError(
            f"{loss}: {names[0]} of shape {hidden.shape} and {names[1]} of shape {kernel.shape} "
            "must be [..., features] and [features, classes]. Transpose the kernel, if it is an "
            "embedding."
        )
    if bias is not None:
        bias = floating(loss, names[2], bias)
        if bias.shape != kernel.shape[1:]:
            raise ShapeError(
                f"{loss}: {names[2]} of shape {bias.shape} must have one value per class, shape "
                f"{kernel.shape[1:]}."
            )
    dtype = jnp.result_type(hidden, kernel)
    rows = hidden.reshape(-1, hidden.shape[-1])
    return Head(rows.astype(dtype), kernel.astype(dtype), bias), hidden.shape[:-1]


def rows_of(loss: str, name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The argument `name` of `loss`, one number for each token, with tokens along one axis."""
    if array.shape != shape:
        raise ShapeError(
            f"{loss}: {name} of shape {array.shape} must have one value per token, shape {shape}."
        )
    return array.reshape(-1)


def chunks_of(loss: str, head: Head, chunk_size: int | None, heads: int = 1) -> Chunks:
    """The chunks that the argument `chunk_size` of `loss` asks for."""
    rows, (features, classes) = head.hidden.shape[0], head.kernel.shape
    if chunk_size is None:
        logits = max(_CHUNK, rows * features, features * classes // 16) // heads
        count = 2 ** math.ceil(math.log2(max(1.0, rows * classes / logits)))
    elif not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(f"{loss}: chunk_size must be an int or None; got {chunk_size!r}.")
    elif chunk_size < 1:
        raise ValueError(f"{loss}: chunk_size must be >= 1; got {chunk_size}.")
    else:
        count = -(-rows // chunk_size)
    count = min(max(count, 1), max(rows, 1))
    return Chunks(count, -(-rows // count))


def reduced(
    name: str,
    reduction: Reduction,
    loss: Loss,
    chunks: Chunks,
    head: Head,
    tokens: Any,
    shared: Any,
    kept: jax.Array,
    weights: jax.Array,
) -> jax.Array:
    """The losses [N], or the sum of those kept, or it over the sum of weights. One is 0 for none.

    Only `head` is differentiated.
    """
    head, tokens, shared, kept = _alike_varying((head, tokens, shared, kept))
    tokens, shared = lax.stop_gradient((tokens, shared))
    if reduction == "none":
        return _losses_jit(loss, chunks, head, tokens, shared)
    if reduction == "mean":
        norm = jnp.sum(weights)
        scale = 1 / jnp.where(norm == 0, 1, norm)
    elif reduction == "sum":
        scale = jnp.ones((), weights.dtype)
    else:
        raise ValueError(f'{name}: reduction must be "none", "mean" or "sum"; got {reduction!r}.')
    return _total_jit(loss, chunks, head, kept * lax.stop_gradient(scale), tokens, shared)


def logits_of(head: Head) -> jax.Array:
    """``hidden @ kernel + bias``, summed and returned in at least float32."""
    logits = _dot(head.hidden, head.kernel)
    return logits if head.bias is None else logits + head.bias


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _losses(loss: Loss, chunks: Chunks, head: Head, tokens: Any, shared: Any) -> jax.Array:
    """The loss [N] of each token."""

    def of_chunk(hidden: jax.Array, tokens: Any) -> jax.Array:
        return loss(logits_of(head._replace(hidden=hidden)), tokens, shared)

    return _map(of_chunk, chunks, head.hidden, tokens)


@_losses.defjvp
def _losses_jvp(
    loss: Loss, chunks: Chunks, primals: tuple[Head, Any, Any], tangents: tuple[Head, Any, Any]
) -> tuple[jax.Array, jax.Array]:
    def apply(primals: tuple[Head, Any, Any], head_dot: Head) -> jax.Array:
        return _tangents(loss, chunks, *primals, head_dot)

    def transpose(primals: tuple[Head, Any, Any], cotangents: jax.Array) -> Head:
        head, *others = primals
        _, gradients = _gradients(loss, chunks, head, cotangents, *others)
        return jax.tree.map(lambda g, x: g.astype(x.dtype), gradients, head)

    return _losses(loss, chunks, *primals), with_transpose(apply, transpose, primals, tangents[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _total(
    loss: Loss, chunks: Chunks, head: Head, weights: jax.Array, tokens: Any, shared: Any
) -> jax.Array:
    """The sum over tokens of ``weights * loss``."""
    return _weighted_sum(weights, _losses(loss, chunks, head, tokens, shared))


@_total.defjvp
def _total_jvp(
    loss: Loss,
    chunks: Chunks,
    primals: tuple[Head, jax.Array, Any, Any],
    tangents: tuple[Head, jax.Array, Any, Any],
) -> tuple[jax.Array, jax.Array]:
    total, gradients = _gradients(loss, chunks, *primals)
    products = jax.tree.map(lambda g, t: jnp.sum(g * t.astype(g.dtype)), gradients, tangents[0])
    return total, sum(jax.tree.leaves(products))


_losses_jit = jax.jit(_losses, static_argnums=(0, 1))
_total_jit = jax.jit(_total, static_argnums=(0, 1))


def _tangents(
    loss: Loss, chunks: Chunks, head: Head, tokens: Any, shared: Any, head_dot: Head
) -> jax.Array:
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_chunk(hidden: jax.Array, hidden_dot: jax.Array, tokens: Any) -> jax.Array:
        primal = head._replace(hidden=hidden)
        tangent = head_dot._replace(hidden=hidden_dot)
        return jax.jvp(lambda h: loss(logits_of(h), tokens, shared), (primal,), (tangent,))[1]

    return _map(of_chunk, chunks, head.hidden, head_dot.hidden, tokens)


def _gradients(
    loss: Loss, chunks: Chunks, head: Head, weights: jax.Array, tokens: Any, shared: Any
) -> tuple[jax.Array, Head]:
    """The weighted sum of the losses and its gradients, in the dtype that was computed in."""
    kernel, bias = head.kernel, head.bias
    dtype = weights.dtype

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_chunk(sums: Any, rows: Any) -> Any:
        total, of_kernel, of_bias = sums
        hidden, weights, tokens = rows
        logits = logits_of(head._replace(hidden=hidden))
        values, pullback = jax.vjp(lambda z: loss(z, tokens, shared), logits)
        (g,) = pullback(weights)
        total = total + _weighted_sum(weights, values)
        of_bias = None if bias is None else of_bias + jnp.sum(g, axis=0)
        g = _narrowed(g, kernel)
        of_hidden = _dot(g, kernel, (1, 1), like=((hidden, 0), (hidden, 1)))
        sums = total, _add_outer(of_kernel, hidden, g), of_bias
        return sums, _narrowed(of_hidden, hidden)

    sums = (
        jnp.zeros((), dtype),
        jnp.zeros_like(kernel, dtype),
        None if bias is None else jnp.zeros_like(bias, dtype),
    )
    rows = _split(chunks, (head.hidden, weights, tokens))
    sums, _ = _alike_varying((sums, rows))
    (value, of_kernel, of_bias), of_hidden = lax.scan(of_chunk, sums, rows)
    return value, Head(_join(of_hidden, head.hidden.shape[0]), of_kernel, of_bias)


def _add_outer(total: jax.Array, hidden: jax.Array, g: jax.Array) -> jax.Array:
    """``total + hidden.T @ g`` with, at a time, some rows of the product in memory."""
    rows, columns = total.shape
    hidden = hidden.T
    size = min(max(_BLOCK // columns, 1), rows)

    def update(start: ArrayLike, size: int, total: jax.Array) -> jax.Array:
        part = _dot(lax.dynamic_slice_in_dim(hidden, start, size), g)
        part = part + lax.dynamic_slice_in_dim(total, start, size)
        return lax.dynamic_update_slice_in_dim(total, part, start, axis=0)

    if size == rows:
        return total + _dot(hidden, g)
    total = lax.fori_loop(0, rows // size, lambda i, total: update(i * size, size, total), total)
    rest = rows % size
    return update(rows - rest, rest, total) if rest else total


def _narrowed(x: jax.Array, like: jax.Array) -> jax.Array:
    """In bfloat16 if that is what inputs are in; float16 would lose what is small."""
    return x.astype(jnp.bfloat16) if like.dtype == jnp.bfloat16 else x


def _weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(weights == 0, 0, weights * values))


def _dot(
    a: jax.Array,
    b: jax.Array,
    axes: tuple[int, int] = (1, 0),
    like: tuple[tuple[jax.Array, int], tuple[jax.Array, int]] | None = None,
) -> jax.Array:
    """The product of two matrices over an axis of each, summed and returned in float32 at least.

    On an explicit mesh it is sharded as axes of other arrays are, else as its own.
    """
    rows, columns = like or ((a, 1 - axes[0]), (b, 1 - axes[1]))
    return lax.dot_general(
        a,
        b,
        (((axes[0],), (axes[1],)), ((), ())),
        preferred_element_type=jnp.promote_types(jnp.result_type(a, b), jnp.float32),
        out_sharding=_sharding(rows, columns),
    )


def _sharding(*axes: tuple[jax.Array, int]) -> NamedSharding | None:
    """That of an array with these axes of others, where types tell it: on an explicit mesh."""
    shardings = [jax.typeof(array).sharding for array, _ in axes]
    mesh = shardings[0].mesh
    if AxisType.Explicit not in mesh.axis_types:
        return None
    names = (s.spec[axis] for s, (_, axis) in zip(shardings, axes, strict=True))
    return NamedSharding(mesh, PartitionSpec(*names))


def _alike_varying(arrays: Any) -> Any:
    """The arrays, all varying over the axes of a `jax.shard_map` that any of them varies over."""

    def varying(x: jax.Array) -> frozenset[str]:
        return jax.typeof(x).manual_axis_type.varying

    every = frozenset[str]().union(*map(varying, jax.tree.leaves(arrays)))
    return jax.tree.map(
        lambda x: lax.pcast(x, tuple(every - varying(x)), to="varying") if every else x, arrays
    )


def _map(f: Callable[..., jax.Array], chunks: Chunks, *arrays: Any) -> jax.Array:
    rows = jax.tree.leaves(arrays)[0].shape[0]
    return _join(lax.map(lambda chunk: f(*chunk), _split(chunks, arrays)), rows)


def _split(chunks: Chunks, arrays: Any) -> Any:
    """Arrays [N, ...] as [chunks, tokens of a chunk, ...], with zeros for the tokens that lack."""

    def split(x: jax.Array) -> jax.Array:
        lacking = chunks.count * chunks.size - x.shape[0]
        x = jnp.pad(x, [(0, lacking), *[(0, 0)] * (x.ndim - 1)])
        return jnp.moveaxis(x.reshape(chunks.size, chunks.count, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, arrays)


def _join(x: jax.Array, rows: int) -> jax.Array:
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])[:rows]
