"""The core of gradient processing: types, combining, updating, generic building blocks.

Everything public is here by name; ``tree``, ``tree_utils``, ``projections`` and ``stacking`` are
modules. To write a transformation of your own, start from `rule` and `LeafRule`.
"""

from grad_core import projections, stacking, tree, tree_utils
from grad_core.adding import (
    AddDecayedWeightsState,
    AdditiveWeightDecayState,
    AddNoiseState,
    add_decayed_weights,
    add_noise,
    additive_weight_decay,
)
from grad_core.averaging import (
    EmaState,
    TraceState,
    ema,
    trace,
)
from grad_core.centralizing import (
    centralize,
)
from grad_core.clipping import (
    AdaptiveGradClipState,
    ClipByGlobalNormState,
    ClipState,
    adaptive_grad_clip,
    clip,
    clip_by_block_rms,
    clip_by_global_norm,
    per_example_global_norm_clip,
    per_example_layer_norm_clip,
    unitwise_clip,
    unitwise_norm,
)
from grad_core.combining import (
    chain,
    named_chain,
)
from grad_core.conformance import (
    conformance_of,
    example,
    exempt,
    needs_extra_args,
    promises,
)
from grad_core.constraining import (
    NonNegativeParamsState,
    ZeroNansState,
    keep_params_nonnegative,
    zero_nans,
)
from grad_core.errors import (
    LeafTypeError,
    MissingArgumentError,
    NotATransformationError,
    TransformationError,
    TreeMismatchError,
)
from grad_core.gradients import (
    scale_gradient,
)
from grad_core.hyperparameters import (
    Decay,
    DType,
    Fraction,
    LearningRate,
    NonNegative,
    Real,
    StepSchedule,
)
from grad_core.learning_rates import (
    current_learning_rate,
)
from grad_core.linear_algebra import (
    global_norm,
    matrix_inverse_pth_root,
    nnls,
    power_iteration,
)
from grad_core.masking import (
    MaskOrFn,
    masked,
)
from grad_core.norm_scaling import (
    ScaleByTrustRatioState,
    normalize_by_update_norm,
    scale_by_distance_over_gradients,
    scale_by_param_block_norm,
    scale_by_param_block_rms,
    scale_by_sign,
    scale_by_trust_ratio,
)
from grad_core.numerics import (
    abs_sq,
    safe_divide,
    safe_increment,
    safe_int32_increment,
    safe_norm,
    safe_root_mean_squares,
    safe_sqrt,
    widen,
)
from grad_core.partitioning import (
    MultiTransformState,
    PartitionState,
    multi_transform,
    partition,
)
from grad_core.rules import (
    LeafRule,
    TreeRule,
)
from grad_core.scaling import (
    ScaleByScheduleState,
    ScaleState,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)
from grad_core.schedules import (
    schedule,
)
from grad_core.sharding import state_sharding
from grad_core.stateless import (
    conjugate,
    identity,
    init_empty_state,
    set_to_zero,
    stateless,
    stateless_with_tree_map,
    with_extra_args_support,
)
from grad_core.statistics import (
    SharedNumber,
    copy_of,
    first_moment,
    full_like,
    scalar_dtype,
    second_moment,
    zeros_like,
)
from grad_core.structure import (
    means_no_update,
)
from grad_core.transformations import (
    rule,
    transformation,
)
from grad_core.types import (
    ArrayTree,
    EmptyState,
    GradientTransformation,
    GradientTransformationExtraArgs,
    MaskedNode,
    MaskedState,
    Numeric,
    OptState,
    Params,
    PyTree,
    Scalar,
    ScalarOrSchedule,
    Schedule,
    TransformInitFn,
    TransformUpdateExtraArgsFn,
    TransformUpdateFn,
    Updates,
)
from grad_core.updating import (
    apply_updates,
    incremental_update,
    periodic_update,
)
from grad_core.values import (
    is_factory,
)

__all__ = [
    "AdaptiveGradClipState",
    "AddDecayedWeightsState",
    "AddNoiseState",
    "AdditiveWeightDecayState",
    "ArrayTree",
    "ClipByGlobalNormState",
    "ClipState",
    "DType",
    "Decay",
    "EmaState",
    "EmptyState",
    "Fraction",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "LeafRule",
    "LeafTypeError",
    "LearningRate",
    "MaskOrFn",
    "MaskedNode",
    "MaskedState",
    "MissingArgumentError",
    "MultiTransformState",
    "NonNegative",
    "NonNegativeParamsState",
    "NotATransformationError",
    "Numeric",
    "OptState",
    "Params",
    "PartitionState",
    "PyTree",
    "Real",
    "Scalar",
    "ScalarOrSchedule",
    "ScaleByScheduleState",
    "ScaleByTrustRatioState",
    "ScaleState",
    "Schedule",
    "SharedNumber",
    "StepSchedule",
    "TraceState",
    "TransformInitFn",
    "TransformUpdateExtraArgsFn",
    "TransformUpdateFn",
    "TransformationError",
    "TreeMismatchError",
    "TreeRule",
    "Updates",
    "ZeroNansState",
    "abs_sq",
    "adaptive_grad_clip",
    "add_decayed_weights",
    "add_noise",
    "additive_weight_decay",
    "apply_updates",
    "centralize",
    "chain",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "conformance_of",
    "conjugate",
    "copy_of",
    "current_learning_rate",
    "ema",
    "example",
    "exempt",
    "first_moment",
    "full_like",
    "global_norm",
    "identity",
    "incremental_update",
    "init_empty_state",
    "is_factory",
    "keep_params_nonnegative",
    "masked",
    "matrix_inverse_pth_root",
    "means_no_update",
    "multi_transform",
    "named_chain",
    "needs_extra_args",
    "nnls",
    "normalize_by_update_norm",
    "partition",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "periodic_update",
    "power_iteration",
    "projections",
    "promises",
    "rule",
    "safe_divide",
    "safe_increment",
    "safe_int32_increment",
    "safe_norm",
    "safe_root_mean_squares",
    "safe_sqrt",
    "scalar_dtype",
    "scale",
    "scale_by_distance_over_gradients",
    "scale_by_learning_rate",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_schedule",
    "scale_by_sign",
    "scale_by_trust_ratio",
    "scale_gradient",
    "schedule",
    "second_moment",
    "set_to_zero",
    "stacking",
    "state_sharding",
    "stateless",
    "stateless_with_tree_map",
    "trace",
    "transformation",
    "tree",
    "tree_utils",
    "unitwise_clip",
    "unitwise_norm",
    "widen",
    "with_extra_args_support",
    "zero_nans",
    "zeros_like",
]
