"""How transformations run: nodes, and the one compiled function that carries them out.

Behind every transformation stands a `Node`. A *pure* node does only what our own rules do, and all
of it, however deeply chained, runs as one compiled call; inside, neighbouring leaf rules are fused.
What users wrote (schedules, masks, conditions, transformations) is called between such calls, with
concrete values if there are any. Nodes are pytrees whose leaves are the hyperparameters, so that
transformations that differ in numbers only share an executable.
"""

import functools
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, Self

import jax

from grad_core.errors import (
    MissingArgumentError,
    NotATransformationError,
    TreeMismatchError,
    naming,
    shown,
)
from grad_core.grouping import init_grouped, run_grouped
from grad_core.hyperparameters import EvaluatedSchedule, is_users_schedule
from grad_core.leaves import Stage, naming_all, run_rules
from grad_core.rules import ExtraArgs, LeafRule, TreeRule
from grad_core.schedules import in_compiled_code
from grad_core.sharing import dispatched_once
from grad_core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from grad_core.values import Call


class Part(NamedTuple):
    """One step of a sequence: a node, its state, and whose part it is, from the inside out."""

    node: "Node"
    state: OptState
    owners: tuple[str, ...]


class Node:
    """The inner form of a transformation.

    Attributes:
      label: The name of the factory that made it, for errors.
      pure: Whether it can run inside compiled code: our rules only, nothing that users wrote.
      takes_extra_args: Whether its transformation is a `GradientTransformationExtraArgs`.
      size: The number of its `parts`.
    """

    label: str = ""
    pure: bool = True
    takes_extra_args: bool = False
    size: int = 1

    @property
    def children(self) -> Sequence["Node"]:
        """The nodes that it is made of."""
        return ()

    @functools.cached_property
    def has_schedules(self) -> bool:
        """Whether a user's schedule must be called before each update."""
        return any(child.has_schedules for child in self.children)

    @functools.cached_property
    def extra_names(self) -> frozenset[str]:
        """The extra arguments that compiled code needs."""
        return frozenset[str]().union(*(child.extra_names for child in self.children))

    @functools.cached_property
    def takes_params(self) -> bool:
        """Whether compiled code looks at the parameters, if there are any."""
        return any(child.takes_params for child in self.children)

    def init(self, params: Params) -> OptState:
        """The first state."""
        raise NotImplementedError

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """One update: inside compiled code if the node is pure, outside if it is not."""
        raise NotImplementedError

    def resolve(self, state: OptState | None) -> "Node":
        """The node with users' schedules evaluated at the counts in `state`.

        Without a state, for `init`, the schedules are left out: their values do not matter.
        """
        return self

    def parts(self, state: OptState) -> list[Part]:
        """The node as a sequence of nodes to run one after another."""
        return [Part(self, state, (self.label,))]

    def join(self, states: Sequence[OptState]) -> OptState:
        """The state from the states of the `parts`."""
        return states[0]

    def grouped(self, max_size: int) -> "Node":
        """The node with small leaves of one shape stacked, wherever a leaf rule runs."""
        return self

    def learning_rate(self, state: OptState) -> Any:
        """The learning rate of the next update, or None; by label where there are several."""
        return None

    def params_owners(self) -> tuple[str, ...]:
        """Whose part needs the parameters, from the inside out; () if none does."""
        owners = next((o for o in (n.params_owners() for n in self.children) if o), ())
        return (*owners, self.label) if owners else ()

    @functools.cached_property
    def needs_params(self) -> bool:
        return bool(self.params_owners())

    def labelled(self, label: str) -> "Node":
        """The same node under the name of the factory that made it."""
        copy: Node = object.__new__(type(self))
        copy.__dict__.update(self.__dict__, label=label)
        return copy

    def start(self, params: Params) -> OptState:
        """The first state, compiled where it can be."""
        leaves = jax.tree.leaves(params)
        if self.pure and not any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves):
            return _init(self.resolve(None), params)
        with naming(self.label):
            return self.init(params)

    def update(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        """One update, compiled where it can be."""
        if params is None and self.needs_params:
            raise self._missing_params()
        if not self.pure:
            with naming(self.label):
                return self.step(updates, state, params, extra_args)
        with naming(self.label):
            node = self.resolve(state)
        asked = {name: extra_args[name] for name in self.extra_names if name in extra_args}
        return _update(node, updates, state, params if self.takes_params else None, asked)

    def _missing_params(self) -> MissingArgumentError:
        error = MissingArgumentError(
            "update() needs the current value of the parameters: "
            "call update(updates, state, params)."
        )
        error.owners += self.params_owners()
        return error


@dispatched_once
def _init(node: Node, params: Params) -> OptState:
    with naming(node.label):
        return node.init(params)


@dispatched_once
def _update(
    node: Node, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
) -> tuple[Updates, OptState]:
    return run(node, updates, state, params, extra_args)


def run(
    node: Node, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
) -> tuple[Updates, OptState]:
    """Runs a pure node part by part, neighbouring leaf rules together."""
    with naming(node.label):
        todo = node.parts(state)
    done: list[OptState] = []
    while todo:
        stages = _leading_stages(todo)
        if stages:
            run_stages = run_grouped if stages[0].max_grouped else run_rules
            updates, new = run_stages(stages, updates, params, extra_args)
        else:
            with naming_all(todo[0].owners):
                updates, state = todo[0].node.step(updates, todo[0].state, params, extra_args)
            new = [state]
        done += new
        todo = todo[len(new) :]
    return updates, node.join(done)


def _leading_stages(parts: Sequence[Part]) -> list[Stage]:
    """The leaf rules at the start that can run together."""
    stages: list[Stage] = []
    for part in parts:
        node = part.node
        if not (isinstance(node, Rule) and isinstance(node.spec, LeafRule)):
            break
        stage = Stage(node.call, node.spec, part.state, part.owners, node.max_grouped)
        if stages and stages[0].max_grouped != stage.max_grouped:
            break
        stages.append(stage)
    return stages


class Inner(GradientTransformationExtraArgs):
    """The transformation that a wrapper wraps, as the wrapper calls it."""

    __slots__ = ()

    @classmethod
    def of(cls, node: Node) -> Self:
        """A transformation that runs a node as it is, compiled by itself where it can be."""
        return cls._around(node, node.start, node.update)

    @classmethod
    def _around(
        cls,
        node: Node,
        start: Callable[[Params], OptState],
        advance: Callable[..., tuple[Updates, OptState]],
    ) -> Self:
        def update(
            updates: Updates, state: OptState, params: Params | None = None, **extra_args: object
        ) -> tuple[Updates, OptState]:
            return advance(updates, state, params, extra_args)

        def init(params: Params) -> OptState:
            return start(params)

        update.node = init.node = node  # type: ignore[attr-defined]
        return cls(init, update)


class Enclosed(Inner):
    """The same in compiled code: a pytree of its node, which is pure."""

    __slots__ = ()
    is_operand = True

    @classmethod
    def of(cls, node: Node) -> Self:
        """A transformation that runs a pure node in the midst of compiled code."""
        return cls._around(
            node, functools.partial(_init_inside, node), functools.partial(run, node)
        )


def _init_inside(node: Node, params: Params) -> OptState:
    with naming(node.label):
        return node.init(params)


jax.tree_util.register_pytree_node(
    Enclosed,
    lambda pair: ((pair.init.node,), None),  # type: ignore[attr-defined]
    lambda _, children: Enclosed.of(children[0]),
)


class Rule(Node):
    """A leaf rule, or a rule for whole trees, with its hyperparameters and what it wraps."""

    max_grouped: int = 0

    def __init__(self, call: Call) -> None:
        arguments = call.arguments
        parameters = call.factory.parameters
        wrapped = [name for name, each in parameters.items() if each.is_transformation]
        nodes = {
            name: node_of(arguments[name], call.factory.name)
            for name in wrapped
            if arguments[name] is not None
        }
        self.call = in_compiled_code(call).with_operands()
        self.inner = nodes
        self.label = call.factory.name
        compiled = not isinstance(self.spec, TreeRule) or self.spec.compiled
        self.pure = compiled and all(node.pure for node in nodes.values())
        if nodes:
            self.call = self.call.replace(**self._enclosing(nodes))
            del self.spec
        self.takes_extra_args = bool(self.spec.extra_names) or bool(nodes)

    def _enclosing(self, nodes: dict[str, Node]) -> dict[str, "Inner"]:
        """What it wraps, as it calls it, by argument."""
        kind = Enclosed if self.pure else Inner
        return {name: kind.of(node) for name, node in nodes.items()}

    @functools.cached_property
    def spec(self) -> LeafRule | TreeRule:
        spec: LeafRule | TreeRule = self.call.build()
        return spec

    @functools.cached_property
    def inner(self) -> dict[str, Node]:
        """The nodes of what it wraps, by argument."""
        found = {k: x for k, x in self.call.arguments.items() if isinstance(x, Enclosed)}
        return {name: node_of(pair, self.label) for name, pair in found.items()}

    @property
    def children(self) -> Sequence[Node]:
        return tuple(self.inner.values())

    @functools.cached_property
    def has_schedules(self) -> bool:
        return bool(self._user_schedules()) or super().has_schedules

    @functools.cached_property
    def extra_names(self) -> frozenset[str]:
        return self.spec.extra_names | super().extra_names

    @functools.cached_property
    def takes_params(self) -> bool:
        return bool(self.max_grouped) or self.spec.takes_params or super().takes_params

    def _user_schedules(self) -> dict[str, Any]:
        parameters = self.call.factory.parameters
        return {
            name: value
            for name, value in self.call.arguments.items()
            if parameters[name].schedulable and is_users_schedule(value)
        }

    def init(self, params: Params) -> OptState:
        if isinstance(self.spec, LeafRule) and self.max_grouped:
            return init_grouped(self.spec, params, self.max_grouped)
        return self.spec.init(params)

    def grouped(self, max_size: int) -> Node:
        copy = Rule.__new__(Rule)
        copy.label, copy.pure, copy.takes_extra_args = self.label, self.pure, self.takes_extra_args
        copy.call, copy.inner = self.call, {k: n.grouped(max_size) for k, n in self.inner.items()}
        if isinstance(self.spec, LeafRule):
            copy.max_grouped = max_size
        elif copy.inner:
            copy.call = self.call.replace(**self._enclosing(copy.inner))
        return copy

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        assert isinstance(self.spec, TreeRule)  # leaf rules run together, by run_rules
        if not self.inner:
            extra_args = {k: x for k, x in extra_args.items() if k in self.spec.extra_names}
        return self.spec.update(updates, state, params, **extra_args)

    def resolve(self, state: OptState | None) -> Node:
        if not self.has_schedules:
            return self
        count = None if state is None else self._count(state)
        values: dict[str, Any] = {
            name: EvaluatedSchedule(0.0 if count is None else schedule(count))
            for name, schedule in self._user_schedules().items()
        }
        for name, node in self.inner.items():
            values[name] = Enclosed.of(node.resolve(self._inner_state(state)))
        return _unflatten_rule((self.label, self.max_grouped), [self.call.replace(**values)])

    def _count(self, state: OptState) -> Any:
        """The count at which schedules are evaluated; None if there are none."""
        if not self._user_schedules():
            return None
        count = self.spec.count if isinstance(self.spec, TreeRule) else attrgetter("count")
        try:
            return count(state)
        except AttributeError:
            raise TreeMismatchError(
                f"a scheduled hyperparameter needs a count in the state; got {shown(state)}. "
                "Was it made by another init?"
            ) from None

    def _inner_state(self, state: OptState | None) -> OptState | None:
        if state is None or not isinstance(self.spec, TreeRule):
            return None
        return self.spec.inner_state(state)

    def learning_rate(self, state: OptState) -> Any:
        for node in self.inner.values():
            return node.learning_rate(self._inner_state(state))
        rate = self.call.arguments.get("learning_rate")
        return rate(state.count) if callable(rate) else rate  # type: ignore[attr-defined]

    def params_owners(self) -> tuple[str, ...]:
        return (self.label,) if self.spec.needs_params else super().params_owners()


def _flatten_rule(rule: Rule) -> tuple[tuple[Call], tuple[str, int]]:
    return (rule.call,), (rule.label, rule.max_grouped)


def _unflatten_rule(aux: tuple[str, int], children: Sequence[Call]) -> Rule:
    rule = object.__new__(Rule)
    rule.call, (rule.label, rule.max_grouped) = children[0], aux
    return rule


jax.tree_util.register_pytree_node(Rule, _flatten_rule, _unflatten_rule)


class Foreign(Node):
    """A transformation that is not made of our rules: called as it is."""

    pure = False

    def __init__(self, transformation: GradientTransformation) -> None:
        self.transformation = transformation
        self.label = type(transformation).__name__
        self.takes_extra_args = isinstance(transformation, GradientTransformationExtraArgs)

    def init(self, params: Params) -> OptState:
        return self.transformation.init(params)

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        if isinstance(self.transformation, GradientTransformationExtraArgs):
            return self.transformation.update(updates, state, params, **extra_args)
        return self.transformation.update(updates, state, params)


def node_of(transformation: object, where: str) -> Node:
    """The node behind a transformation.

    Args:
      transformation: A pair of ``init`` and ``update``, ours or the user's.
      where: What it was passed to, for the error.

    Returns:
      Its node; a `Foreign` one if it is not ours.

    Raises:
      NotATransformationError: If it has no ``init`` and ``update`` to call.
    """
    init, update = (getattr(transformation, name, None) for name in ("init", "update"))
    if not callable(init) or not callable(update):
        raise NotATransformationError(
            f"{where} takes gradient transformations, such as adam(1e-3); "
            f"got {shown(transformation)}."
        )
    node, other = (getattr(function, "node", None) for function in (init, update))
    if node is other and isinstance(node, Node):
        return node
    return Foreign(transformation)  # type: ignore[arg-type]
