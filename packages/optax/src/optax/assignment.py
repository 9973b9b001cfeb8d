"""Assignment problems."""

from grad_losses import (
    base_hungarian_algorithm,
    hungarian_algorithm,
)

__all__ = [
    "base_hungarian_algorithm",
    "hungarian_algorithm",
]
