"""grad_losses, installed alone, works. Only pytest and grad_losses may be imported here."""

import pytest

import grad_losses


def test_l2_loss_is_half_the_squared_error() -> None:
    assert float(grad_losses.l2_loss(3.0, 1.0)) == pytest.approx(2.0)
