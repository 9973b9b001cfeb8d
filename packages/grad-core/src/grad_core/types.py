"""The types every package shares: trees, transformations and the plain states.

A *gradient transformation* is a pair of pure functions::

    state = init(params)
    updates, state = update(updates, state, params)

``update`` maps candidate updates (gradients, at first) to processed ones; it never touches the
parameters. `apply_updates` does that, last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import jax
import numpy as np

PyTree: TypeAlias = object
"""Any nesting of dicts, lists, tuples, dataclasses, ... known to JAX, with arrays as leaves."""

ArrayTree: TypeAlias = PyTree
Params: TypeAlias = PyTree
Updates: TypeAlias = PyTree
OptState: TypeAlias = PyTree

Tree = TypeVar("Tree")
"""A tree whose type goes in and comes out: ``zeros_like(tree: Tree) -> Tree``."""

Numeric: TypeAlias = jax.Array | np.ndarray[Any, np.dtype[Any]] | np.number[Any] | float | int
"""A real number, or an array of shape () of real dtype."""

Schedule: TypeAlias = Callable[[Numeric], Numeric]
"""A function from the step count, starting at 0, to a hyperparameter's value."""

Scalar: TypeAlias = jax.Array | float
"""A hyperparameter: a Python number or an array of shape ()."""

ScalarOrSchedule: TypeAlias = Scalar | Callable[[jax.Array], Numeric]
"""A hyperparameter, or a function that makes it from the step count."""


# Parameters are Any in the protocols, so that users' functions may name their own trees and states
# there; what comes out never is.


class TransformInitFn(Protocol):
    """``init(params) -> state``: the statistics of a transformation before its first update."""

    def __call__(self, params: Any, /) -> OptState: ...


class TransformUpdateFn(Protocol):
    """``update(updates, state, params=None) -> (updates, state)``: one step."""

    def __call__(
        self, updates: Any, state: Any, /, params: Any = None
    ) -> tuple[Updates, OptState]: ...


class TransformUpdateExtraArgsFn(Protocol):
    """An update function that also takes extra keyword arguments (``value=loss``, ...)."""

    def __call__(
        self,
        updates: Any,
        state: Any,
        /,
        params: Any = None,
        **extra_args: object,
    ) -> tuple[Updates, OptState]: ...


class GradientTransformation(NamedTuple):
    """A pair of pure functions, ``init`` and ``update``.

    Attributes:
      init: ``init(params) -> state``, the first statistics.
      update: ``update(updates, state, params=None) -> (updates, state)``, one step.

    Example:
      >>> import jax
      >>> from grad_core import EmptyState, GradientTransformation
      >>> double = GradientTransformation(
      ...     init=lambda params: EmptyState(),
      ...     update=lambda updates, state, params=None: (
      ...         jax.tree.map(lambda g: 2 * g, updates),
      ...         state,
      ...     ),
      ... )
      >>> double.update({"w": 1.5}, double.init({"w": 0.0}))
      ({'w': 3.0}, EmptyState())
    """

    init: TransformInitFn
    update: TransformUpdateFn

    def __repr__(self) -> str:
        call = getattr(self.init, "call", None)
        if call is not None and call == getattr(self.update, "call", None):
            return repr(call)
        return f"{type(self).__name__}(init={self.init!r}, update={self.update!r})"


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose ``update`` also takes extra keyword arguments."""

    update: TransformUpdateExtraArgsFn


class EmptyState(NamedTuple):
    """The state of a transformation that keeps none."""


class MaskedNode(NamedTuple):
    """Stands where a leaf (or a subtree) was masked out; it has no leaves itself."""


class MaskedState(NamedTuple):
    """The state of the inner transformation, `MaskedNode` where the mask is False."""

    inner_state: OptState
