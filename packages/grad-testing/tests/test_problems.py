"""The problems can be solved, and the tolerances are ordered."""

import numpy as np
import pytest

import grad_core
from grad_testing import tolerance_for, transformation_factories
from grad_testing.problems import minimise, quadratic, stochastic_least_squares, valley


@pytest.mark.parametrize("problem", [quadratic, valley, stochastic_least_squares])
def test_descent_solves_the_problem(problem) -> None:
    before, after = minimise(problem(), grad_core.scale(-0.05))
    assert after < 0.1 * before


@pytest.mark.parametrize("problem", [quadratic, valley, stochastic_least_squares])
def test_ascent_makes_it_worse(problem) -> None:
    before, after = minimise(problem(), grad_core.scale(0.01))
    assert not after < before


def test_valley_is_not_convex() -> None:
    import jax

    loss = valley().full_loss
    hessian = jax.hessian(lambda v: loss({"x": v[:1], "y": v[1:]}))(np.array([0.0, 1.0]))
    assert np.linalg.eigvalsh(hessian).min() < 0


def test_tolerances_grow_with_coarseness() -> None:
    dtypes = ("float64", "float32", "float16", "bfloat16")
    rtols = [tolerance_for(dtype, "cpu").rtol for dtype in dtypes]
    assert rtols == sorted(rtols)
    assert tolerance_for("complex64", "cpu") == tolerance_for("float32", "cpu")


def test_factories_are_found_once_and_schedules_are_left_out() -> None:
    found = transformation_factories(grad_core)
    assert grad_core.scale in found
    assert grad_core.with_extra_args_support in found
    assert grad_core.rule not in found
    assert found.count(grad_core.partition) == 1  # also known as multi_transform
