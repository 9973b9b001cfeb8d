"""Transformations without state, and adapters to the types."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from grad_core.conformance import example, exempt
from grad_core.rules import LeafRule, TreeRule
from grad_core.structure import flatten, flatten_like, means_no_update
from grad_core.transformations import rule, transformation
from grad_core.types import (
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
)


def init_empty_state(params: Params) -> EmptyState:
    """An `EmptyState`, whatever the parameters: the ``init`` of transformations without state."""
    del params
    return EmptyState()


@exempt("integer_leaves_are_refused", reason="what is not touched may be of any dtype")
@rule
def identity() -> TreeRule:
    """Returns updates as they are, of whatever dtype.

    Returns:
      A transformation without state.

    Example:
      >>> from grad_core import identity
      >>> tx = identity()
      >>> tx.update(2.0, tx.init(0.0))[0]
      Array(2., dtype=float32, weak_type=True)
    """
    return TreeRule(lambda updates, state, params: (updates, state))


@exempt("integer_leaves_are_refused", reason="zero is an update of any dtype")
@exempt("decreases_convex_loss", reason="parameters that do not move do not descend")
@exempt("decreases_nonconvex_loss", reason="parameters that do not move do not descend")
@exempt("decreases_stochastic_loss", reason="parameters that do not move do not descend")
@rule
def set_to_zero() -> TreeRule:
    """Replaces updates by zeros, of whatever dtype: the parameters stay as they are.

    Returns:
      A transformation without state.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_core import set_to_zero
      >>> tx = set_to_zero()
      >>> tx.update({"w": jnp.array([2.0])}, tx.init({"w": jnp.array([0.0])}))[0]
      {'w': Array([0.], dtype=float32)}
    """

    def update(updates: Updates, state: OptState, params: Params) -> tuple[Updates, OptState]:
        zero = jax.tree.map(lambda g: g if means_no_update(g) else jnp.zeros_like(g), updates)
        return zero, state

    return TreeRule(update)


@rule
def conjugate() -> LeafRule:
    """Conjugates complex updates, u = conj(g); real ones stay as they are.

    `jax.grad` of a real loss f by complex parameters z = x + iy returns df/dx - i df/dy, the
    conjugate of the direction in which f grows. With this transformation as the first of a chain,
    any optimizer descends on complex parameters.

    Returns:
      A transformation without state.

    Example:
      >>> import grad_core, jax
      >>> descent = grad_core.chain(grad_core.conjugate(), grad_core.scale(-0.5))
      >>> z = jax.numpy.array(1 + 1j)
      >>> gradient = jax.grad(lambda z: z.real**2 + z.imag**2)(z)
      >>> updates, _ = descent.update(gradient, descent.init(z))
      >>> z + updates
      Array(0.+0.j, dtype=complex64)
    """
    return LeafRule(lambda g: jnp.conj(g))


def _same_updates(updates: Any, params: Any) -> Any:
    return updates


@example(_same_updates)
@exempt("integer_leaves_are_refused", reason="it may be meant for integers: the function decides")
@transformation
def stateless(f: Callable[[Any, Any], Updates]) -> GradientTransformation:
    """A transformation from a function of updates and parameters.

    Args:
      f: ``f(updates, params) -> updates``. It is called as it is, not compiled.

    Returns:
      A transformation without state.

    Example:
      >>> import jax
      >>> from grad_core import stateless
      >>> decay = stateless(lambda g, p: jax.tree.map(lambda g, p: g + 0.5 * p, g, p))
      >>> decay.update({"w": 1.0}, decay.init({"w": 2.0}), {"w": 2.0})[0]
      {'w': 2.0}
    """

    def update(
        updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        return f(updates, params), state

    return GradientTransformation(init_empty_state, update)


@example(_same_updates)
@exempt("integer_leaves_are_refused", reason="it may be meant for integers: the function decides")
@transformation
def stateless_with_tree_map(
    f: Callable[[jax.Array, jax.Array | None], jax.Array],
) -> GradientTransformation:
    """A transformation from a function of one leaf's update and parameter.

    Args:
      f: ``f(g, p) -> u``; `p` is None if ``update`` is called without parameters. It is called as
        it is, not compiled.

    Returns:
      A transformation without state.

    Example:
      >>> from grad_core import stateless_with_tree_map
      >>> decay = stateless_with_tree_map(lambda g, p: g + 0.5 * p)
      >>> decay.update({"w": 1.0}, decay.init({"w": 2.0}), {"w": 2.0})[0]
      {'w': 2.0}
    """

    def update(
        updates: Updates, state: OptState, params: Params | None = None
    ) -> tuple[Updates, OptState]:
        leaves, treedef = flatten(updates)
        parameters = [None] * len(leaves)
        if params is not None:
            parameters = flatten_like(updates, treedef, params, ("updates", "params"))
        pairs = zip(leaves, parameters, strict=True)
        return treedef.unflatten([g if means_no_update(g) else f(g, p) for g, p in pairs]), state

    return GradientTransformation(init_empty_state, update)


def _plain(updates: Updates, state: OptState, params: Params | None = None) -> Any:
    return updates, state


@example(GradientTransformation(init_empty_state, _plain))
@exempt("integer_leaves_are_refused", reason="that is for the transformation it is given to decide")
@transformation
def with_extra_args_support(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """The same transformation, with an ``update`` that takes extra keyword arguments.

    Args:
      tx: Any transformation.

    Returns:
      A transformation that ignores extra arguments, if `tx` does not take them.

    Example:
      >>> from grad_core import GradientTransformation, with_extra_args_support
      >>> tx = GradientTransformation(lambda p: (), lambda g, s, params=None: (g, s))
      >>> with_extra_args_support(tx).update(1.0, (), value=3.0)
      (1.0, ())
    """
    if isinstance(tx, GradientTransformationExtraArgs):
        return tx

    def update(
        updates: Updates, state: OptState, params: Params | None = None, **extra_args: object
    ) -> tuple[Updates, OptState]:
        del extra_args
        return tx.update(updates, state, params)

    return GradientTransformationExtraArgs(tx.init, update)
