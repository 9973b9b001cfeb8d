"""The arguments that losses of linear heads share, and their reductions."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from grad_losses._checks import ShapeError, floating
from grad_losses._chunked_losses import (
    Chunks,
    Head,
    Loss,
    alike_varying,
    chunked_losses,
    chunked_sum,
    logits_of,
    sharding_of,
)

Reduction = Literal["none", "mean", "sum"]
WIDE = "it is float32 for any narrower dtype, as its docstring says"

_FEW = 2**24  # logits that can always be held at a time
_losses: Callable[..., jax.Array] = jax.jit(chunked_losses, static_argnums=(0, 1))
_sum: Callable[..., jax.Array] = jax.jit(chunked_sum, static_argnums=(0, 1))


def head_of(
    loss: str, hidden: ArrayLike, kernel: ArrayLike, bias: ArrayLike | None, prefix: str = ""
) -> tuple[Head, tuple[int, ...]]:
    """The arguments of `loss`, checked, with tokens along one axis, and the tokens' shape."""
    hidden_name, kernel_name, bias_name = (prefix + n for n in ("hidden", "kernel", "bias"))
    hidden = floating(loss, hidden_name, hidden)
    kernel = floating(loss, kernel_name, kernel)
    if hidden.ndim < 1 or kernel.ndim != 2 or hidden.shape[-1] != kernel.shape[0]:
        raise ShapeError(
            f"{loss}: {hidden_name} of shape {hidden.shape} and {kernel_name} of shape "
            f"{kernel.shape} must be [..., features] and [features, classes]. Of an embedding "
            "[classes, features] pass the transpose."
        )
    offset = None if bias is None else floating(loss, bias_name, bias)
    if offset is not None:
        if offset.shape != kernel.shape[1:]:
            raise ShapeError(
                f"{loss}: {bias_name} of shape {offset.shape} must have one value per class, shape "
                f"{kernel.shape[1:]}."
            )
        if sharding := sharding_of((kernel, 1)):
            offset = jax.sharding.reshard(offset, sharding)  # type: ignore[no-untyped-call]
    dtype = jnp.result_type(hidden, kernel)
    rows = hidden.reshape(-1, hidden.shape[-1]).astype(dtype)
    return Head(rows, kernel.astype(dtype), offset), hidden.shape[:-1]


def rows_of(loss: str, name: str, array: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The argument `name` of `loss`, one value for each token, with tokens along one axis."""
    if array.shape != shape:
        raise ShapeError(
            f"{loss}: {name} of shape {array.shape} must have one value per token, shape {shape}."
        )
    return array.reshape(-1)


def chunks_of(loss: str, head: Head, chunk_size: int | None, heads: int = 1) -> Chunks:
    """The chunks that the argument `chunk_size` of `loss` asks for, with the logits of `heads`."""
    rows, (features, classes) = head.hidden.shape[0], head.kernel.shape
    if chunk_size is None:
        few = max(_FEW, rows * features, features * classes // 16) // heads
        number = 2 ** math.ceil(math.log2(max(1.0, rows * classes / few)))
    elif not isinstance(chunk_size, int) or isinstance(chunk_size, bool):
        raise TypeError(f"{loss}: chunk_size must be an int or None; got {chunk_size!r}.")
    elif chunk_size < 1:
        raise ValueError(f"{loss}: chunk_size must be >= 1; got {chunk_size}.")
    else:
        number = math.ceil(rows / chunk_size)
    number = max(1, min(number, rows))
    return Chunks(number, math.ceil(rows / number))


def without(skipped: jax.Array, head: Head) -> Head:
    """The head with hidden states 0 for the tokens that are skipped: theirs may be NaN."""
    return head._replace(hidden=jnp.where(skipped[:, None], 0, head.hidden))


def reduced(
    name: str,
    reduction: Reduction,
    loss: Loss,
    chunks: Chunks,
    head: Head,
    tokens: Any,
    shared: Any,
    kept: jax.Array | None,
    weights: jax.Array | None = None,
) -> jax.Array:
    """The losses [N]; or the sum of those kept; or that over the sum of weights, 0 if it is 0.

    Without `kept` all are; without `weights` those kept have weight 1. Only `head` is
    differentiated.
    """
    if reduction not in get_args(Reduction):
        raise ValueError(
            f"{name}: reduction must be one of {get_args(Reduction)}; got {reduction!r}."
        )
    if kept is None:
        rows = head.hidden.shape[:1]
        kept = lax.full(rows, True, sharding=sharding_of((head.hidden, 0)))  # like the tokens
    head, tokens, shared, kept, weights = alike_varying((head, tokens, shared, kept, weights))
    tokens, shared, weights = lax.stop_gradient((tokens, shared, weights))
    if reduction == "none":
        return _losses(loss, chunks, head, tokens, shared)
    scale = jnp.ones((), jax.eval_shape(logits_of, head).dtype)
    if reduction == "mean":
        norm = jnp.sum(kept if weights is None else jnp.where(kept, weights, 0))
        scale = scale / jnp.where(norm == 0, 1, norm)
    return _sum(loss, chunks, head, kept * scale, tokens, shared)
