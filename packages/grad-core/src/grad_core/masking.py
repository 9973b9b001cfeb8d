"""Transforming some leaves and passing the others through: `masked`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from grad_core import structure
from grad_core.conformance import example
from grad_core.errors import LeafTypeError, shown
from grad_core.nodes import Node, node_of, run
from grad_core.rules import ExtraArgs
from grad_core.scaling import scale
from grad_core.transformations import from_node, transformation
from grad_core.tree._map_params import ParamsPlaceholder
from grad_core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    MaskedState,
    OptState,
    Params,
    PyTree,
    Updates,
)

MaskOrFn: TypeAlias = PyTree | Callable[[Params], PyTree]
"""A tree of bools that is a prefix of the parameters', a function that makes one of them, a regular
expression that whole paths such as ``encoder/kernel`` must match."""


@example(scale(0.5), r".*")
@transformation
def masked(
    inner: GradientTransformation, mask: MaskOrFn, *, mask_compatible_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    r"""Applies a transformation to some leaves only; the updates of the others pass as they are.

    The inner transformation sees a `MaskedNode` where the mask is False: it keeps no state there,
    and norms leave those leaves out. To stop the others from moving, use `set_to_zero` on them (see
    `partition`).

    Args:
      inner: The transformation for the leaves where the mask is True.
      mask: A tree of bools, a prefix of the parameters'; or a function of the parameters (of the
        updates, in ``update``) that returns one; or a regular expression that whole paths, keys
        joined by ``/``, must match.
      mask_compatible_extra_args: Whether to mask also those extra arguments of ``update`` that have
        the structure of the updates, and to make ``value_fn``, a function of the parameters, one
        of the leaves that are there.

    Returns:
      A transformation whose state is a `MaskedState`.

    Raises:
      TreeMismatchError: By ``init`` and ``update``, if the mask is no prefix of the tree.

    Example:
      >>> from grad_core import masked, scale
      >>> tx = masked(scale(10.0), r".*bias")
      >>> params = {"dense": {"bias": 1.0, "kernel": 1.0}}
      >>> updates, state = tx.update(params, tx.init(params))
      >>> float(updates["dense"]["bias"]), float(updates["dense"]["kernel"])
      (10.0, 1.0)
    """
    return from_node(Masked(node_of(inner, "masked"), mask, mask_compatible_extra_args))


class Masked(Node):
    """A node for the leaves where a mask is True: a static tree or pattern, or a function."""

    takes_extra_args = True

    def __init__(self, inner: Node, mask: Any, mask_extra_args: bool = False) -> None:
        self.inner = inner
        self.mask = mask if _is_static(mask) else _freeze(mask)
        self.mask_extra_args = mask_extra_args
        self.label = "masked"
        self.pure = inner.pure and not structure.is_function(mask)

    @property
    def children(self) -> tuple[Node]:
        return (self.inner,)

    def init(self, params: Params) -> OptState:
        if isinstance(params, ParamsPlaceholder):  # of tree.map_params: it stands for all leaves
            return MaskedState(inner_state=self.inner.start(params))
        mask = self._mask_for(params, "params")
        return MaskedState(inner_state=self.inner.start(select(mask, params)))

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        mask = self._mask_for(structure.filled(updates, params), "updates")
        if structure.is_function(self.mask):
            known = Masked(self.inner, mask, self.mask_extra_args).labelled(self.label)
            return known.update(updates, state, params, extra_args)
        mask = jax.tree.map(  # where there is no update, there is nothing to select
            lambda m: m is True, mask, is_leaf=structure.is_absent
        )
        advance = functools.partial(run, self.inner) if self.inner.pure else self.inner.update
        if self.mask_extra_args:
            alike: Any = jax.tree.structure(updates)
            extra_args = {
                name: select(mask, x) if jax.tree.structure(x) == alike else x
                for name, x in extra_args.items()
            }
            if params is not None and callable(value_fn := extra_args.get("value_fn")):
                extra_args["value_fn"] = _on_part(value_fn, mask, params)
        if params is not None:
            structure.check_prefix(mask, params, ("mask", "params"))
            params = select(mask, params)
        inner_state = state.inner_state  # type: ignore[attr-defined]
        new, inner_state = advance(select(mask, updates), inner_state, params, extra_args)
        return merge(mask, new, updates), MaskedState(inner_state=inner_state)

    def resolve(self, state: OptState | None) -> Node:
        if not self.has_schedules:
            return self
        inner = self.inner.resolve(getattr(state, "inner_state", None))
        return Masked(inner, self.mask, self.mask_extra_args).labelled(self.label)

    def grouped(self, max_size: int) -> Node:
        mask = self.mask.thaw() if isinstance(self.mask, structure.FrozenTree) else self.mask
        inner = self.inner.grouped(max_size)
        return Masked(inner, mask, self.mask_extra_args).labelled(self.label)

    def learning_rate(self, state: OptState) -> Any:
        return self.inner.learning_rate(state.inner_state)  # type: ignore[attr-defined]

    def _mask_for(self, tree: PyTree, name: str) -> PyTree:
        """The mask as a tree of bools, checked to be a prefix of `tree`."""
        if isinstance(self.mask, str):
            return structure.matches(self.mask, tree)
        if isinstance(self.mask, structure.FrozenTree):
            mask = self.mask.thaw()
        else:
            mask = _freeze(self.mask(tree)).thaw()
        structure.check_prefix(mask, tree, ("mask", name))
        return mask


def select(mask: PyTree, tree: PyTree) -> PyTree:
    """The tree with a `MaskedNode` wherever the mask, a prefix of it, is False."""
    return jax.tree.map(lambda m, x: x if m else MaskedNode(), mask, tree)


def merge(mask: PyTree, part: PyTree, tree: PyTree) -> PyTree:
    """The tree with the leaves of a part of it, as `select` makes one, where the mask is True."""
    return jax.tree.map(lambda m, there, old: there if m else old, mask, part, tree)


def _on_part(value_fn: Callable[..., Any], mask: PyTree, params: Params) -> Callable[..., Any]:
    """A function of the parameters as one of their part, the others staying as they are."""

    @functools.wraps(value_fn)
    def of_part(part: Params, /, *args: object, **kwargs: object) -> Any:
        return value_fn(merge(mask, part, params), *args, **kwargs)

    return of_part


def _is_static(mask: object) -> bool:
    return isinstance(mask, str | structure.FrozenTree) or structure.is_function(mask)


def _freeze(mask: PyTree) -> structure.FrozenTree:
    return structure.FrozenTree(jax.tree.map(_as_bool, mask))


def _as_bool(x: Any) -> bool:
    is_known = not isinstance(x, jax.core.Tracer)
    is_bool = isinstance(x, bool | int | np.bool_ | np.ndarray | jax.Array) and np.ndim(x) == 0
    if not (is_known and is_bool):
        raise LeafTypeError(
            f"a mask must hold True or False, known before tracing; got {shown(x)}."
        )
    return bool(x)


def _flatten(node: Masked) -> tuple[tuple[Node], tuple[Any, ...]]:
    return node.children, (node.mask, node.mask_extra_args, node.label)


def _unflatten(aux: tuple[Any, ...], children: Sequence[Node]) -> Masked:
    node = object.__new__(Masked)
    node.inner = children[0]
    node.mask, node.mask_extra_args, node.label = aux
    return node


jax.tree_util.register_pytree_node(Masked, _flatten, _unflatten)
