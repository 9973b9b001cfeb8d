"""The kinds of trees that users keep parameters in."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from grad_core import MaskedNode
from grad_testing.checking import numbered

__all__ = ["KINDS", "Sample", "sample_of"]

SHAPES = ((2, 3), (3,), ())


class Sample(NamedTuple):
    """Parameters and gradients of one kind, and the leaves of those that are to be updated.

    Attributes:
      params: The parameters.
      gradients: Gradients, of the same structure but for leaves that say "no update".
      leaves: The parameters' leaves at which there is a gradient, in order.
      updates: Those gradients.
      pick: From a tree of the gradients' structure, what stands at those leaves.
    """

    params: Any
    gradients: Any
    leaves: list[Any]
    updates: list[Any]
    pick: Callable[[Any], list[Any]]


class Pair(NamedTuple):
    """A named tuple of parameters."""

    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    """A dataclass of parameters, with a field that is none."""

    kernel: Any
    bias: Any
    name: str = dataclasses.field(default="layer", metadata={"static": True})


@jax.tree_util.register_pytree_with_keys_class
class FrozenDict(Mapping[str, Any]):
    """A read-only dict, as flax has one."""

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        keys = tuple(sorted(self._items))
        return [(jax.tree_util.DictKey(key), self._items[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], children: Any) -> "FrozenDict":
        return cls(dict(zip(keys, children, strict=True)))


@jax.tree_util.register_pytree_node_class
class Module:
    """A callable object with parameters and a static field, without keys, as in equinox."""

    def __init__(self, weight: Any, bias: Any, width: int = 3) -> None:
        self.weight, self.bias, self.width = weight, bias, width

    def __call__(self, x: Any) -> Any:
        return x @ self.weight + self.bias

    def tree_flatten(self) -> tuple[tuple[Any, Any], int]:
        return (self.weight, self.bias), self.width

    @classmethod
    def tree_unflatten(cls, width: int, children: Any) -> "Module":
        weight, bias = children
        return cls(weight, bias, width)


Build = Callable[[Any, Any, Any], Any]

CONTAINERS: dict[str, Build] = {
    "tuple": lambda a, b, c: (a, (b, c)),
    "list": lambda a, b, c: [a, [b], c],
    "nested_dict": lambda a, b, c: {"x": {"y": {"z": a}}, "y": {"u": b, "v": c}},
    "named_tuple": lambda a, b, c: Pair(a, Pair(b, c)),
    "dataclass": lambda a, b, c: {"in": Layer(a, b), "out": c},
    "frozen_dict": lambda a, b, c: FrozenDict({"x": FrozenDict({"y": a, "z": b}), "z": c}),
    "module": lambda a, b, c: [Module(a, b), c],
    "empty_subtrees": lambda a, b, c: {"a": {}, "b": [a, (), b], "c": (c, [])},
}

NOTHING: dict[str, Callable[[Any], Any]] = {
    "none": lambda leaf: None,
    "masked_node": lambda leaf: MaskedNode(),
    "float0": lambda leaf: np.zeros(np.shape(leaf), jax.dtypes.float0),
}

KINDS: tuple[str, ...] = (
    "containers",
    "empty",
    "array",
    "python_numbers",
    "no_elements",
    "none_leaves",
    "masked_node_leaves",
    "none_gradients",
    "masked_node_gradients",
    "float0_gradients",
)
"""The kinds of trees, by the names that tests have; containers of every kind make one tree."""


def sample_of(kind: str) -> Sample:
    """A tree of parameters of some kind, and gradients.

    Args:
      kind: One of `KINDS`.

    Returns:
      The sample.

    Example:
      >>> from grad_testing.trees import sample_of
      >>> len(sample_of("no_elements").leaves)
      3
    """
    p, g = numbered(SHAPES, 1), numbered(SHAPES, 2)
    if kind == "containers":
        params, gradients = (
            {name: build(*x) for name, build in CONTAINERS.items()} for x in (p, g)
        )
        leaves, updates = (jax.tree.leaves(tree) for tree in (params, gradients))
        return Sample(params, gradients, leaves, updates, jax.tree.leaves)
    if kind == "empty":
        return Sample({}, {}, [], [], jax.tree.leaves)
    if kind == "array":
        return Sample(p[0], g[0], p[:1], g[:1], jax.tree.leaves)
    if kind == "python_numbers":
        return Sample(
            {"a": 0.5, "b": 2.0}, {"a": 1.0, "b": -3.0}, [0.5, 2.0], [1.0, -3.0], jax.tree.leaves
        )
    if kind == "no_elements":
        p[1], g[1] = numbered([(0, 3)] * 2, 3)
        return Sample(p, g, p, g, jax.tree.leaves)
    what, _, where = kind.rpartition("_")  # "none_leaves", "float0_gradients"
    nothing = NOTHING[what](p[1])
    masked_params = nothing if where == "leaves" else p[1]
    params = {"a": p[0], "b": masked_params, "c": p[2]}
    gradients = {"a": g[0], "b": nothing, "c": g[2]}
    return Sample(params, gradients, [p[0], p[2]], [g[0], g[2]], lambda t: [t["a"], t["c"]])
