"""Averages of parameters along the path of training, which often generalise better than its end.

Each wrapper lets the inner transformation make its step, u, and takes p' = p + u into its average:

    params_ema     a' = b a + (1 - b) p', debiased            (exponential moving average)
    params_swa     a' = a + (p' - a) / n, n of them so far    (stochastic weight averaging)
    params_lawa    the mean of the last k checkpoints         (latest weight averaging)

The updates stay as they are. `averaged_params` finds the average in the state of any optimizer with
such a wrapper somewhere in it. The wrapper must make the whole step: p + u, as it sees it, must be
what the parameters become.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    GradientTransformation,
    MaskedNode,
    OptState,
    Params,
    PyTree,
    TreeRule,
    Updates,
    apply_updates,
    copy_of,
    example,
    rule,
    safe_increment,
    scale_by_learning_rate,
    structure,
    zeros_like,
)
from grad_core.rules import compute_dtype
from grad_core.sharing import dispatched_once
from grad_wrappers._leaves import is_inexact, is_low, rounded, zero_count

Tree = TypeVar("Tree")


class ParamsEmaState(NamedTuple):
    """The number of updates, the average in float32 at least, already debiased, the inner state."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    average: Params
    inner_state: OptState


class ParamsSwaState(NamedTuple):
    """The numbers of updates and of checkpoints, their mean in float32 at least, inner state."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    taken: jax.Array
    average: Params
    inner_state: OptState


class ParamsLawaState(NamedTuple):
    """The numbers of updates and of checkpoints, the last of them, newest first, inner state."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    taken: jax.Array
    checkpoints: tuple[Params, ...]
    inner_state: OptState


@example(scale_by_learning_rate(0.1), 0.9)
@rule
def params_ema(inner: GradientTransformation, decay: Decay, debias: bool = True) -> TreeRule:
    """Keeps the exponential moving average of the parameters: a' = a + w (p' - a).

    With `debias` the weight is w = (1 - decay) / (1 - decay^t) at update t, so that a is the
    weighted mean of the t parameters so far; without, w = 1 - decay, and a starts from the first
    parameters.

    Costs 4 bytes a parameter of 32 bits or less, else as many as the parameter.

    Args:
      inner: The transformation to wrap; it makes the whole step.
      decay: The decay, in [0, 1].
      debias: Whether the parameters before the first update count for nothing.

    Returns:
      A transformation whose state is a `ParamsEmaState`; for `averaged_params`. Its ``update``
      needs the parameters.

    Raises:
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import averaged_params, params_ema
      >>> tx = params_ema(scale(-1.0), decay=0.5)
      >>> params = {"w": 3.0}
      >>> state = tx.init(params)
      >>> for _ in range(2):  # w is 2, then 1
      ...     updates, state = tx.update({"w": 1.0}, state, params)
      ...     params = apply_updates(params, updates)
      >>> print(f"{averaged_params(state, params)['w']:.4f}")
      1.3333

    Reference:
      Polyak and Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """

    def init(params: Params) -> ParamsEmaState:
        return ParamsEmaState(zero_count(), _copies(params), inner.init(params))

    def update(
        updates: Updates, state: ParamsEmaState, params: Params, **extra_args: object
    ) -> tuple[Updates, ParamsEmaState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = safe_increment(state.count)
        weight = (1 - decay) / (1 - decay**count) if debias else 1 - decay
        average = _towards(state.average, apply_updates(params, updates), weight)
        return updates, ParamsEmaState(count, average, inner_state)

    return TreeRule(update, init, needs_params=True)


@example(scale_by_learning_rate(0.1))
@rule
def params_swa(inner: GradientTransformation, start: int = 0, every: int = 1) -> TreeRule:
    """Keeps the mean of the parameters after updates start, start + every, start + 2 every, ...

    Costs 4 bytes a parameter of 32 bits or less, else as many as the parameter. Where no checkpoint
    is due, the average is not touched.

    Args:
      inner: The transformation to wrap; it makes the whole step.
      start: The number of updates before the first checkpoint; the parameters before all updates
        do not count.
      every: The number of updates from one checkpoint to the next.

    Returns:
      A transformation whose state is a `ParamsSwaState`; for `averaged_params`. Its ``update``
      needs the parameters.

    Raises:
      ValueError: If `start` is negative, or `every` not positive.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import averaged_params, params_swa
      >>> tx = params_swa(scale(-1.0), start=2)
      >>> params = {"w": 4.0}
      >>> state = tx.init(params)
      >>> for _ in range(3):  # w is 3, then 2, then 1
      ...     updates, state = tx.update({"w": 1.0}, state, params)
      ...     params = apply_updates(params, updates)
      >>> averaged_params(state, params)
      {'w': Array(1.5, dtype=float32)}

    Reference:
      Izmailov et al., Averaging weights leads to wider optima and better generalization, 2018.
    """
    _check_at_least("params_swa", start=(start, 0), every=(every, 1))

    def init(params: Params) -> ParamsSwaState:
        return ParamsSwaState(zero_count(), zero_count(), _copies(params), inner.init(params))

    def update(
        updates: Updates, state: ParamsSwaState, params: Params, **extra_args: object
    ) -> tuple[Updates, ParamsSwaState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = safe_increment(state.count)
        is_due = (count >= start) & ((count - start) % every == 0)
        taken = state.taken + is_due
        average = _mean_if(is_due, taken, state.average, apply_updates(params, updates))
        return updates, ParamsSwaState(count, taken, average, inner_state)

    return TreeRule(update, init, needs_params=True)


@example(scale_by_learning_rate(0.1), 2)
@rule
def params_lawa(inner: GradientTransformation, length: int, every: int = 1) -> TreeRule:
    """Keeps the last `length` parameters after updates every, 2 every, ...; their mean is averaged.

    Costs `length` times the bytes of the parameters: checkpoints keep their dtype, and the mean is
    computed in float32 at least. Where no checkpoint is due, they are not touched.

    Args:
      inner: The transformation to wrap; it makes the whole step.
      length: How many checkpoints to keep.
      every: The number of updates from one checkpoint to the next.

    Returns:
      A transformation whose state is a `ParamsLawaState`; for `averaged_params`. Its ``update``
      needs the parameters.

    Raises:
      ValueError: If `length` or `every` is not positive.
      MissingArgumentError: By ``update``, without parameters.

    Example:
      >>> from grad_core import apply_updates, scale
      >>> from grad_wrappers import averaged_params, params_lawa
      >>> tx = params_lawa(scale(-1.0), length=2)
      >>> params = {"w": 4.0}
      >>> state = tx.init(params)
      >>> for _ in range(3):  # w is 3, then 2, then 1
      ...     updates, state = tx.update({"w": 1.0}, state, params)
      ...     params = apply_updates(params, updates)
      >>> averaged_params(state, params)
      {'w': Array(1.5, dtype=float32)}

    Reference:
      Kaddour, Stop wasting my time! Saving days of ImageNet and BERT training with latest weight
      averaging, 2022.
    """
    _check_at_least("params_lawa", length=(length, 1), every=(every, 1))

    def init(params: Params) -> ParamsLawaState:
        checkpoints = tuple(_kept(zeros_like, params) for _ in range(length))
        return ParamsLawaState(zero_count(), zero_count(), checkpoints, inner.init(params))

    def update(
        updates: Updates, state: ParamsLawaState, params: Params, **extra_args: object
    ) -> tuple[Updates, ParamsLawaState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = safe_increment(state.count)
        is_due = count % every == 0
        checkpoints = _push_if(is_due, state.checkpoints, apply_updates(params, updates))
        return updates, ParamsLawaState(count, state.taken + is_due, checkpoints, inner_state)

    return TreeRule(update, init, needs_params=True)


def averaged_params(state: OptState, params: Tree) -> Tree:
    """The average of the parameters that `params_ema`, `params_swa` or `params_lawa` keeps.

    It is found through any nesting: chains, masks, partitions (one average for each part of the
    parameters), other wrappers.

    Args:
      state: The state of the whole optimizer.
      params: The current parameters. They stand where there is no average (leaves that are masked
        out, all leaves before the first checkpoint), and tell the dtypes.

    Returns:
      A tree like `params`, of their dtypes.

    Raises:
      ValueError: If the state has no average, or two of one parameter.
      TreeMismatchError: If `params` are not those that the state was made for.

    Example:
      >>> from grad_core import chain, clip, masked, scale
      >>> from grad_wrappers import averaged_params, params_ema
      >>> tx = chain(clip(1.0), masked(params_ema(scale(-0.1), 0.99), {"a": True, "b": False}))
      >>> params = {"a": 1.0, "b": 2.0}
      >>> averaged_params(tx.init(params), params)
      {'a': Array(1., dtype=float32), 'b': 2.0}
    """
    found = _averaging_states(state)
    if not found:
        raise ValueError(
            "averaged_params: this state holds no average of parameters; wrap the optimizer in "
            "params_ema, params_swa or params_lawa, and give the state that its update returned."
        )
    leaves, treedef = structure.flatten(params)
    columns = [_beside(params, treedef, each) for each in found]
    merged = [
        _one_of([column[i] for column in columns], p, lambda i=i: structure.leaf_paths(params)[i])
        for i, p in enumerate(leaves)
    ]
    averaged: Tree = treedef.unflatten(merged)
    return averaged


_AVERAGING = (ParamsEmaState, ParamsSwaState, ParamsLawaState)


def _averaging_states(state: OptState) -> list[Any]:
    """All states of averaging wrappers in a state, from the outside in."""
    outer = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, _AVERAGING))
    found = [each for each in outer if isinstance(each, _AVERAGING)]
    return [x for each in found for x in (each, *_averaging_states(each.inner_state))]


def _beside(params: Params, treedef: Any, state: Any) -> list[Any]:
    """Its average of each parameter; a `MaskedNode` where it has none."""
    average = _mean_of_last(state) if isinstance(state, ParamsLawaState) else state.average
    column = structure.flatten_like(params, treedef, average, ("params", "the average"))
    if isinstance(state, ParamsEmaState):
        return column
    leaves = treedef.flatten_up_to(params)
    return [
        a if structure.is_absent(a) else jnp.where(state.taken > 0, a, p)
        for a, p in zip(column, leaves, strict=True)
    ]


def _mean_of_last(state: ParamsLawaState) -> Params:
    length = len(state.checkpoints)
    number = jnp.clip(state.taken, 1, length)

    def mean(*checkpoints: jax.Array) -> jax.Array:
        wide = [c.astype(compute_dtype(c)) for c in checkpoints]
        return sum(wide[1:], wide[0]) / number.astype(jnp.finfo(wide[0].dtype).dtype)  # type: ignore[no-untyped-call]

    return jax.tree.map(mean, *state.checkpoints)  # those not yet taken are zeros


def _one_of(averages: Sequence[Any], p: Any, path: Any) -> Any:
    there = [a for a in averages if not structure.is_absent(a)]
    if len(there) > 1:
        raise ValueError(
            f"averaged_params: there are {len(there)} averages of "
            f"{structure.where('params', path())}; give the part of the state that holds one."
        )
    return there[0].astype(jnp.result_type(p)) if there else p


def _check_at_least(factory: str, **arguments: tuple[int, int]) -> None:
    for name, (value, least) in arguments.items():
        if value < least:
            raise ValueError(f"{factory}: {name} must be at least {least}; got {value}.")


def _kept(first: Any, params: Params) -> Params:
    """A first value for each parameter that can be averaged."""
    return jax.tree.map(lambda p: first(p) if is_inexact(p) else MaskedNode(), params)


def _copies(params: Params) -> Params:
    return _kept(lambda p: copy_of(p, compute_dtype(p)), params)


def _towards(average: Params, params: Params, weight: Any) -> Params:
    """A + weight (p - a) where there is an a."""

    def move(a: Any, p: Any) -> Any:
        if structure.is_absent(a):
            return a
        wide = rounded(p.astype(jnp.float32), p.dtype) if is_low(p) else p  # as it will be
        return (a + weight * (wide - a)).astype(a.dtype)

    return _map_beside(move, average, params)


def _map_beside(fn: Any, average: PyTree, params: Params) -> PyTree:
    leaves, treedef = structure.flatten(average)
    beside = structure.flatten_like(average, treedef, params, ("state.average", "params"))
    return treedef.unflatten([fn(*pair) for pair in zip(leaves, beside, strict=True)])


@dispatched_once
def _mean_if(is_due: Any, number: Any, average: Params, params: Params) -> Params:
    return jax.lax.cond(
        is_due, lambda: _towards(average, params, 1 / jnp.maximum(number, 1)), lambda: average
    )


@dispatched_once
def _push_if(is_due: Any, checkpoints: tuple[Params, ...], params: Params) -> tuple[Params, ...]:
    """The newest in front of the others, the oldest dropped."""

    def keep(c: Any, p: Any) -> Any:
        return c if structure.is_absent(c) else jnp.asarray(p, c.dtype)

    newest = _map_beside(keep, checkpoints[0], params)
    pushed: tuple[Params, ...] = jax.lax.cond(
        is_due, lambda: (newest, *checkpoints[:-1]), lambda: checkpoints
    )
    return pushed
