"""Different transformations for different leaves: `partition`."""

import functools
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

import jax

from grad_core import structure
from grad_core.conformance import example
from grad_core.errors import TreeMismatchError
from grad_core.masking import Masked
from grad_core.nodes import Node, node_of
from grad_core.rules import ExtraArgs
from grad_core.scaling import scale
from grad_core.transformations import from_node, transformation
from grad_core.tree._map_params import ParamsPlaceholder
from grad_core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    PyTree,
    Updates,
)


class PartitionState(NamedTuple):
    """The state of each transformation, a `MaskedState`, by label."""

    inner_states: Mapping[Hashable, OptState]


Labels: TypeAlias = PyTree | Callable[[Params], PyTree]
Label = TypeVar("Label", bound=Hashable)


@example({r".*": scale(0.5)})
@transformation
def partition(
    transforms: Mapping[Label, GradientTransformation],
    param_labels: Labels | None = None,
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformationExtraArgs:
    r"""Gives each leaf to the transformation that its label names.

    Args:
      transforms: The transformations by label.
      param_labels: A tree of labels, a prefix of the parameters'; or a function of the parameters
        (of the updates, in ``update``) that returns one. With None, the keys of `transforms` are
        regular expressions, and each leaf goes to the one that its whole path, keys joined by
        ``/``, matches.
      mask_compatible_extra_args: Whether each transformation sees only its own leaves also of those
        extra arguments of ``update`` that have the structure of the updates, and ``value_fn``, a
        function of the parameters, becomes one of its leaves, the others staying as they are. Line
        searches need it.

    Returns:
      A transformation whose state is a `PartitionState`. Each transformation sees a `MaskedNode` in
      place of the leaves of others: it keeps no state there, and norms leave them out.

    Raises:
      TreeMismatchError: By ``init`` and ``update``, if a label has no transformation, a path
        matches no pattern or two, or the labels are no prefix of the tree.

    Example:
      >>> from grad_core import partition, scale, set_to_zero
      >>> params = {"encoder": {"kernel": 1.0}, "head": {"kernel": 1.0}}
      >>> tx = partition({r"encoder/.*": set_to_zero(), r"head/.*": scale(-0.5)})
      >>> updates, state = tx.update(params, tx.init(params))
      >>> float(updates["encoder"]["kernel"]), float(updates["head"]["kernel"])
      (0.0, -0.5)
    """
    nodes: dict[Hashable, Node] = {}
    nodes |= {label: node_of(tx, "partition") for label, tx in transforms.items()}
    return from_node(Partition(nodes, param_labels, mask_compatible_extra_args))


class Partition(Node):
    """Nodes by label; labels are a static tree, a function, or None for patterns."""

    takes_extra_args = True

    def __init__(
        self, nodes: Mapping[Hashable, Node], labels: Any, mask_extra_args: bool = False
    ) -> None:
        self.nodes = dict(nodes)
        static = labels is None or structure.is_function(labels)
        self.labels: Any = labels if static else structure.FrozenTree(labels)
        self.mask_extra_args = mask_extra_args
        self.label = "partition"
        self.pure = (
            all(node.pure for node in nodes.values())
            and not structure.is_function(labels)
            and _are_sortable(nodes)  # or else the state, a dict, cannot enter compiled code
        )
        if labels is None and not all(isinstance(label, str) for label in nodes):
            raise TypeError(
                "partition: without param_labels, the keys of transforms are patterns for paths, "
                f"and so must be strings; got {', '.join(map(repr, nodes))}."
            )

    @property
    def children(self) -> tuple[Node, ...]:
        return tuple(self.nodes.values())

    def init(self, params: Params) -> OptState:
        if isinstance(params, ParamsPlaceholder):
            groups = {label: Masked(node, True) for label, node in self.nodes.items()}
        else:
            groups = self._groups(self._labels_for(params, "params"))
        return PartitionState({label: group.init(params) for label, group in groups.items()})

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        labels = self._labels_for(structure.filled(updates, params), "updates")
        if structure.is_function(self.labels):
            known = Partition(self.nodes, labels, self.mask_extra_args).labelled(self.label)
            return known.update(updates, state, params, extra_args)
        states: Mapping[Hashable, OptState] = state.inner_states  # type: ignore[attr-defined]
        new = {}
        for label, group in self._groups(labels).items():
            updates, new[label] = group.step(updates, states[label], params, extra_args)
        return updates, PartitionState(new)

    def resolve(self, state: OptState | None) -> Node:
        if not self.has_schedules:
            return self
        states: Any = {} if state is None else state.inner_states  # type: ignore[attr-defined]
        nodes = {
            label: node.resolve(states[label].inner_state if label in states else None)
            for label, node in self.nodes.items()
        }
        return self._with(nodes)

    def grouped(self, max_size: int) -> Node:
        return self._with({label: node.grouped(max_size) for label, node in self.nodes.items()})

    def _with(self, nodes: dict[Hashable, Node]) -> Node:
        """The same partition of other nodes."""
        is_frozen = isinstance(self.labels, structure.FrozenTree)
        labels = self.labels.thaw() if is_frozen else self.labels
        return Partition(nodes, labels, self.mask_extra_args).labelled(self.label)

    def learning_rate(self, state: OptState) -> Any:
        states: Any = state.inner_states  # type: ignore[attr-defined]
        rates = {k: n.learning_rate(states[k].inner_state) for k, n in self.nodes.items()}
        return {label: rate for label, rate in rates.items() if rate is not None} or None

    def _groups(self, labels: PyTree) -> dict[Hashable, Masked]:
        """Each node masked to its own leaves."""
        return {
            label: Masked(
                node, jax.tree.map(functools.partial(_equal, label), labels), self.mask_extra_args
            )
            for label, node in self.nodes.items()
        }

    def _labels_for(self, tree: PyTree, name: str) -> PyTree:
        """The labels of a tree, each known to have a transformation."""
        if self.labels is None:
            return structure.label_by_pattern([str(label) for label in self.nodes], tree)
        labels = self.labels
        labels = labels.thaw() if isinstance(labels, structure.FrozenTree) else labels(tree)
        structure.check_prefix(labels, tree, ("param_labels", name))
        for path, label in jax.tree_util.tree_flatten_with_path(labels)[0]:
            if label not in self.nodes:
                known = ", ".join(map(repr, self.nodes))
                raise TreeMismatchError(
                    f"{structure.where('param_labels', path)} is {label!r}, but there are "
                    f"transformations only for {known}."
                )
        return labels


def _are_sortable(labels: Iterable[Any]) -> bool:
    try:
        sorted(labels)
    except TypeError:
        return False
    return True


def _equal(a: Hashable, b: Hashable) -> bool:
    return a == b


def _flatten(node: Partition) -> tuple[tuple[Node, ...], tuple[Any, ...]]:
    aux = (tuple(node.nodes), node.labels, node.mask_extra_args, node.label)
    return node.children, aux


def _unflatten(aux: tuple[Any, ...], children: Sequence[Node]) -> Partition:
    node = object.__new__(Partition)
    keys, node.labels, node.mask_extra_args, node.label = aux
    node.nodes = dict(zip(keys, children, strict=True))
    return node


jax.tree_util.register_pytree_node(Partition, _flatten, _unflatten)


multi_transform = partition
MultiTransformState = PartitionState
