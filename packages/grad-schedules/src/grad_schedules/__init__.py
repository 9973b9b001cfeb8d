"""Schedules: hyperparameters as functions of the step count.

Every schedule takes the step as a Python, NumPy or JAX number or as an array of steps, inside and
outside compiled code, and works on every element. Steps count from 0.

Counts have one meaning throughout: `warmup_steps` is the length of the warm-up, `decay_steps` that
of the whole schedule, warm-up and cooldown included, and `cooldown_steps` that of its end.
"""

from grad_schedules.arithmetic import clipped, scaled, shifted
from grad_schedules.constant import constant_schedule
from grad_schedules.cosine import cosine_decay_schedule, warmup_cosine_decay_schedule
from grad_schedules.cyclic import cyclic_schedule
from grad_schedules.exponential import exponential_decay, warmup_exponential_decay_schedule
from grad_schedules.injecting import (
    InjectHyperparamsState,
    InjectStatefulHyperparamsState,
    inject_hyperparams,
    inject_stateful_hyperparams,
)
from grad_schedules.inverse_sqrt import warmup_inverse_sqrt_schedule
from grad_schedules.joining import join_schedules, sgdr_schedule
from grad_schedules.k_decay import k_decay_schedule
from grad_schedules.onecycle import cosine_onecycle_schedule, linear_onecycle_schedule
from grad_schedules.piecewise import piecewise_constant_schedule, piecewise_interpolate_schedule
from grad_schedules.plotting import plot
from grad_schedules.polynomial import (
    linear_schedule,
    polynomial_schedule,
    warmup_constant_schedule,
    warmup_linear_decay_schedule,
)
from grad_schedules.rex import rex_schedule
from grad_schedules.stable import power_schedule, warmup_stable_decay_schedule
from grad_schedules.stairs import multistep_schedule, step_schedule
from grad_schedules.stateful import StatefulSchedule, WrappedSchedule

__all__ = [
    "InjectHyperparamsState",
    "InjectStatefulHyperparamsState",
    "StatefulSchedule",
    "WrappedSchedule",
    "clipped",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "cyclic_schedule",
    "exponential_decay",
    "inject_hyperparams",
    "inject_stateful_hyperparams",
    "join_schedules",
    "k_decay_schedule",
    "linear_onecycle_schedule",
    "linear_schedule",
    "multistep_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "plot",
    "polynomial_schedule",
    "power_schedule",
    "rex_schedule",
    "scaled",
    "sgdr_schedule",
    "shifted",
    "step_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
    "warmup_inverse_sqrt_schedule",
    "warmup_linear_decay_schedule",
    "warmup_stable_decay_schedule",
]
