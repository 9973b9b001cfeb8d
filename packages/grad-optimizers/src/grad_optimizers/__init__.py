"""The named optimizers: one family a module, from its equations to its alias."""

from grad_optimizers.adam import ScaleByAdamState, adam, adamw, scale_by_adam
from grad_optimizers.lion import ScaleByLionState, lion, scale_by_lion
from grad_optimizers.sgd import sgd

__all__ = [
    "ScaleByAdamState",
    "ScaleByLionState",
    "adam",
    "adamw",
    "lion",
    "scale_by_adam",
    "scale_by_lion",
    "sgd",
]
