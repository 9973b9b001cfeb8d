"""Losses: their derivatives, in every mode, are slopes of their values and of their gradients."""

from typing import Any

import numpy as np

from grad_testing.checking import require_close
from grad_testing.loss_subject import LossSubject
from grad_testing.tolerances import Tolerance

__all__ = [
    "gradients_are_slopes",
    "second_derivatives_are_slopes",
    "tangents_are_slopes",
]


def _close(got: Any, want: Any, what: str, rtol: float = 1e-6) -> None:
    scale = max(1.0, float(np.max(np.abs(want), initial=0.0)))
    require_close(got, want, what, Tolerance(rtol, rtol * scale))


def gradients_are_slopes(subject: LossSubject) -> None:
    """Gradients by reverse mode are slopes of the value in double precision."""
    weights = subject.weights(subject.value.shape)
    for name, gradient in subject.derivatives.gradients.items():
        got = np.vdot(gradient, subject.directions[name])
        want = np.sum(weights * subject.slopes[name].value)
        _close(got, want, f"the gradient of {subject.name} by {name}, against the slope")


def tangents_are_slopes(subject: LossSubject) -> None:
    """Derivatives by forward mode are slopes of the value in double precision."""
    what = f"the tangent of {subject.name}, against the slope"
    _close(subject.derivatives.tangent, subject.slopes[""].value, what)


def second_derivatives_are_slopes(subject: LossSubject) -> None:
    """Second derivatives are slopes of gradients, forward over reverse and reverse over reverse."""
    found = subject.derivatives
    for name in subject.reals:
        slope = subject.slopes[""].gradients[name]
        what = f"the second derivative of {subject.name} by {name}"
        _close(found.forward_over_reverse[name], slope, f"{what}, forward over reverse")
        _close(found.reverse_over_reverse[name], slope, f"{what}, reverse over reverse")
