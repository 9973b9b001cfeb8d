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
before the sum over tokens that gives the gradient of W, which is collected in float32.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jax.typing import ArrayLike

from grad_losses._linear_maps import as_unit, with_transpose

_BLOCK = 2**24  # elements of the kernel's gradient that are computed at a time


class Head(NamedTuple):
    """What logits are computed from: [N, D], [D, V], [V]. Also gradients and tangents of these."""

    hidden: jax.Array
    kernel: jax.Array
    bias: jax.Array | None


class Chunks(NamedTuple):
    """How tokens are split."""

    number: int
    size: int


# A loss of the logits [n, V] of n tokens, of arrays with one row a token, and of shared arrays.
Loss = Callable[[jax.Array, Any, Any], jax.Array]


def logits_of(head: Head) -> jax.Array:
    """``hidden @ kernel + bias``, summed and returned in at least float32."""
    logits = _dot(head.hidden, head.kernel)
    return logits if head.bias is None else logits + head.bias


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def chunked_losses(loss: Loss, chunks: Chunks, head: Head, tokens: Any, shared: Any) -> jax.Array:
    """The loss [N] of each token. Only `head` is differentiated."""

    def of_chunk(hidden: jax.Array, tokens: Any) -> jax.Array:
        return loss(logits_of(head._replace(hidden=hidden)), tokens, shared)

    return _map(of_chunk, chunks, head.hidden, tokens)


@chunked_losses.defjvp
def _losses_jvp(
    loss: Loss, chunks: Chunks, primals: tuple[Head, Any, Any], tangents: tuple[Head, Any, Any]
) -> tuple[jax.Array, jax.Array]:
    def apply(primals: tuple[Head, Any, Any], head_dot: Head) -> jax.Array:
        return _tangents(loss, chunks, *primals, head_dot)

    def transpose(primals: tuple[Head, Any, Any], cotangents: jax.Array) -> Head:
        head, *others = primals
        _, gradients = _value_and_gradients(loss, chunks, head, cotangents, *others)
        return Head(*jax.tree.map(lambda g, x: g.astype(x.dtype), gradients, head))

    values_dot: jax.Array = with_transpose(apply, transpose, primals, tangents[0])
    values = as_unit(functools.partial(chunked_losses, loss, chunks), *primals)
    return values, values_dot


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def chunked_sum(
    loss: Loss, chunks: Chunks, head: Head, weights: jax.Array, tokens: Any, shared: Any
) -> jax.Array:
    """The sum over tokens of ``weights * loss``. Only `head` is differentiated."""
    return _weighted_sum(weights, chunked_losses(loss, chunks, head, tokens, shared))


@chunked_sum.defjvp
def _sum_jvp(
    loss: Loss,
    chunks: Chunks,
    primals: tuple[Head, jax.Array, Any, Any],
    tangents: tuple[Head, jax.Array, Any, Any],
) -> tuple[jax.Array, jax.Array]:
    value, gradients = as_unit(functools.partial(_value_and_gradients, loss, chunks), *primals)
    value_dot = jnp.zeros_like(value)
    for g, x_dot in zip(*map(jax.tree.leaves, (gradients, tangents[0])), strict=True):
        value_dot += jnp.sum(g * x_dot.astype(g.dtype))
    return value, value_dot


def _tangents(
    loss: Loss, chunks: Chunks, head: Head, tokens: Any, shared: Any, head_dot: Head
) -> jax.Array:
    @functools.partial(jax.checkpoint, prevent_cse=False)
    def of_chunk(hidden: jax.Array, hidden_dot: jax.Array, tokens: Any) -> jax.Array:
        primal = head._replace(hidden=hidden)
        tangent = head_dot._replace(hidden=hidden_dot)
        losses_dot: jax.Array
        _, losses_dot = jax.jvp(
            lambda head: loss(logits_of(head), tokens, shared), (primal,), (tangent,)
        )
        return losses_dot

    return _map(of_chunk, chunks, head.hidden, head_dot.hidden, tokens)


def _value_and_gradients(
    loss: Loss, chunks: Chunks, head: Head, weights: jax.Array, tokens: Any, shared: Any
) -> tuple[jax.Array, Head]:
    """The weighted sum of the losses and its gradients, collected in the dtype of the weights."""
    kernel, bias = head.kernel, head.bias

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def add_chunk(sums: Any, rows: Any) -> Any:
        value, of_kernel, of_bias = sums
        hidden, weights, tokens = rows
        logits = logits_of(head._replace(hidden=hidden))
        losses, pullback = jax.vjp(lambda z: loss(z, tokens, shared), logits)
        (g,) = pullback(weights)
        value = value + _weighted_sum(weights, losses)
        of_bias = None if bias is None else of_bias + jnp.sum(g, axis=0)
        g = _narrowed(g, kernel)
        of_hidden = _dot(g, kernel, (1, 1), like=((hidden, 0), (hidden, 1)))
        return (value, _add_product(of_kernel, hidden, g), of_bias), _narrowed(of_hidden, hidden)

    dtype = weights.dtype
    of_bias = None if bias is None else jnp.zeros_like(bias, dtype)
    sums = jnp.zeros((), dtype), jnp.zeros_like(kernel, dtype), of_bias
    rows = _split(chunks, (head.hidden, weights, tokens))
    sums, _ = alike_varying((sums, rows))
    (value, of_kernel, of_bias), of_hidden = lax.scan(add_chunk, sums, rows)
    return value, Head(_join(of_hidden, head.hidden.shape[0]), of_kernel, of_bias)


def _add_product(total: jax.Array, hidden: jax.Array, g: jax.Array) -> jax.Array:
    """``total + hidden.T @ g``, of which, at a time, some rows of the product are in memory."""
    rows, columns = total.shape
    hidden = hidden.T
    size = max(_BLOCK // columns, 1)
    if size >= rows:
        return total + _dot(hidden, g)

    def add_rows(start: ArrayLike, size: int, total: jax.Array) -> jax.Array:
        part = _dot(lax.dynamic_slice_in_dim(hidden, start, size), g)
        part = part + lax.dynamic_slice_in_dim(total, start, size)
        return lax.dynamic_update_slice_in_dim(total, part, start, axis=0)

    rest = rows % size
    total = lax.fori_loop(0, rows // size, lambda i, total: add_rows(i * size, size, total), total)
    return add_rows(rows - rest, rest, total) if rest else total


def _weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(weights == 0, 0, weights * values))


def _narrowed(x: jax.Array, like: jax.Array) -> jax.Array:
    """In bfloat16 if that is what inputs are in; float16 would lose what is small."""
    return x.astype(jnp.bfloat16) if like.dtype == jnp.bfloat16 else x


def _dot(
    a: jax.Array,
    b: jax.Array,
    axes: tuple[int, int] = (1, 0),
    like: tuple[tuple[jax.Array, int], tuple[jax.Array, int]] | None = None,
) -> jax.Array:
    """The product of two matrices over an axis of each, summed and returned in float32 at least.

    On an explicit mesh it is sharded as its axes are, or as those of other arrays.
    """
    rows, columns = like or ((a, 1 - axes[0]), (b, 1 - axes[1]))
    return lax.dot_general(
        a,
        b,
        (((axes[0],), (axes[1],)), ((), ())),
        preferred_element_type=jnp.promote_types(jnp.result_type(a, b), jnp.float32),
        out_sharding=sharding_of(rows, columns),
    )


def sharding_of(*axes: tuple[jax.Array, int]) -> NamedSharding | None:
    """That of an array with these axes of others, where types tell it: on an explicit mesh."""
    shardings = [jax.typeof(array).sharding for array, _ in axes]
    mesh = shardings[0].mesh
    if AxisType.Explicit not in mesh.axis_types:
        return None
    names = (s.spec[axis] for s, (_, axis) in zip(shardings, axes, strict=True))
    return NamedSharding(mesh, PartitionSpec(*names))  # type: ignore[no-untyped-call]


def alike_varying(arrays: Any) -> Any:
    """The arrays, all varying over the axes of a `jax.shard_map` that any of them varies over."""

    def varying(x: jax.Array) -> frozenset[str]:
        axes: frozenset[str] = jax.typeof(x).manual_axis_type.varying
        return axes

    every = frozenset[str]().union(*map(varying, jax.tree.leaves(arrays)))
    if not every:
        return arrays
    return jax.tree.map(lambda x: lax.pcast(x, tuple(every - varying(x)), to="varying"), arrays)


def _map(f: Callable[..., jax.Array], chunks: Chunks, *arrays: Any) -> jax.Array:
    """What `f` gives for each chunk, with one value a token, joined."""
    rows = jax.tree.leaves(arrays)[0].shape[0]
    return _join(lax.map(lambda chunk: f(*chunk), _split(chunks, arrays)), rows)


def _split(chunks: Chunks, arrays: Any) -> Any:
    """Arrays [N, ...] as [chunks, tokens of a chunk, ...], with zeros for the tokens that lack.

    A chunk takes tokens from all over N: where tokens are sharded, each device keeps its own.
    """

    def split(x: jax.Array) -> jax.Array:
        lacking = chunks.number * chunks.size - x.shape[0]
        x = jnp.pad(x, [(0, lacking), *[(0, 0)] * (x.ndim - 1)])
        return jnp.moveaxis(x.reshape(chunks.size, chunks.number, *x.shape[1:]), 1, 0)

    return jax.tree.map(split, arrays)


def _join(x: jax.Array, rows: int) -> jax.Array:
    return jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])[:rows]
