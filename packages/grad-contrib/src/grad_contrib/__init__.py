"""Contributed gradient transformations, one a module."""

from grad_contrib._matrices import MuonDimensionNumbers
from grad_contrib.acprop import (
    acprop,
    scale_by_acprop,
)
from grad_contrib.ademamix import (
    ScaleByAdemamixState,
    ademamix,
    scale_by_ademamix,
)
from grad_contrib.adopt import (
    adopt,
    scale_by_adopt,
)
from grad_contrib.cocob import (
    COCOBState,
    cocob,
    scale_by_cocob,
)
from grad_contrib.dadapt import (
    DAdaptAdamWState,
    dadapt_adamw,
)
from grad_contrib.dog import (
    DoGState,
    DoWGState,
    dog,
    dowg,
)
from grad_contrib.galore import (
    GaLoreDimensionNumbers,
    GaLoreState,
    galore,
    scale_by_galore,
)
from grad_contrib.madgrad import (
    MadgradState,
    madgrad,
    scale_by_madgrad,
)
from grad_contrib.mechanize import (
    MechanicState,
    mechanize,
)
from grad_contrib.momo import (
    MomoAdamState,
    MomoState,
    momo,
    momo_adam,
)
from grad_contrib.muon import MuonState, muon, scale_by_muon
from grad_contrib.privacy import (
    DifferentiallyPrivateAggregateState,
    differentially_private_aggregate,
    dpsgd,
)
from grad_contrib.prodigy import (
    ProdigyState,
    prodigy,
)
from grad_contrib.reduce_on_plateau import (
    ReduceLROnPlateauState,
    reduce_on_plateau,
)
from grad_contrib.sam import (
    NormalizeState,
    SAMState,
    normalize,
    sam,
)
from grad_contrib.schedule_free import (
    ScheduleFreeState,
    schedule_free,
    schedule_free_adamw,
    schedule_free_eval_params,
    schedule_free_sgd,
)
from grad_contrib.simplified_ademamix import (
    ScaleBySimplifiedAdEMAMixState,
    scale_by_simplified_ademamix,
    simplified_ademamix,
)
from grad_contrib.sophia import (
    HutchinsonState,
    SophiaState,
    hutchinson_estimator_diag_hessian,
    sophia,
)
from grad_contrib.split_real_and_imaginary import (
    SplitRealAndImaginaryState,
    split_real_and_imaginary,
)

__all__ = [
    "COCOBState",
    "DAdaptAdamWState",
    "DifferentiallyPrivateAggregateState",
    "DoGState",
    "DoWGState",
    "GaLoreDimensionNumbers",
    "GaLoreState",
    "HutchinsonState",
    "MadgradState",
    "MechanicState",
    "MomoAdamState",
    "MomoState",
    "MuonDimensionNumbers",
    "MuonState",
    "NormalizeState",
    "ProdigyState",
    "ReduceLROnPlateauState",
    "SAMState",
    "ScaleByAdemamixState",
    "ScaleBySimplifiedAdEMAMixState",
    "ScheduleFreeState",
    "SophiaState",
    "SplitRealAndImaginaryState",
    "acprop",
    "ademamix",
    "adopt",
    "cocob",
    "dadapt_adamw",
    "differentially_private_aggregate",
    "dog",
    "dowg",
    "dpsgd",
    "galore",
    "hutchinson_estimator_diag_hessian",
    "madgrad",
    "mechanize",
    "momo",
    "momo_adam",
    "muon",
    "normalize",
    "prodigy",
    "reduce_on_plateau",
    "sam",
    "scale_by_acprop",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_cocob",
    "scale_by_galore",
    "scale_by_madgrad",
    "scale_by_muon",
    "scale_by_simplified_ademamix",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
    "simplified_ademamix",
    "sophia",
    "split_real_and_imaginary",
]
