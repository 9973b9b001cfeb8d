"""Wrappers beyond the released ones: parameters of low precision, averages of parameters."""

from grad_wrappers import (
    KahanSummationState,
    LookaheadPlainState,
    MasterWeightsState,
    ParamsEmaState,
    ParamsLawaState,
    ParamsSwaState,
    StochasticRoundingState,
    averaged_params,
    grouped,
    kahan_summation,
    master_weights,
    params_ema,
    params_lawa,
    params_swa,
    stochastic_rounding,
)

__all__ = [
    "KahanSummationState",
    "LookaheadPlainState",
    "MasterWeightsState",
    "ParamsEmaState",
    "ParamsLawaState",
    "ParamsSwaState",
    "StochasticRoundingState",
    "averaged_params",
    "grouped",
    "kahan_summation",
    "master_weights",
    "params_ema",
    "params_lawa",
    "params_swa",
    "stochastic_rounding",
]
