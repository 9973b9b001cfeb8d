"""grad_testing, installed alone, is active; only it and pytest may be imported here."""

import pytest

import grad_testing


def test_pytest_has_loaded_the_plugin(pytestconfig: pytest.Config) -> None:
    plugin = pytestconfig.pluginmanager.get_plugin("grad_testing")
    assert plugin is not None
    assert plugin.__name__ == f"{grad_testing.__name__}.plugin"
