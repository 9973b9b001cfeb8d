"""grad_optimizers, installed alone, takes a step; only it and pytest may be imported here."""

import pytest

import grad_optimizers


def test_first_step_of_adamw() -> None:
    """Bias correction makes the first step a sign: -lr * (g / |g| + weight_decay * p)."""
    optimizer = grad_optimizers.adamw(learning_rate=0.1, weight_decay=0.01)
    params = {"w": 2.0}
    updates, _ = optimizer.update({"w": 3.0}, optimizer.init(params), params)
    assert float(updates["w"]) == pytest.approx(-0.1 * (1.0 + 0.01 * 2.0), rel=1e-5)
