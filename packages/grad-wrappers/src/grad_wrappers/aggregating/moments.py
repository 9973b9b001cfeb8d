"""The mean and the variance of the elements of a batch, of several batches, and over time.

Mean m and sum of squared deviations s are accumulated over batches of k elements. From those of the
t-th batch, with delta = m_t - m (Chan, Golub and LeVeque)::

    m' = m + delta / t
    s' = s + s_t + |delta|^2 k (t - 1) / t
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    LeafRule,
    MissingArgumentError,
    OptState,
    Params,
    TreeRule,
    Updates,
    exempt,
    needs_extra_args,
    rule,
    safe_increment,
    transformation,
)
from grad_core import tree as trees
from grad_wrappers.aggregating.elements import (
    Aggregator,
    PerElementUpdates,
    axes_of,
    check_steps,
    get_batch_size_from_per_elt_updates,
    is_there,
    mean_over,
    real_zeros,
    wide_zeros,
)


class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """The same, with the sum of squared deviations from the mean of all elements so far."""

    micro_step: jax.Array
    ready: jax.Array
    mean_grads: Updates
    sum_sq_diff_grads: Updates


class PerElementMeanAndVarianceEMAState(NamedTuple):
    """Exponential moving averages of mean and variance, not debiased, and their decay."""

    count: jax.Array  # type: ignore[assignment]  # tuple.count
    ema_decay: jax.Array
    mean_grads_ema: Updates
    variance_grads_ema: Updates


def _moments(g: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The mean over elements, and the sum of squared deviations from it."""
    mean = mean_over(g, axes, keepdims=True)
    deviations = g.astype(mean.dtype) - mean
    return mean.squeeze(axes), jnp.sum(jnp.real(deviations * jnp.conj(deviations)), axes)


def _merged(
    moments: tuple[jax.Array, jax.Array], mean: jax.Array, sum_sq: jax.Array, t: Any, size: int
) -> tuple[jax.Array, jax.Array]:
    """Mean and sum of squared deviations of all elements, of the last of t microbatches too."""
    delta = moments[0] - mean
    between = jnp.real(delta * jnp.conj(delta)) * (size * (t - 1) / t)
    return mean + delta / t, sum_sq + moments[1] + between


@rule
def _moments_of_elements(axes: tuple[int, ...], steps: int) -> TreeRule:
    State = PerElementMeanAndSumSqDiffGradsState

    def init(params: Params) -> PerElementMeanAndSumSqDiffGradsState:
        means, squares = jax.tree.map(wide_zeros, params), jax.tree.map(real_zeros, params)
        return State(jnp.zeros([], jnp.int32), jnp.zeros([], bool), means, squares)

    def update(
        updates: PerElementUpdates, state: PerElementMeanAndSumSqDiffGradsState, params: Params
    ) -> tuple[Any, PerElementMeanAndSumSqDiffGradsState]:
        size = get_batch_size_from_per_elt_updates(updates, axes)
        t = state.micro_step + 1
        ready = t >= steps

        def merge(mean: jax.Array, sum_sq: jax.Array, g: Any) -> Any:
            if not is_there(g):
                return g, g, mean, sum_sq
            mean, sum_sq = _merged(_moments(g, axes), mean, sum_sq, t, size)
            out = jnp.where(ready, mean, 0).astype(g.dtype), jnp.where(ready, sum_sq, 0)
            return *out, jnp.where(ready, 0, mean), jnp.where(ready, 0, sum_sq)

        merged = jax.tree.map(merge, state.mean_grads, state.sum_sq_diff_grads, updates)
        mean, sum_sq, *kept = _unzipped(merged, state.mean_grads, 4)
        count = jnp.where(ready, jnp.int32(size * steps), 0)
        aux = {"sum_sq_diff_grads": sum_sq, "sample_size": count}
        return (mean, aux), State(jnp.where(ready, 0, t), ready, *kept)

    def update_at_once(
        updates: PerElementUpdates, state: OptState, params: Params
    ) -> tuple[Any, OptState]:
        size = get_batch_size_from_per_elt_updates(updates, axes)
        moments = jax.tree.map(lambda g: _moments(g, axes), updates)
        mean, sum_sq = _unzipped(moments, updates, 2)
        mean = trees.cast_like(mean, updates)
        return (mean, {"sum_sq_diff_grads": sum_sq, "sample_size": jnp.int32(size)}), state

    return TreeRule(update_at_once) if steps == 1 else TreeRule(update, init)


def _unzipped(tree: Any, like: Any, count: int) -> list[Any]:
    """A tree of tuples as that many trees."""
    treedef: Any = jax.tree.structure(like)
    rows = treedef.flatten_up_to(tree)
    return [treedef.unflatten([row[k] for row in rows]) for k in range(count)]


@transformation
def get_per_element_mean_and_sum_sq_diff_grads(
    per_elt_axis: int | Sequence[int] = 0, accumulation_steps: int = 1
) -> Aggregator:
    """Mean and sum of squared deviations over the elements of every k batches.

    The ``update`` of this aggregator returns a pair in place of the updates: the mean, and a dict
    with ``sum_sq_diff_grads``, a tree like it, and ``sample_size``, the number of elements. Between
    two means, all of it is zero. `process` passes the dict on as extra arguments.

    Args:
      per_elt_axis: The axis of elements, or several.
      accumulation_steps: k, at least 1.

    Returns:
      An aggregator, without state if k = 1.

    Raises:
      ValueError: If k < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from grad_wrappers.aggregating import get_per_element_mean_and_sum_sq_diff_grads
      >>> tx = get_per_element_mean_and_sum_sq_diff_grads()
      >>> (mean, aux), _ = tx.update(jnp.array([1.0, 2.0, 6.0]), tx.init(0.0))
      >>> mean.item(), aux["sum_sq_diff_grads"].item(), aux["sample_size"].item()
      (3.0, 14.0, 3)

    Reference:
      Chan, Golub and LeVeque, Updating formulae and a pairwise algorithm for computing sample
      variances, 1979.
    """
    owner = "get_per_element_mean_and_sum_sq_diff_grads"
    check_steps(owner, accumulation_steps)
    return Aggregator(*_moments_of_elements(axes_of(owner, per_elt_axis), accumulation_steps))


class MovingAverageState(NamedTuple):
    """The moving average."""

    average: Updates


@rule
def moving_average(decay: Decay) -> LeafRule:
    """Keeps the moving average a' = decay * a + (1 - decay) * g, and leaves updates as they are."""

    def step(g: jax.Array, average: jax.Array) -> tuple[jax.Array, jax.Array]:
        return g, decay * average + (1 - decay) * g

    return LeafRule(step, MovingAverageState, average=wide_zeros)


def _like(updates: Updates, tree: Any) -> Any:
    """A number in place of each update, if `tree` is a number; else the tree."""
    if not jax.tree_util.all_leaves([tree]):
        return tree
    return jax.tree.map(lambda g: jnp.full(jnp.shape(g), tree) if is_there(g) else None, updates)


_NO_DESCENT = "it leaves updates as they are, and losses have no such extra arguments"


@exempt("decreases_convex_loss", reason=_NO_DESCENT)
@exempt("decreases_nonconvex_loss", reason=_NO_DESCENT)
@exempt("decreases_stochastic_loss", reason=_NO_DESCENT)
@needs_extra_args(sum_sq_diff_grads=2.0, sample_size=3)
@rule
def track_per_element_mean_and_variance_with_ema(ema_decay: Decay = 0.9) -> TreeRule:
    """Keeps moving averages of the mean and variance of elements; leaves updates as they are.

    With b for `ema_decay`, s for ``sum_sq_diff_grads`` and n for ``sample_size``, which are extra
    arguments of ``update``::

        m' = b m + (1 - b) g
        v' = b v + (1 - b) s / (n - 1)

    Args:
      ema_decay: b, in [0, 1].

    Returns:
      A transformation whose state `get_unbiased_mean_and_variance_ema` reads.

    Raises:
      ValueError: From ``update``, if an extra argument is missing.

    Example:
      >>> from grad_wrappers.aggregating import track_per_element_mean_and_variance_with_ema
      >>> tx = track_per_element_mean_and_variance_with_ema(0.5)
      >>> _, state = tx.update(3.0, tx.init(0.0), sum_sq_diff_grads=14.0, sample_size=3)
      >>> state.mean_grads_ema.item(), state.variance_grads_ema.item()
      (1.5, 3.5)
    """
    State = PerElementMeanAndVarianceEMAState

    def init(params: Params) -> PerElementMeanAndVarianceEMAState:
        means, variances = jax.tree.map(wide_zeros, params), jax.tree.map(real_zeros, params)
        return State(
            jnp.zeros([], jnp.int32), jnp.asarray(ema_decay, jnp.float32), means, variances
        )

    def update(
        updates: Updates,
        state: PerElementMeanAndVarianceEMAState,
        params: Params,
        sum_sq_diff_grads: Any = None,
        sample_size: Any = None,
    ) -> tuple[Updates, PerElementMeanAndVarianceEMAState]:
        if sum_sq_diff_grads is None or sample_size is None:
            raise MissingArgumentError(
                "update() needs the extra arguments 'sum_sq_diff_grads' and 'sample_size', which "
                "get_per_element_mean_and_sum_sq_diff_grads makes: combine the two with process."
            )
        average = moving_average(state.ema_decay)
        degrees = jnp.maximum(sample_size - 1, 1)
        squares = _like(updates, sum_sq_diff_grads)
        variance = jax.tree.map(lambda s: s / degrees, squares)
        kept: list[Any] = [
            average.update(x, MovingAverageState(ema))[1]
            for x, ema in ((updates, state.mean_grads_ema), (variance, state.variance_grads_ema))
        ]
        return updates, State(
            safe_increment(state.count), state.ema_decay, *(each.average for each in kept)
        )

    return TreeRule(update, init, extra_names=("sum_sq_diff_grads", "sample_size"))


def get_unbiased_mean_and_variance_ema(state: OptState) -> tuple[Updates, Updates]:
    """Mean and variance of elements from a state: m / (1 - b^t) and v / (1 - b^t).

    Args:
      state: The state of an optimizer, with the state of
        `track_per_element_mean_and_variance_with_ema` anywhere in it.

    Returns:
      Trees like the parameters; of zeros before the first update.

    Raises:
      ValueError: If there is no such state, or several.

    Example:
      >>> import grad_core, jax.numpy as jnp
      >>> from grad_wrappers.aggregating import (
      ...     add_mean_variance_to_opt,
      ...     get_unbiased_mean_and_variance_ema,
      ... )
      >>> tx = add_mean_variance_to_opt(grad_core.scale(-0.1))
      >>> _, state = tx.update(jnp.array([1.0, 2.0, 6.0]), tx.init(0.0))
      >>> mean, variance = get_unbiased_mean_and_variance_ema(state)
      >>> round(mean.item(), 3), round(variance.item(), 3)
      (3.0, 7.0)
    """

    def is_ours(x: object) -> bool:
        return isinstance(x, PerElementMeanAndVarianceEMAState)

    found = [x for x in jax.tree.leaves(state, is_leaf=is_ours) if is_ours(x)]
    if len(found) != 1:
        raise ValueError(
            "get_unbiased_mean_and_variance_ema: the state must have one "
            f"PerElementMeanAndVarianceEMAState in it, and has {len(found)}; see "
            "add_mean_variance_to_opt."
        )
    count, decay, means, variances = found[0]
    weight = -jnp.expm1(count * jnp.log(decay))  # 1 - b^t, and NaN where b = t = 0
    weight = jnp.where((count > 0) & (weight > 0), weight, 1)
    unbiased = [jax.tree.map(lambda x: x / weight, tree) for tree in (means, variances)]
    return unbiased[0], unbiased[1]
