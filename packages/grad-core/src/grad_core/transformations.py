"""The decorators that make public factories: `transformation` and `rule`."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from grad_core.errors import naming
from grad_core.nodes import Node, Rule, node_of
from grad_core.rules import LeafRule, TreeRule
from grad_core.types import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)
from grad_core.values import Call, Remembering, publish

P = ParamSpec("P")
T = TypeVar("T", bound=GradientTransformation)


class InitFn(Remembering):
    """The ``init`` of a transformation that a public factory made."""

    role = "init"

    def __init__(self, call: Call, node: Node) -> None:
        super().__init__(call)
        self.node = node

    def __call__(self, params: Params) -> OptState:
        return self.node.start(params)


class UpdateFn(Remembering):
    """The ``update`` of a transformation that a public factory made."""

    role = "update"

    def __init__(self, call: Call, node: Node) -> None:
        super().__init__(call)
        self.node = node

    def __call__(
        self,
        /,
        updates: Updates,
        state: OptState,
        params: Params | None = None,
        **extra_args: object,
    ) -> tuple[Updates, OptState]:
        return self.node.update(updates, state, params, extra_args)


def transformation(body: Callable[P, T]) -> Callable[P, T]:
    """Makes what a factory returns a value: printed, compared, hashed, pickled by its call.

    The body may build on other factories, or return a plain pair of functions. Its numeric
    arguments are checked against the ranges that its annotations tell.

    Example:
      >>> import grad_core
      >>> @grad_core.transformation
      ... def clipped_descent(
      ...     learning_rate: grad_core.LearningRate,
      ... ) -> grad_core.GradientTransformationExtraArgs:
      ...     return grad_core.chain(
      ...         grad_core.clip_by_global_norm(1.0),
      ...         grad_core.scale_by_learning_rate(learning_rate),
      ...     )
      >>> clipped_descent(0.1)
      clipped_descent(learning_rate=0.1)
    """

    def finish(call: Call) -> T:
        with naming(call.factory.name):
            made = call.build()
        node = node_of(made, call.factory.name).labelled(call.factory.name)
        pair: T = made._make((InitFn(call, node), UpdateFn(call, node)))  # of its own class
        return pair

    return publish(body, finish)


def rule(body: Callable[P, LeafRule | TreeRule]) -> Callable[P, GradientTransformation]:
    """Makes a factory of transformations from a function that returns a `LeafRule`.

    Where the update cannot be told leaf by leaf, it returns a `TreeRule`.

    The body may run more than once, also with traced numbers, so it must not branch on the value of
    a numeric argument; what it may branch on (flags, names, None) is static.

    Example:
      >>> import grad_core, jax.numpy as jnp
      >>> @grad_core.rule
      ... def soften(strength: grad_core.NonNegative = 1.0) -> grad_core.LeafRule:
      ...     return grad_core.LeafRule(lambda g: jnp.tanh(strength * g) / strength)
      >>> tx = soften(2.0)
      >>> updates, state = tx.update({"w": jnp.array([0.0])}, tx.init({"w": jnp.array([1.0])}))
      >>> updates
      {'w': Array([0.], dtype=float32)}
    """

    def finish(call: Call) -> GradientTransformation:
        return transformation_of(Rule(call), call)

    public = publish(body, finish)
    public.__annotations__ = {**body.__annotations__, "return": GradientTransformation}
    return public


def transformation_of(node: Node, call: Call) -> GradientTransformation:
    """A transformation that runs `node` and remembers `call`."""
    kind = GradientTransformationExtraArgs if node.takes_extra_args else GradientTransformation
    return kind(InitFn(call, node), UpdateFn(call, node))


class _NodeFn:
    """``init`` or ``update`` of a node, inside the body of a `transformation`."""

    def __init__(self, node: Node, run: Callable[..., object]) -> None:
        self.node = node
        self.run = run

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self.run(*args, **kwargs)


def from_node(node: Node) -> GradientTransformationExtraArgs:
    """A plain pair that runs `node`; a decorated factory returns it."""
    return GradientTransformationExtraArgs(_NodeFn(node, node.start), _NodeFn(node, node.update))  # type: ignore[arg-type]
