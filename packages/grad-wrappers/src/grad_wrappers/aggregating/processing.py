"""Running an aggregator between what comes before it and what comes after."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from grad_core import (
    Decay,
    GradientTransformation,
    GradientTransformationExtraArgs,
    OptState,
    Params,
    Updates,
    chain,
    example,
    identity,
    transformation,
    with_extra_args_support,
)
from grad_core import tree as trees
from grad_wrappers.aggregating.averages import average_per_element_updates
from grad_wrappers.aggregating.elements import (
    AggregatedUpdates,
    Aggregator,
    PerElementUpdates,
)
from grad_wrappers.aggregating.moments import (
    get_per_element_mean_and_sum_sq_diff_grads,
    track_per_element_mean_and_variance_with_ema,
)


@example(identity(), average_per_element_updates(), identity())
@transformation
def process(
    preprocessor: GradientTransformation,
    aggregator: GradientTransformation,
    postprocessor: GradientTransformation,
    aggregator_has_aux: bool = False,
) -> Aggregator | GradientTransformationExtraArgs:
    """What comes before aggregation, the aggregation, and what comes after.

    Where the aggregator's state says whether it is ``ready``, as those that accumulate do, the
    third runs only when it is; until then, updates are zero and its state stays.

    Args:
      preprocessor: A transformation of the updates of elements.
      aggregator: An `Aggregator`, or a gradient transformation if there are no elements.
      postprocessor: A transformation of the aggregated updates: the optimizer.
      aggregator_has_aux: Whether the aggregator returns a pair in place of updates: the updates,
        and a dict of extra arguments for the third.

    Returns:
      An aggregator, or a gradient transformation if `aggregator` is one.

    Example:
      >>> import grad_core, jax.numpy as jnp
      >>> from grad_wrappers.aggregating import average_incrementally_updates, process
      >>> tx = process(
      ...     grad_core.clip(2.0), average_incrementally_updates(0, 2), grad_core.trace(0.9)
      ... )
      >>> state = tx.init(0.0)
      >>> for g in (jnp.array([1.0, 9.0]), jnp.array([1.0, 0.0])):
      ...     updates, state = tx.update(g, state)
      >>> updates
      Array(1., dtype=float32)
    """
    before, between, after = (
        with_extra_args_support(each).update for each in (preprocessor, aggregator, postprocessor)
    )

    def init(params: Params) -> tuple[OptState, OptState, OptState]:
        parts = (preprocessor, aggregator, postprocessor)
        return tuple(part.init(params) for part in parts)  # type: ignore[return-value]

    def update(
        updates: PerElementUpdates, states: Any, params: Any = None, **extra_args: object
    ) -> tuple[AggregatedUpdates, OptState]:
        first, second, third = states
        updates, first = before(updates, first, params, **extra_args)
        aggregated, second = between(updates, second, params, **extra_args)
        aux: dict[str, Any] = {}
        if aggregator_has_aux:
            aggregated, aux = aggregated  # type: ignore[misc]

        def run() -> tuple[Updates, OptState]:
            return after(aggregated, third, params, **{**extra_args, **aux})

        def wait() -> tuple[Updates, OptState]:
            return jax.tree.map(jnp.zeros_like, aggregated), third

        ready = trees.get(second, "ready", True)
        updates, third = _either(ready, run, wait)
        return updates, (first, second, third)

    kind = Aggregator if isinstance(aggregator, Aggregator) else GradientTransformationExtraArgs
    return kind(init, update)


def _either(condition: Any, then: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
    """`jax.lax.cond`, but where the condition is known, what users wrote sees concrete values."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, then, otherwise)
    return then() if condition else otherwise()


@example(identity())
@transformation
def add_mean_variance_to_opt(
    opt: GradientTransformation,
    ema_decay: Decay = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: int = 1,
) -> Aggregator:
    """An optimizer that averages over elements, and tracks their mean and variance.

    Args:
      opt: The optimizer, of the mean gradients.
      ema_decay: The decay of the moving averages of mean and variance, in [0, 1].
      per_elt_axis: The axis of elements, or several.
      accumulation_steps: The number of batches to average over before the optimizer runs.

    Returns:
      An aggregator; `get_unbiased_mean_and_variance_ema` reads its state.

    Raises:
      ValueError: If `accumulation_steps` < 1.

    Example:
      >>> import grad_core, jax.numpy as jnp
      >>> from grad_wrappers.aggregating import add_mean_variance_to_opt
      >>> tx = add_mean_variance_to_opt(grad_core.scale(-0.5))
      >>> tx.update(jnp.array([1.0, 2.0, 6.0]), tx.init(0.0))[0]
      Array(-1.5, dtype=float32)
    """
    moments = get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps)
    tracked = chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt)
    return Aggregator(*process(identity(), moments, tracked, aggregator_has_aux=True))
