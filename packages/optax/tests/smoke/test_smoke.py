"""optax, installed from wheels, takes a step. Only pytest and optax may be imported here."""

import pytest

import optax


def test_first_step_of_adam() -> None:
    """Bias correction makes Adam's first step the learning rate times the gradient's sign."""
    optimizer = optax.adam(learning_rate=0.1)
    params = {"w": 1.0}
    updates, _ = optimizer.update({"w": 5.0}, optimizer.init(params), params)
    params = optax.apply_updates(params, updates)
    assert float(params["w"]) == pytest.approx(0.9, rel=1e-5)


def test_losses_are_reached_by_their_dotted_path() -> None:
    assert float(optax.losses.l2_loss(3.0, 1.0)) == pytest.approx(2.0)
