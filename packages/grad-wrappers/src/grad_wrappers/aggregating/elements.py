"""Elements of a batch: the types of aggregators, axes, dtypes of statistics."""

import math
import operator
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from grad_core import (
    GradientTransformationExtraArgs,
    OptState,
    TreeMismatchError,
    Updates,
    zeros_like,
)

PerElementUpdates: TypeAlias = Updates
"""Updates with the axes of a batch, besides those of the parameters."""

AggregatedUpdates: TypeAlias = Updates
"""Updates of the parameters' shapes."""

MaybeAxis: TypeAlias = int | Sequence[int] | None
"""The axis of a batch's elements, or several; None if there is none."""


class AggregatorUpdateFn(Protocol):
    """``update(per_element_updates, state, params=None) -> (updates, state)``."""

    def __call__(
        self, updates: Any, state: Any, /, params: Any = None, **extra_args: object
    ) -> tuple[Any, OptState]: ...


class Aggregator(GradientTransformationExtraArgs):
    """A pair of functions that makes one update of the updates of many elements.

    Attributes:
      init: ``init(params) -> state``.
      update: ``update(per_element_updates, state, params=None) -> (updates, state)``.
    """

    update: AggregatorUpdateFn


def at_least_float32(dtype: Any) -> Any:
    """At least float32, or complex64."""
    return jnp.promote_types(dtype, jnp.float32)


def wide_zeros(p: Any) -> jax.Array:
    """Zeros like a parameter, in at least float32."""
    return zeros_like(p, at_least_float32(jnp.result_type(p)))


def real_zeros(p: Any) -> jax.Array:
    """Real zeros like a parameter, in at least float32."""
    wide = at_least_float32(jnp.result_type(p))
    return zeros_like(p, jnp.finfo(wide).dtype)  # type: ignore[no-untyped-call]


def is_there(g: Any) -> bool:
    """Whether it is an update, and not what stands for none."""
    if hasattr(g, "dtype"):
        return bool(g.dtype != jax.dtypes.float0)
    return isinstance(g, float | complex)


def check_steps(owner: str, accumulation_steps: int) -> None:
    """Raises unless there is at least one step."""
    if accumulation_steps < 1:
        raise ValueError(f"{owner}: accumulation_steps must be >= 1; got {accumulation_steps!r}.")


def axes_of(owner: str, per_elt_axis: Any) -> tuple[int, ...]:
    """The axes of elements, as a tuple."""
    axes = per_elt_axis if isinstance(per_elt_axis, Sequence) else (per_elt_axis,)
    for axis in axes:
        if not isinstance(axis, int | np.integer) or isinstance(axis, bool):
            raise TypeError(
                f"{owner}: per_elt_axis must be an integer or a sequence of integers; got "
                f"{per_elt_axis!r}."
            )
    return tuple(operator.index(axis) for axis in axes)


def check_axes(updates: PerElementUpdates, axes: tuple[int, ...]) -> None:
    """Raises, naming the path, where an update lacks an axis of elements."""
    for path, g in jax.tree_util.tree_flatten_with_path(updates)[0]:
        if not all(-jnp.ndim(g) <= axis < jnp.ndim(g) for axis in axes):
            raise TreeMismatchError(
                f"updates{jax.tree_util.keystr(path)} has shape {jnp.shape(g)}, and not the axes "
                f"{axes} of elements that per_elt_axis tells."
            )


def get_batch_size_from_per_elt_updates(
    per_elt_updates: PerElementUpdates, per_elt_axis: int | Sequence[int]
) -> int:
    """The number of elements whose updates these are.

    Args:
      per_elt_updates: A tree of arrays.
      per_elt_axis: The axis of elements in each array; of several, the sizes are multiplied.

    Returns:
      The number of elements.

    Raises:
      ValueError: If arrays lack the axis or differ in its size, or there are none.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.aggregating import get_batch_size_from_per_elt_updates
      >>> get_batch_size_from_per_elt_updates({"w": jnp.zeros((4, 3))}, 0)
      4
    """
    axes = axes_of("get_batch_size_from_per_elt_updates", per_elt_axis)
    check_axes(per_elt_updates, axes)
    sizes = {
        math.prod(jnp.shape(g)[axis] for axis in axes) for g in jax.tree.leaves(per_elt_updates)
    }
    if len(sizes) != 1:
        found = f"found {sorted(sizes)}" if sizes else "found no updates"
        raise TreeMismatchError(
            f"all updates must have the same number of elements along {axes}; {found}."
        )
    return sizes.pop()


def mean_over(g: jax.Array, axes: tuple[int, ...], keepdims: bool = False) -> jax.Array:
    """The mean over elements, in at least float32."""
    return jnp.mean(g.astype(at_least_float32(g.dtype)), axes, keepdims=keepdims)
