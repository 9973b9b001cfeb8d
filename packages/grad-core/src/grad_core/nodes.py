"""How transformations run: nodes, and the one compiled function that carries them out.

Behind every transformation stands a `Node`. A *pure* node does only what our own rules do, and all
of it, however deeply chained, runs as one compiled call; inside, neighbouring leaf rules are fused.
What users wrote (schedules, masks, conditions, transformations) is called between such calls, with
concrete values if there are any. Nodes are pytrees whose leaves are the hyperparameters, so that
transformations that differ in numbers only share an executable.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from grad_core.errors import (
    MissingArgumentError,
    NotATransformationError,
    TreeMismatchError,
    naming,
    shown,
)
from grad_core.hyperparameters import EvaluatedSchedule, is_users_schedule
from grad_core.rules import ExtraArgs, LeafRule, Stage, TreeRule, naming_all, run_rules
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
      has_schedules: Whether a user's schedule must be called before each update.
      takes_extra_args: Whether its transformation is a `GradientTransformationExtraArgs`.
      extra_names: The extra arguments that compiled code needs.
      size: The number of its `parts`.
    """

    label: str = ""
    pure: bool = True
    has_schedules: bool = False
    takes_extra_args: bool = False
    extra_names: frozenset[str] = frozenset()
    size: int = 1

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

    def learning_rate(self, state: OptState) -> Any:
        """The learning rate of the next update, or None; by label where there are several."""
        return None

    def params_owners(self) -> tuple[str, ...]:
        """Whose part needs the parameters, from the inside out; () if none does."""
        return ()

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
        return _update(node, updates, state, params if self.needs_params else None, asked)

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
            updates, new = run_rules(stages, updates, params, extra_args)
        else:
            with naming_all(todo[0].owners):
                updates, state = todo[0].node.step(updates, todo[0].state, params, extra_args)
            new = [state]
        done += new
        todo = todo[len(new) :]
    return updates, node.join(done)


def _leading_stages(parts: Sequence[Part]) -> list[Stage]:
    stages = []
    for part in parts:
        node = part.node
        if not (isinstance(node, Rule) and isinstance(node.spec, LeafRule)):
            break
        stages.append(Stage(node.call, node.spec, part.state, part.owners))
    return stages


class Rule(Node):
    """A leaf rule, or a rule for whole trees, with its hyperparameters."""

    def __init__(self, call: Call) -> None:
        self.call = in_compiled_code(call).with_operands()
        self.label = call.factory.name
        self.extra_names = self.spec.extra_names
        self.takes_extra_args = bool(self.extra_names)
        self.has_schedules = bool(self._user_schedules())

    @functools.cached_property
    def spec(self) -> LeafRule | TreeRule:
        spec: LeafRule | TreeRule = self.call.build()
        return spec

    def _user_schedules(self) -> dict[str, Any]:
        parameters = self.call.factory.parameters
        return {
            name: value
            for name, value in self.call.arguments.items()
            if parameters[name].schedulable and is_users_schedule(value)
        }

    def init(self, params: Params) -> OptState:
        return self.spec.init(params)

    def step(
        self, updates: Updates, state: OptState, params: Params | None, extra_args: ExtraArgs
    ) -> tuple[Updates, OptState]:
        assert isinstance(self.spec, TreeRule)  # leaf rules run together, by run_rules
        asked = {k: x for k, x in extra_args.items() if k in self.spec.extra_names}
        return self.spec.update(updates, state, params, **asked)

    def resolve(self, state: OptState | None) -> Node:
        if not self.has_schedules:
            return self
        count = None if state is None else getattr(state, "count", None)
        if count is None and state is not None:
            raise TreeMismatchError(
                f"a scheduled hyperparameter needs a count in the state; got {shown(state)}. "
                "Was it made by another init?"
            )
        values = {
            name: EvaluatedSchedule(0.0 if count is None else schedule(count))
            for name, schedule in self._user_schedules().items()
        }
        return _unflatten_rule(self.label, [self.call.replace(**values)])

    def learning_rate(self, state: OptState) -> Any:
        rate = self.call.arguments.get("learning_rate")
        return rate(state.count) if callable(rate) else rate  # type: ignore[attr-defined]

    def params_owners(self) -> tuple[str, ...]:
        return (self.label,) if self.spec.needs_params else ()


def _flatten_rule(rule: Rule) -> tuple[tuple[Call], str]:
    return (rule.call,), rule.label


def _unflatten_rule(label: str, children: Sequence[Call]) -> Rule:
    rule = object.__new__(Rule)
    rule.call, rule.label = children[0], label
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
