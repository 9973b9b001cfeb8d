"""One of two updates: in compiled code `jax.lax.cond` runs one branch, and only that."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import OptState, Updates, zeros_like
from grad_core.sharing import dispatched_once
from grad_core.structure import flatten, is_absent, means_no_update

Branch = Callable[[], tuple[Updates, OptState]]


def either(
    condition: Any, yes: Branch, no: Branch, updates: Updates, state: OptState
) -> tuple[Updates, OptState]:
    """What ``yes()`` returns if the condition holds, and otherwise what ``no()`` returns.

    A condition known before tracing decides in Python. Both give what a step from `updates` and
    `state` does: trees and dtypes stay, and leaves that mean no update stay as they are, float0
    among them, which no branch of compiled code could return.
    """
    leaves, treedef = flatten(updates)
    there = [i for i, g in enumerate(leaves) if not means_no_update(g)]

    def run(branch: Branch) -> tuple[list[Any], OptState]:
        new_updates, new_state = branch()
        new = treedef.flatten_up_to(new_updates)
        return [_like(new[i], leaves[i]) for i in there], jax.tree.map(_like, new_state, state)

    if isinstance(condition, jax.core.Tracer):
        new, state = jax.lax.cond(condition, lambda: run(yes), lambda: run(no))
    else:
        new, state = run(yes if condition else no)
    for i, update in zip(there, new, strict=True):
        leaves[i] = update
    return treedef.unflatten(leaves), state


def _like(new: Any, old: Any) -> Any:
    """A leaf in the dtype of the one that it replaces."""
    dtype = old.dtype if hasattr(old, "dtype") else jnp.result_type(old)
    if isinstance(new, jax.Array) and new.dtype == dtype and not jax.typeof(new).weak_type:
        return new
    return jnp.asarray(new).astype(dtype)


@dispatched_once
def nothing(updates: Updates) -> Updates:
    """Zeros where there are updates."""
    return map_present(zeros_like, updates)


def map_present(fn: Callable[..., Any], updates: Updates, *rest: Updates) -> Any:
    """`jax.tree.map` over the updates that there are; others stay as they are."""
    return jax.tree.map(
        lambda g, *x: g if means_no_update(g) else fn(g, *x), updates, *rest, is_leaf=is_absent
    )
