"""Schedules, at steps before, in and after everything that happens in them."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from parity.cases import Bound, Case, Family, call, case
from parity.coverage import public

STEPS = (*range(61), 79, 80, 81, 99, 100, 101, 1000)
UP = call("linear_schedule", 0.0, 1.0, 10)
DOWN = call("cosine_decay_schedule", 1.0, 40, alpha=0.1)
CYCLE: dict[str, Any] = {"peak_value": 1.0, "warmup_steps": 10, "decay_steps": 40}
BENT = {**CYCLE, "init_value": 0.2, "exponent": 2.0}


def names() -> Iterable[str]:
    """The factories of schedules in grad-schedules."""
    import grad_schedules
    from grad_testing import schedule_factories

    factories = schedule_factories(grad_schedules)
    return public(grad_schedules, lambda name, x: any(x is each for each in factories))


def values(bound: Bound, dtype: str) -> Any:
    """The schedule at each step, counts being int32 as they are in states."""
    schedule = bound()
    return {"values": jnp.stack([jnp.asarray(schedule(jnp.int32(i)), dtype) for i in STEPS])}


CASES: list[Case] = [
    case("constant_schedule", 0.1),
    case("constant_schedule", -2),
    case("constant_schedule", 0.0),
    case("linear_schedule", 0.1, 1.0, 40),
    case("linear_schedule", 1.0, 0.0, 30, transition_begin=20),
    case("linear_schedule", -0.5, 0.5, 7, 3),
    case("polynomial_schedule", 1.0, 0.1, 2.0, 40),
    case("polynomial_schedule", 0.0, 1.0, 0.5, 33, transition_begin=11),
    case("polynomial_schedule", 3.0, -1.0, 3, 80),
    case("exponential_decay", 1.0, 10, 0.9),
    case("exponential_decay", 0.5, 7, 0.8, transition_begin=5, staircase=True),
    case("exponential_decay", 1.0, 20, 0.5, end_value=0.05),
    case("exponential_decay", 0.1, 30, 1.1, end_value=0.3),
    case("cosine_decay_schedule", 1.0, 50),
    case("cosine_decay_schedule", 0.3, 80, alpha=0.2, exponent=2.0),
    case("cosine_decay_schedule", 2.0, 33, 0.5, 0.7),
    case("piecewise_constant_schedule", 1.0),
    case("piecewise_constant_schedule", 1.0, {10: 0.5, 30: 0.1}),
    case("piecewise_constant_schedule", -0.2, boundaries_and_scales={5: 2.0, 50: 0.0}),
    case("piecewise_interpolate_schedule", "linear", 1.0, {10: 0.5, 30: 0.1}),
    case("piecewise_interpolate_schedule", "cosine", 2.0, boundaries_and_scales={20: 2.0, 60: 0.3}),
    case("piecewise_interpolate_schedule", "linear", 0.1, {40: 0.0}),
    case("join_schedules", [UP, DOWN], [10]),
    case("join_schedules", [UP, DOWN, call("constant_schedule", 0.3)], boundaries=[10, 55]),
    case("join_schedules", [DOWN], []),
    case("sgdr_schedule", [{**CYCLE, "init_value": 0.0}] * 2),
    case(
        "sgdr_schedule",
        [
            {**CYCLE, "init_value": 0.1, "end_value": 0.2},
            {**CYCLE, "init_value": 0.2, "exponent": 2.0},
        ],
    ),
    case("sgdr_schedule", cosine_kwargs=[{**CYCLE, "init_value": 1.0}]),
    case("warmup_constant_schedule", 0.0, 1.0, 10),
    case("warmup_constant_schedule", 0.5, 0.1, 33),
    case("warmup_constant_schedule", 0.0, -1.0, 80),
    case("warmup_cosine_decay_schedule", 0.0, 1.0, 10, 60),
    case("warmup_cosine_decay_schedule", 0.1, 2.0, 20, 80, end_value=0.3),
    case("warmup_cosine_decay_schedule", 0.0, 0.3, 5, 50, 0.01, exponent=1.5),
    case("warmup_exponential_decay_schedule", 0.0, 1.0, 10, 20, 0.5),
    case(
        "warmup_exponential_decay_schedule",
        0.1,
        1.0,
        5,
        10,
        0.9,
        transition_begin=7,
        staircase=True,
    ),
    case("warmup_exponential_decay_schedule", 0.0, 0.5, 20, 15, 0.7, end_value=0.2),
    case("cosine_onecycle_schedule", 60, 1.0),
    case("cosine_onecycle_schedule", 80, 0.5, pct_start=0.4, div_factor=10.0),
    case("cosine_onecycle_schedule", 50, 2.0, final_div_factor=100.0),
    case("linear_onecycle_schedule", 60, 1.0),
    case("linear_onecycle_schedule", 80, 0.5, pct_start=0.4, pct_final=0.9, div_factor=10.0),
    case("linear_onecycle_schedule", 100, 2.0, 0.2, 0.7, final_div_factor=100.0),
]
FAMILY = Family(names, CASES, values, bounds={"float32": 1e-6, "float64": 1e-6})
