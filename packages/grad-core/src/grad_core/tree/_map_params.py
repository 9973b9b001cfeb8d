"""Map a function over those parts of an optimizer state that are shaped like the parameters.

Which parts those are, a transformation tells by itself: its ``init`` is called with a
`ParamsPlaceholder`, a tree without leaves, in the place of the parameters. ``init`` builds every
statistic with `jax.tree.map` or the like over its argument, so the placeholder turns up wherever
the state holds a copy of the parameters' structure.
"""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax

from grad_core.tree._map import map_leaves
from grad_core.types import OptState, Params, PyTree, Tree


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class ParamsPlaceholder:
    """Stands for the parameters when only the layout of a state is asked for.

    A transformation whose ``init`` cannot do with a tree without leaves (because it has to line
    its argument up with a mask or with labels) checks for it and hands it on.
    """


class Initable(Protocol):
    """Anything with an ``init``: a transformation, or an object that wraps one."""

    @property
    def init(self) -> Callable[[Params], OptState]:
        """``init(params) -> state``."""
        ...


def map_params(
    initable: Initable | Callable[[Params], OptState],
    f: Callable[..., object],
    state: Tree,
    /,
    *rest: PyTree,
    transform_non_params: Callable[..., object] | None = None,
    is_leaf: Callable[[object], bool] | None = None,
) -> Tree:
    """Apply ``f`` to the leaves of a state that correspond to parameters.

    ``leaf -> f(leaf, *rest_leaves)`` in every part of the state that has the structure of the
    parameters (moments, traces, averages); all else (counts, hyperparameters) stays.

    Args:
      initable: a transformation, or its ``init`` function.
      f: called with a leaf of the state and the corresponding leaves of ``rest``.
      state: the state, or its shapes.
      *rest: trees with the structure of the parameters (or prefixed by it).
      transform_non_params: called with every other leaf; None leaves them alone.
      is_leaf: where to stop within parts like the parameters. With ``rest`` and a masked state,
        ``lambda x: isinstance(x, MaskedNode)``.

    Returns:
      The mapped state.

    Raises:
      TypeError: ``initable`` is neither.
      ValueError: ``state`` is not of ``initable``, or ``rest`` is not like the parameters.

    Example:
      >>> import jax
      >>> from grad_core import tree
      >>> init = lambda params: {"count": 0, "mu": jax.tree.map(lambda x: 0.0 * x, params)}
      >>> state = init({"w": 1.0, "b": 2.0})
      >>> tree.map_params(init, lambda m, name: name, state, {"w": "W", "b": "B"})
      {'count': 0, 'mu': {'b': 'B', 'w': 'W'}}
    """
    layout = _init_function(initable)(ParamsPlaceholder())

    def part(like: object, value: object) -> object:
        if isinstance(like, ParamsPlaceholder):
            return map_leaves(f, value, *rest, is_leaf=is_leaf)
        return value if transform_non_params is None else map_leaves(transform_non_params, value)

    mapped: Tree = jax.tree.map(part, layout, state, is_leaf=_is_placeholder)
    return mapped


def _init_function(
    initable: Initable | Callable[[Params], OptState],
) -> Callable[[Params], OptState]:
    init = getattr(initable, "init", initable)
    if not callable(init):
        raise TypeError(
            "tree.map_params: expected a transformation or its init function, "
            f"got {initable!r} of type {type(initable).__name__}."
        )
    return init


def _is_placeholder(x: object) -> bool:
    return isinstance(x, ParamsPlaceholder)
