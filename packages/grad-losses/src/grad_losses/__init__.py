"""Losses: one value per example (never reduced over the batch), differentiable twice.

Every loss is computed in at least float32 and returned in the dtype of its input.
"""

from grad_losses.classification import (
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
)
from grad_losses.regression import huber_loss, l2_loss, squared_error

__all__ = [
    "huber_loss",
    "l2_loss",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
]
