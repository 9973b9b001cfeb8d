"""grad_core, installed alone, does a step. Only pytest and grad_core may be imported here."""

import pytest

import grad_core


def test_chain_of_scales_takes_a_step() -> None:
    tx = grad_core.chain(grad_core.scale(2.0), grad_core.scale(-0.25))
    params = {"w": 1.0, "b": -2.0}
    updates, _ = tx.update({"w": 4.0, "b": 0.0}, tx.init(params), params)
    params = grad_core.apply_updates(params, updates)
    assert float(params["w"]) == pytest.approx(-1.0)
    assert float(params["b"]) == pytest.approx(-2.0)
