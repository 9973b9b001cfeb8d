"""Applying updates to parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from grad_core import structure
from grad_core.errors import TreeMismatchError
from grad_core.sharing import dispatched_once
from grad_core.types import Numeric, Tree, Updates


def apply_updates(params: Tree, updates: Updates) -> Tree:
    """Adds updates to parameters: p + u, in the dtype of p.

    The sum is computed in the wider of the two dtypes and rounded once.

    Args:
      params: A tree of arrays.
      updates: A tree of the same structure. Where it has None, a `MaskedNode` or a float0 array,
        the parameter stays as it is.

    Returns:
      The new parameters, with the structure, shapes and dtypes of `params`.

    Raises:
      TreeMismatchError: If structures or shapes differ; it names the path.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import apply_updates
      >>> apply_updates({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.5, -0.5])})
      {'w': Array([1.5, 1.5], dtype=float32)}
    """
    return _apply_updates(params, updates)  # type: ignore[no-any-return]


@dispatched_once
def _apply_updates(params: Any, updates: Any) -> Any:
    leaves, treedef = structure.flatten(params)
    steps = structure.flatten_like(params, treedef, updates, ("params", "updates"))
    for i, (p, u) in enumerate(zip(leaves, steps, strict=True)):
        if structure.means_no_update(u) or structure.is_absent(p):
            continue
        if not structure.is_array(u) or jnp.shape(p) != jnp.shape(u):
            path = structure.leaf_paths(params)[i]
            found = f"has shape {jnp.shape(u)}" if structure.is_array(u) else "is a subtree"
            raise TreeMismatchError(
                f"apply_updates: {structure.where('updates', path)} {found}, but "
                f"{structure.where('params', path)} has shape {jnp.shape(p)}; they must be equal."
            )
        leaves[i] = _add(p, u)
    return treedef.unflatten(leaves)


def _add(p: Any, u: Any) -> jax.Array:
    """P + u in the dtype of p."""
    p, u = jnp.asarray(p), jnp.asarray(u)
    if p.dtype == u.dtype and p.weak_type == u.weak_type:
        total: jax.Array = lax.add(p, u)  # without the overhead of tracing a call for each leaf
        return total
    return jnp.asarray(p + u, p.dtype)


def incremental_update(new_tensors: Tree, old_tensors: Tree, step_size: Numeric) -> Tree:
    """Moves old tensors towards new ones: step_size * new + (1 - step_size) * old.

    Args:
      new_tensors: A tree of arrays.
      old_tensors: A tree of the same structure.
      step_size: The fraction of the way to go, of shape (); 1 gives `new_tensors`.

    Returns:
      A tree of that structure.

    Example:
      >>> from grad_core import incremental_update
      >>> incremental_update({"w": 1.0}, {"w": 0.0}, 0.25)
      {'w': 0.25}

    Reference:
      Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """
    return jax.tree.map(  # type: ignore[no-any-return]
        lambda new, old: None if new is None else step_size * new + (1.0 - step_size) * old,
        new_tensors,
        old_tensors,
        is_leaf=lambda x: x is None,
    )


def periodic_update(
    new_tensors: Tree, old_tensors: Tree, steps: Numeric, update_period: int
) -> Tree:
    """Takes new tensors every `update_period` steps, and keeps the old ones in between.

    Args:
      new_tensors: A tree of arrays.
      old_tensors: A tree of the same structure, shapes and dtypes.
      steps: The number of steps so far; new tensors are taken where it is a multiple of the period.
      update_period: The period in steps.

    Returns:
      One tree or the other.

    Example:
      >>> from grad_core import periodic_update
      >>> [int(periodic_update(1, 0, step, update_period=2)) for step in range(4)]
      [1, 0, 1, 0]

    Reference:
      Mnih et al., Human-level control through deep reinforcement learning, 2015.
    """
    take = jnp.mod(steps, update_period) == 0
    return lax.cond(take, lambda: new_tensors, lambda: old_tensors)  # type: ignore[no-any-return]
