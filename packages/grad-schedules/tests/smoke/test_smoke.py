"""grad_schedules, installed alone, works. Only pytest and grad_schedules may be imported here."""

import pytest

import grad_schedules


@pytest.mark.parametrize(("count", "value"), [(0, 1.0), (5, 0.5), (10, 0.0), (20, 0.0)])
def test_linear_schedule(count: int, value: float) -> None:
    schedule = grad_schedules.linear_schedule(init_value=1.0, end_value=0.0, transition_steps=10)
    assert float(schedule(count)) == pytest.approx(value)
