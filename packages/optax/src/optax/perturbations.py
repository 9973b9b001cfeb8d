"""Differentiable functions of discrete ones, by perturbing their inputs."""

from grad_estimators.perturbations import (
    Gumbel,
    Normal,
    make_perturbed_fun,
)

__all__ = [
    "Gumbel",
    "Normal",
    "make_perturbed_fun",
]
