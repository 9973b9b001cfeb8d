"""The test harness: a pytest plugin, and suites that say what every transformation must keep.

Subclass `TransformationSuite` in a test file, and name the package whose factories it shall test::

    import my_package
    from grad_testing import TransformationSuite


    class TestMyPackage(TransformationSuite):
        package = my_package

This module is loaded with the plugin wherever the distribution is installed; so it imports nothing
until it is asked to.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grad_testing.checking import DoesNotApply
    from grad_testing.finding import loss_functions, schedule_factories, transformation_factories
    from grad_testing.losses import LossSuite
    from grad_testing.processes import ProcessesFailed, run_processes
    from grad_testing.schedules import ScheduleSuite
    from grad_testing.tolerances import Tolerance, tolerance_for
    from grad_testing.transformations import TransformationSuite

__all__ = [
    "DoesNotApply",
    "LossSuite",
    "ProcessesFailed",
    "ScheduleSuite",
    "Tolerance",
    "TransformationSuite",
    "loss_functions",
    "run_processes",
    "schedule_factories",
    "tolerance_for",
    "transformation_factories",
]

_HOMES = {
    "DoesNotApply": "checking",
    "LossSuite": "losses",
    "ProcessesFailed": "processes",
    "ScheduleSuite": "schedules",
    "Tolerance": "tolerances",
    "TransformationSuite": "transformations",
    "loss_functions": "finding",
    "run_processes": "processes",
    "schedule_factories": "finding",
    "tolerance_for": "tolerances",
    "transformation_factories": "finding",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
