"""Transformations of gradients lead downhill."""

import inspect

import grad_core
from grad_testing.checking import TransformationSubject, require, sample
from grad_testing.problems import (
    Problem,
    minimise,
    quadratic,
    stochastic_least_squares,
    valley,
)

__all__ = ["decreases_convex_loss", "decreases_nonconvex_loss", "decreases_stochastic_loss"]

SMALL = 0.01


def decreases_convex_loss(subject: TransformationSubject) -> None:
    """The loss of a convex problem decreases.

    A transformation with a learning rate makes steps, which are taken as they are. What others make
    of a gradient is taken for a direction, and multiplied by -0.01.
    """
    _require_descent(subject, quadratic())


def decreases_nonconvex_loss(subject: TransformationSubject) -> None:
    """The loss of a problem that is not convex decreases; steps as for the convex one."""
    _require_descent(subject, valley())


def decreases_stochastic_loss(subject: TransformationSubject) -> None:
    """The loss over all data decreases in steps on parts of them; steps as for the convex one."""
    _require_descent(subject, stochastic_least_squares())


def _require_descent(subject: TransformationSubject, problem: Problem) -> None:
    makes_steps = _makes_steps(subject)
    tx = subject.tx if makes_steps else grad_core.chain(subject.tx, grad_core.scale(-SMALL))
    before, after = minimise(problem, tx, tuple(subject.conformance.extra_args))
    require(
        after < 0.999 * before,
        f"{subject.name}: in {problem.steps} steps, the loss of the {problem.name} should "
        f"decrease, but went from {before:g} to {after:g}",
    )


def _makes_steps(subject: TransformationSubject) -> bool:
    if "learning_rate" in inspect.signature(subject.factory).parameters:
        return True
    try:
        grad_core.current_learning_rate(subject.tx, subject.tx.init(sample()[0]))
    except ValueError:
        return False
    return True
