"""Schedules: hyperparameters as functions of the step count.

Every schedule takes the step as a Python, NumPy or JAX number or as an array of steps, inside and
outside compiled code, and works on every element. Steps count from 0.
"""

from grad_schedules.constant import constant_schedule
from grad_schedules.cosine import cosine_decay_schedule, warmup_cosine_decay_schedule
from grad_schedules.exponential import exponential_decay
from grad_schedules.polynomial import (
    linear_schedule,
    polynomial_schedule,
    warmup_constant_schedule,
)

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "exponential_decay",
    "linear_schedule",
    "polynomial_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
]
