"""Monte-Carlo gradient estimators, control variates and perturbations.

Importing this package does not import distrax: the functions that need it import it on first use.
"""

from grad_estimators import perturbations
from grad_estimators.arm import (
    arm_jacobians,
    arm_surrogate,
    disarm_jacobians,
    disarm_surrogate,
)
from grad_estimators.control_variates import (
    ControlVariate,
    control_delta_method,
    moving_avg_baseline,
)
from grad_estimators.coupled_sampling import antithetic, quasi_monte_carlo
from grad_estimators.dice import (
    dice_jacobians,
    dice_objective,
    dice_surrogate,
    magic_box,
)
from grad_estimators.enumeration import enumeration_jacobians, enumeration_surrogate
from grad_estimators.evolution import (
    centered_ranks,
    evolution_strategies_jacobians,
    evolution_strategies_surrogate,
)
from grad_estimators.leave_one_out import rloo_jacobians, rloo_surrogate
from grad_estimators.measure_valued import measure_valued_jacobians, measure_valued_surrogate
from grad_estimators.moments import JacobianMoments, jacobian_moments
from grad_estimators.normal import multi_normal
from grad_estimators.pathwise import pathwise_jacobians, pathwise_surrogate
from grad_estimators.rebar import rebar_jacobians, rebar_surrogate
from grad_estimators.relax import relax_jacobians, relax_surrogate
from grad_estimators.relaxation import (
    gumbel_softmax_jacobians,
    gumbel_softmax_surrogate,
    straight_through_jacobians,
    straight_through_surrogate,
)
from grad_estimators.score_function import score_function_jacobians, score_function_surrogate
from grad_estimators.variance_reduction import (
    control_variates_jacobians,
    control_variates_surrogate,
    estimate_control_variate_coefficients,
)
from grad_estimators.vimco import vimco_jacobians, vimco_surrogate
from grad_estimators.weak_derivatives import WeakDerivative, register_weak_derivatives

__all__ = [
    "ControlVariate",
    "JacobianMoments",
    "WeakDerivative",
    "antithetic",
    "arm_jacobians",
    "arm_surrogate",
    "centered_ranks",
    "control_delta_method",
    "control_variates_jacobians",
    "control_variates_surrogate",
    "dice_jacobians",
    "dice_objective",
    "dice_surrogate",
    "disarm_jacobians",
    "disarm_surrogate",
    "enumeration_jacobians",
    "enumeration_surrogate",
    "estimate_control_variate_coefficients",
    "evolution_strategies_jacobians",
    "evolution_strategies_surrogate",
    "gumbel_softmax_jacobians",
    "gumbel_softmax_surrogate",
    "jacobian_moments",
    "magic_box",
    "measure_valued_jacobians",
    "measure_valued_surrogate",
    "moving_avg_baseline",
    "multi_normal",
    "pathwise_jacobians",
    "pathwise_surrogate",
    "perturbations",
    "quasi_monte_carlo",
    "rebar_jacobians",
    "rebar_surrogate",
    "register_weak_derivatives",
    "relax_jacobians",
    "relax_surrogate",
    "rloo_jacobians",
    "rloo_surrogate",
    "score_function_jacobians",
    "score_function_surrogate",
    "straight_through_jacobians",
    "straight_through_surrogate",
    "vimco_jacobians",
    "vimco_surrogate",
]
