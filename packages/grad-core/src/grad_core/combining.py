"""Transformations one after another: `chain` and `named_chain`."""

import functools
from collections import OrderedDict
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import jax

from grad_core.averaging import trace
from grad_core.conformance import example
from grad_core.errors import TreeMismatchError, shown
from grad_core.nodes import Node, Part, node_of
from grad_core.rules import ExtraArgs
from grad_core.scaling import scale
from grad_core.transformations import from_node, transformation
from grad_core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)


@example(scale(0.5), trace(0.9))
@transformation
def chain(*args: GradientTransformation) -> GradientTransformationExtraArgs:
    """Applies transformations in sequence, each to what the one before it returned.

    Extra arguments of ``update`` reach those transformations that take them.

    Args:
      *args: The transformations, first to last.

    Returns:
      A transformation whose state is the tuple of their states.

    Raises:
      NotATransformationError: If an argument is no gradient transformation.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import chain, clip, scale
      >>> descent = chain(clip(1.0), scale(-0.1))
      >>> params = jnp.array([1.0, 2.0])
      >>> updates, state = descent.update(jnp.array([5.0, 0.5]), descent.init(params))
      >>> updates
      Array([-0.1 , -0.05], dtype=float32)
    """
    return from_node(Chain([node_of(arg, "chain") for arg in args]))


@example(("half", scale(0.5)), ("momentum", trace(0.9)))
@transformation
def named_chain(*args: tuple[str, GradientTransformation]) -> GradientTransformationExtraArgs:
    """`chain` whose parts have names, and whose state is a dict by name.

    Args:
      *args: Pairs of a name and a transformation, first to last.

    Returns:
      A transformation whose state is the dict of their states.

    Raises:
      ValueError: If two have the same name.
      NotATransformationError: If an argument is no pair of a name and a transformation.

    Example:
      >>> from grad_core import named_chain, scale, trace
      >>> tx = named_chain(("momentum", trace(0.9)), ("step", scale(-0.1)))
      >>> sorted(tx.init(0.0))
      ['momentum', 'step']
    """
    for arg in args:
        if not isinstance(arg, tuple) or len(arg) != 2 or not isinstance(arg[0], str):
            node_of(arg, "named_chain, which takes pairs (name, transformation),")
            raise TypeError(f"named_chain takes pairs (name, transformation); got {shown(arg)}.")
    names = tuple(name for name, _ in args)
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"named_chain: names must differ, but {twice} stand more than once.")
    return from_node(Chain([node_of(tx, "named_chain") for _, tx in args], names))


class Chain(Node):
    """Nodes one after another; the state is the tuple, or with names the dict, of their states."""

    children: tuple[Node, ...] = ()

    def __init__(self, children: Sequence[Node], names: tuple[str, ...] | None = None) -> None:
        self.children = tuple(children)
        self.names = names
        self.label = "chain" if names is None else "named_chain"
        self.pure = all(child.pure for child in children)
        self.takes_extra_args = any(child.takes_extra_args for child in children)
        self.size = sum(child.size for child in children)

    def init(self, params: Params) -> OptState:
        return self._pack([child.start(params) for child in self.children])

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """Runs each stretch of pure children as one, and the others one by one."""
        states = self._unpack(state)
        done: list[OptState] = []
        for stretch in _stretches(self.children):
            mine = tuple(states[len(done) : len(done) + len(stretch)])
            if len(stretch) == 1:
                updates, new = stretch[0].update(updates, mine[0], params, extra_args)
                done.append(new)
            else:
                updates, new = Chain(stretch).update(updates, mine, params, extra_args)
                done += new  # type: ignore[arg-type]
        return updates, self._pack(done)

    def resolve(self, state: OptState | None) -> Node:
        if not self.has_schedules:
            return self
        states = [None] * len(self.children) if state is None else self._unpack(state)
        pairs = zip(self.children, states, strict=True)
        return Chain([child.resolve(s) for child, s in pairs], self.names).labelled(self.label)

    def grouped(self, max_size: int) -> Node:
        children = [child.grouped(max_size) for child in self.children]
        return Chain(children, self.names).labelled(self.label)

    def parts(self, state: OptState) -> list[Part]:
        pairs = zip(self.children, self._unpack(state), strict=True)
        return [
            part._replace(owners=(*part.owners, self.label))
            for child, s in pairs
            for part in child.parts(s)
        ]

    def join(self, states: Sequence[OptState]) -> OptState:
        done: list[OptState] = []
        for child in self.children:
            done.append(child.join(states[: child.size]))
            states = states[child.size :]
        return self._pack(done)

    def learning_rate(self, state: OptState) -> Any:
        pairs = zip(self.children, self._unpack(state), strict=True)
        rates = [rate for child, s in pairs if (rate := child.learning_rate(s)) is not None]
        return functools.reduce(_product, rates) if rates else None

    def _unpack(self, state: Any) -> list[OptState]:
        if self.names is not None and isinstance(state, dict) and {*state} == {*self.names}:
            return [state[name] for name in self.names]
        if not isinstance(state, tuple) or len(state) != len(self.children):
            raise TreeMismatchError(
                f"the state must hold one state for each of its {len(self.children)} "
                f"transformations; got {shown(state)}. Was it made by another init?"
            )
        return list(state)

    def _pack(self, states: Sequence[OptState]) -> OptState:
        if self.names is None:
            return tuple(states)
        return OrderedDict(zip(self.names, states, strict=True))


def _product(a: Any, b: Any) -> Any:
    """The product of two rates, either of which may be a dict by label."""
    if isinstance(a, dict):
        return {label: _product(rate, b) for label, rate in a.items()}
    return _product(b, a) if isinstance(b, dict) else a * b


def _stretches(children: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Neighbouring pure nodes together, each other node alone."""
    stretches: list[tuple[Node, ...]] = []
    for pure, group in groupby(children, lambda child: child.pure):
        together = tuple(group)
        stretches += [together] if pure else [(child,) for child in together]
    return stretches


def _flatten(node: Chain) -> tuple[tuple[Node, ...], tuple[Any, ...]]:
    return node.children, (node.names, node.label)


def _unflatten(aux: tuple[Any, ...], children: Sequence[Node]) -> Chain:
    node = object.__new__(Chain)
    node.children, (node.names, node.label) = tuple(children), aux
    node.size = sum(child.size for child in children)
    return node


jax.tree_util.register_pytree_node(Chain, _flatten, _unflatten)
