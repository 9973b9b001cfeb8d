"""Aggregating gradients of single elements of a batch into one update.

An *aggregator* is a pair like a gradient transformation, but its ``update`` takes the updates of
all elements of a batch, one axis more (or several) than the parameters have, as `jax.vmap` of
`jax.grad` makes them, and returns one of the parameters' shapes. `process` runs what comes before,
an aggregator, and what comes after. Statistics are kept in at least float32.
"""

from grad_wrappers.aggregating.averages import (
    AccumulateAvgUpdatesState,
    accumulate_avg_updates,
    average_incrementally_updates,
    average_per_element_updates,
)
from grad_wrappers.aggregating.elements import (
    AggregatedUpdates,
    Aggregator,
    AggregatorUpdateFn,
    MaybeAxis,
    PerElementUpdates,
    get_batch_size_from_per_elt_updates,
)
from grad_wrappers.aggregating.moments import (
    PerElementMeanAndSumSqDiffGradsState,
    PerElementMeanAndVarianceEMAState,
    get_per_element_mean_and_sum_sq_diff_grads,
    get_unbiased_mean_and_variance_ema,
    track_per_element_mean_and_variance_with_ema,
)
from grad_wrappers.aggregating.processing import add_mean_variance_to_opt, process

__all__ = [
    "AccumulateAvgUpdatesState",
    "AggregatedUpdates",
    "Aggregator",
    "AggregatorUpdateFn",
    "MaybeAxis",
    "PerElementMeanAndSumSqDiffGradsState",
    "PerElementMeanAndVarianceEMAState",
    "PerElementUpdates",
    "accumulate_avg_updates",
    "add_mean_variance_to_opt",
    "average_incrementally_updates",
    "average_per_element_updates",
    "get_batch_size_from_per_elt_updates",
    "get_per_element_mean_and_sum_sq_diff_grads",
    "get_unbiased_mean_and_variance_ema",
    "process",
    "track_per_element_mean_and_variance_with_ema",
]
