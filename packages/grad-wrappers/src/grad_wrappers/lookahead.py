"""Lookahead: k steps forward, one step back.

A fast copy x of the parameters is optimized as usual. Every k updates, a slow copy s makes one step
of size a towards where that led, and the fast copy starts again from there:

    s' = s + a (x - s),    x' = s'.

Gradients are taken at the fast copy; the slow one is for evaluation.
"""

from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    GradientTransformation,
    OptState,
    Params,
    Real,
    TreeMismatchError,
    TreeRule,
    Updates,
    apply_updates,
    copy_of,
    example,
    rule,
    scale_by_learning_rate,
)
from grad_core.rules import in_compute_precision
from grad_wrappers._leaves import map_rows, zero_count


class LookaheadParams(NamedTuple):
    """The fast parameters, at which gradients are taken, and the slow ones, for evaluation."""

    fast: Params
    slow: Params

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Fast and slow parameters that are equal, in buffers of their own.

        Example:
          >>> from grad_wrappers import LookaheadParams
          >>> LookaheadParams.init_synced(1.0)
          LookaheadParams(fast=1.0, slow=Array(1., dtype=float32))
        """
        return cls(fast=params, slow=jax.tree.map(copy_of, params))


class LookaheadState(NamedTuple):
    """The fast optimizer's state, and the updates since fast and slow parameters were equal."""

    fast_state: OptState
    steps_since_sync: jax.Array


class LookaheadPlainState(NamedTuple):
    """A `LookaheadState`, with the slow parameters where the user has the fast ones alone."""

    fast_state: OptState
    steps_since_sync: jax.Array
    slow: Params


@example(scale_by_learning_rate(0.1), 2, 0.5)
@rule
def lookahead(
    fast_optimizer: GradientTransformation,
    sync_period: int,
    slow_step_size: Real,
    reset_state: bool = False,
) -> TreeRule:
    """Every k updates moves slow parameters towards the fast: s' = s + a (x - s), and x' = s'.

    Parameters may be plain ones, or pairs `LookaheadParams`. Plain ones are the fast parameters;
    the slow are kept in the state, as its field ``slow``, and after each k-th update both are
    equal. With pairs, gradients have the structure of the fast parameters, and updates are pairs.

    Costs the bytes of the parameters, in the state or in the pair.

    Args:
      fast_optimizer: The transformation of the fast parameters; it makes the whole step.
      sync_period: The number k of updates from one slow step to the next.
      slow_step_size: The size a of the slow step, 0.5 for instance; 1 leaves the fast ones alone.
      reset_state: Whether each slow step starts the fast optimizer's state anew.

    Returns:
      A transformation whose state is a `LookaheadState` for pairs, a `LookaheadPlainState` for
      plain parameters. Its ``update`` needs the parameters.

    Raises:
      ValueError: If `sync_period` is not positive.
      TreeMismatchError: By ``update``, if the state was made for pairs, and the parameters are
        plain.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import lookahead
      >>> tx = lookahead(scale(-1.0), sync_period=2, slow_step_size=0.5)
      >>> params = 8.0
      >>> state = tx.init(params)
      >>> for _ in range(2):  # 8, 7, 6; then half of the way from 8 to 6
      ...     updates, state = tx.update(1.0, state, params)
      ...     params = apply_updates(params, updates)
      >>> float(params), float(state.slow)
      (7.0, 7.0)

    Reference:
      Zhang et al., Lookahead optimizer: k steps forward, 1 step back, 2019, algorithm 1.
    """
    if sync_period < 1:
        raise ValueError(f"lookahead: sync_period must be >= 1; got {sync_period}.")

    def init(params: Params) -> OptState:
        if isinstance(params, LookaheadParams):
            return LookaheadState(fast_optimizer.init(params.fast), zero_count())
        slow = jax.tree.map(copy_of, params)
        return LookaheadPlainState(fast_optimizer.init(params), zero_count(), slow)

    def update(
        updates: Updates, state: Any, params: Params, **extra_args: object
    ) -> tuple[Updates, OptState]:
        fast, slow = _fast_and_slow(params, state)
        updates, fast_state = fast_optimizer.update(updates, state.fast_state, fast, **extra_args)
        is_due = state.steps_since_sync == sync_period - 1

        def synced(u: jax.Array, x: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
            g, x, s_new = map(in_compute_precision, (u, x, s))
            s_new = jnp.where(is_due, s_new + slow_step_size * (x + g - s_new), s_new)
            return jnp.where(is_due, s_new - x, g).astype(u.dtype), s_new.astype(s.dtype)

        updates, new_slow = map_rows(synced, updates, fast, {"slow": slow})
        if reset_state:
            first = fast_optimizer.init(apply_updates(fast, updates))
            fast_state = jax.tree.map(lambda a, b: jnp.where(is_due, a, b), first, fast_state)
        steps = jnp.where(is_due, 0, state.steps_since_sync + 1)
        state = state._replace(fast_state=fast_state, steps_since_sync=steps)
        if isinstance(state, LookaheadPlainState):
            state = state._replace(slow=new_slow)
        if isinstance(params, LookaheadParams):
            updates = LookaheadParams(updates, _difference(updates, new_slow, slow))
        return updates, state

    return TreeRule(update, init, needs_params=True, inner_state=attrgetter("fast_state"))


def _fast_and_slow(params: Params, state: Any) -> tuple[Params, Params]:
    if isinstance(params, LookaheadParams):
        return params.fast, params.slow
    if isinstance(state, LookaheadPlainState):
        return params, state.slow
    raise TreeMismatchError(
        "the state was made by init(LookaheadParams(...)), but update got plain params; give pairs "
        "to both, or plain parameters to both."
    )


def _difference(updates: Updates, new: Params, old: Params) -> Updates:
    """The updates from old to new; where there is no update, what says so."""

    def subtract(u: jax.Array, b: jax.Array, a: jax.Array) -> tuple[jax.Array, jax.Array]:
        return (in_compute_precision(b) - in_compute_precision(a)).astype(a.dtype), a

    return map_rows(subtract, updates, new, {"slow": old})[0]
