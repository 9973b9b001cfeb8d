"""Wrappers around gradient transformations: accumulation, conditions, averaging and the like."""

from grad_wrappers.accumulating import (
    ApplyEvery,
    MultiSteps,
    MultiStepsState,
    ShouldSkipUpdateFunction,
    apply_every,
    skip_large_updates,
    skip_not_finite,
)
from grad_wrappers.averaging import (
    ParamsEmaState,
    ParamsLawaState,
    ParamsSwaState,
    averaged_params,
    params_ema,
    params_lawa,
    params_swa,
)
from grad_wrappers.conditional import (
    ApplyIfFiniteState,
    ConditionallyMaskState,
    ConditionallyTransformState,
    ConditionFn,
    MaybeUpdateState,
    apply_if_finite,
    conditionally_mask,
    conditionally_transform,
    maybe_update,
)
from grad_wrappers.flattening import flatten
from grad_wrappers.freezing import freeze, selective_transform
from grad_wrappers.grouping import grouped
from grad_wrappers.lookahead import LookaheadParams, LookaheadPlainState, LookaheadState, lookahead
from grad_wrappers.microbatching import (
    AccumulationType,
    Accumulator,
    micro_grad,
    micro_vmap,
    microbatch,
    reshape_batch_axis,
)
from grad_wrappers.monitoring import (
    MonitorState,
    SnapshotState,
    measure_with_ema,
    monitor,
    snapshot,
)
from grad_wrappers.precision import (
    KahanSummationState,
    MasterWeightsState,
    StochasticRoundingState,
    kahan_summation,
    master_weights,
    stochastic_rounding,
)

__all__ = [
    "AccumulationType",
    "Accumulator",
    "ApplyEvery",
    "ApplyIfFiniteState",
    "ConditionFn",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "KahanSummationState",
    "LookaheadParams",
    "LookaheadPlainState",
    "LookaheadState",
    "MasterWeightsState",
    "MaybeUpdateState",
    "MonitorState",
    "MultiSteps",
    "MultiStepsState",
    "ParamsEmaState",
    "ParamsLawaState",
    "ParamsSwaState",
    "ShouldSkipUpdateFunction",
    "SnapshotState",
    "StochasticRoundingState",
    "apply_every",
    "apply_if_finite",
    "averaged_params",
    "conditionally_mask",
    "conditionally_transform",
    "flatten",
    "freeze",
    "grouped",
    "kahan_summation",
    "lookahead",
    "master_weights",
    "maybe_update",
    "measure_with_ema",
    "micro_grad",
    "micro_vmap",
    "microbatch",
    "monitor",
    "params_ema",
    "params_lawa",
    "params_swa",
    "reshape_batch_axis",
    "selective_transform",
    "skip_large_updates",
    "skip_not_finite",
    "snapshot",
    "stochastic_rounding",
]
