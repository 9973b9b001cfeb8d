"""One dispatch for a whole tree, one trace for many leaves: `dispatched_once`, `map_rows`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

P = ParamSpec("P")
T = TypeVar("T")
CHUNK = 8


def dispatched_once(fn: Callable[P, T]) -> Callable[P, T]:
    """`jax.jit` outside of tracing; inside, the function itself.

    Nested calls of functions of thousands of arrays cost more to trace than they save.
    """
    compiled = jax.jit(fn)

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs)))
        return fn(*args, **kwargs) if traced else compiled(*args, **kwargs)

    return call


def map_rows(fn: Callable[[Any, Any], Any], common: Any, rows: Sequence[Any]) -> list[Any]:
    """``[fn(common, row) for row in rows]``, where rows of the same shapes share a jaxpr.

    Trees have many leaves and few shapes. Each use of a shared jaxpr still costs time to trace and
    to lower, so uses come in chunks of eight, which share one as well. XLA sees the same program.

    Args:
      fn: A function at module level, called under `jax.jit`.
      common: A pytree that all rows share.
      rows: Pytrees of arrays.

    Returns:
      The results, in the order of `rows`.
    """
    alike: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        avals = tuple((jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(row))
        alike.setdefault(avals, []).append(i)
    results: dict[int, Any] = {}
    for indices in alike.values():
        whole = len(indices) - len(indices) % CHUNK
        for start in range(0, whole, CHUNK):
            chunk = indices[start : start + CHUNK]
            results |= zip(chunk, _chunk(fn, common, [rows[i] for i in chunk]), strict=True)
        results |= {i: _one(fn, common, rows[i]) for i in indices[whole:]}
    return [results[i] for i in range(len(rows))]


@functools.partial(jax.jit, static_argnums=0)
def _one(fn: Callable[[Any, Any], Any], common: Any, row: Any) -> Any:
    return fn(common, row)


@functools.partial(jax.jit, static_argnums=0)
def _chunk(fn: Callable[[Any, Any], Any], common: Any, rows: Sequence[Any]) -> list[Any]:
    return [_one(fn, common, row) for row in rows]
