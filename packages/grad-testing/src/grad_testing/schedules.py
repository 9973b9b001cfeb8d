"""The conformance suite for schedules."""

import functools
import inspect
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest

from grad_core import Schedule, is_factory
from grad_core.schedules import ScheduleFn
from grad_testing import schedule_checks, schedule_value_checks
from grad_testing.checking import DoesNotApply, Factory
from grad_testing.finding import _public
from grad_testing.schedule_checks import schedule_subject_of
from grad_testing.transformations import _expect_failure

__all__ = ["ScheduleSuite", "schedule_factories"]

PROMISES = frozenset({"boundaries", "end_value", "is_continuous", "is_monotone"})


def schedule_factories(package: ModuleType) -> list[Factory]:
    """The public factories of schedules of a package, in the order of its ``__all__``.

    They are the functions, decorated or not, that are annotated to return a `Schedule`. A factory
    that stands there under two names is found once.

    Args:
      package: A module with ``__all__``; modules that it names there are searched too.

    Returns:
      The factories.

    Raises:
      AttributeError: If the module has no ``__all__``.

    Example:
      >>> from types import ModuleType
      >>> import grad_core
      >>> from grad_testing import schedule_factories
      >>> @grad_core.schedule
      ... def halving(init_value: grad_core.Real) -> grad_core.Schedule:
      ...     return lambda count: init_value * 0.5**count
      >>> package = ModuleType("package")
      >>> package.halving, package.__all__ = halving, ["halving"]
      >>> schedule_factories(package) == [halving]
      True
    """
    found: dict[int, Factory] = {}
    for candidate in _public(package):
        if _makes_schedules(candidate):
            found.setdefault(id(candidate), candidate)
    return list(found.values())


def _makes_schedules(candidate: Any) -> bool:
    if not (is_factory(candidate) or inspect.isfunction(candidate)):
        return False
    try:
        returned = typing.get_type_hints(candidate).get("return")
    except (NameError, TypeError):  # names that exist only for type checkers
        returned = inspect.signature(candidate).return_annotation
        return str(returned).rpartition(".")[2] == "Schedule"
    return bool(returned == Schedule)


def _test(check: Callable[[Factory], None]) -> Callable[..., None]:
    """The test method that runs a check."""

    def test(self: object, factory: Factory) -> None:
        verify(check, factory)

    test.__name__, test.__doc__ = f"test_{check.__name__}", check.__doc__
    return test


class ScheduleSuite:
    """What every schedule keeps, as tests to inherit.

    To test all schedule factories of a package, those to come included, name it in a subclass::

        import my_package
        from grad_testing import ScheduleSuite


        class TestMySchedules(ScheduleSuite):
            package = my_package

    Every function in the package's ``__all__`` that is annotated to return a `Schedule` gets every
    test. To test a single factory, give the suite that fixture, as in `TransformationSuite`. There,
    too, is told how a factory gives an example of how to call it, and excuses itself from a test.

    Beyond what all schedules keep, a factory may promise more, with a value or with a function that
    asks for arguments of the factory by name::

        @grad_core.example(0.0, 1.0, 10)
        @grad_core.conformance.promises(
            boundaries=lambda warmup_steps: (warmup_steps,),
            is_continuous=True,
            is_monotone=True,
            end_value=lambda peak: peak,
        )
        @grad_core.schedule
        def warmup(low: Real, peak: Real, warmup_steps: NonNegative) -> Schedule: ...

    Promises:
      boundaries: The steps where the curve may bend or jump. Between them its derivatives are
        compared with slopes, and around them its values with those in double precision.
      is_continuous: It does not jump at boundaries.
      is_monotone: From one boundary to the next it only rises or only falls.
      end_value: Its value from the last boundary on.

    Attributes:
      package: The module whose factories are tested; or leave it, and override `factory`.
    """

    package: ClassVar[ModuleType | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Makes a test for each factory of the package."""
        if self.package is not None and "factory" in metafunc.fixturenames:
            factories = schedule_factories(self.package)
            metafunc.parametrize("factory", factories, ids=[f.__name__ for f in factories])

    @pytest.fixture
    def factory(self) -> Factory:
        """The factory to test, unless the class names a package."""
        raise pytest.UsageError(
            f"{type(self).__name__}: say `package = my_package`, or override the fixture `factory`"
        )

    # What the factory's module says of it.

    def test_can_be_called(self, factory: Factory) -> None:
        """The factory can be called as its module says; if not, the other tests are skipped."""
        made = schedule_subject_of(factory).make()
        if not isinstance(made, ScheduleFn) and not hasattr(made, "call"):
            pytest.fail(
                f"{factory.__name__} makes a bare {type(made).__name__}: decorate it with "
                "@grad_core.schedule, so that its schedules are values"
            )

    def test_exemptions_are_known(self, factory: Factory) -> None:
        """Each exemption is of a test of this suite, and each promise is known to it."""
        known = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        conformance = schedule_subject_of(factory).conformance
        for name in conformance.exceptions:
            if name not in known:
                pytest.fail(f"{factory.__name__} is exempt from {name}, which is no test here")
        for name in conformance.promises:
            if name not in PROMISES:
                pytest.fail(f"{factory.__name__} promises {name}, of which nothing is known here")

    # Values at steps.

    test_values_are_finite = _test(schedule_checks.values_are_finite)
    test_values_are_exact = _test(schedule_checks.values_are_exact)
    test_large_counts_are_exact = _test(schedule_checks.large_counts_are_exact)
    test_counts_of_every_kind_agree = _test(schedule_checks.counts_of_every_kind_agree)
    test_precision_is_the_default = _test(schedule_checks.precision_is_the_default)

    # Ways to call.

    test_jit_changes_nothing = _test(schedule_checks.jit_changes_nothing)
    test_arrays_are_loops = _test(schedule_checks.arrays_are_loops)
    test_steps_do_not_recompile = _test(schedule_checks.steps_do_not_recompile)

    # Hyperparameters.

    test_numbers_do_not_recompile = _test(schedule_checks.numbers_do_not_recompile)
    test_numbers_are_checked = _test(schedule_checks.numbers_are_checked)
    test_end_points_are_legal = _test(schedule_checks.end_points_are_legal)
    test_numbers_may_be_traced = _test(schedule_checks.numbers_may_be_traced)
    test_gradients_by_numbers_are_finite = _test(schedule_checks.gradients_by_numbers_are_finite)
    test_gradients_by_steps_are_slopes = _test(schedule_checks.gradients_by_steps_are_slopes)

    # Promises.

    test_is_monotone = _test(schedule_checks.is_monotone)
    test_is_continuous = _test(schedule_checks.is_continuous)
    test_end_value_is_reached = _test(schedule_checks.end_value_is_reached)

    # Schedules as values.

    test_repr_is_the_call = _test(schedule_value_checks.repr_is_the_call)
    test_equal_calls_are_equal = _test(schedule_value_checks.equal_calls_are_equal)
    test_other_calls_are_unequal = _test(schedule_value_checks.other_calls_are_unequal)
    test_pickles = _test(schedule_value_checks.pickles)
    test_copies_are_equal = _test(schedule_value_checks.copies_are_equal)
    test_can_be_a_static_argument = _test(schedule_value_checks.can_be_a_static_argument)


def verify(check: Callable[[Factory], None], factory: Factory) -> None:
    """Runs a check, and sees to exemptions: an exempt property must be broken indeed."""
    subject = schedule_subject_of(factory)
    if not subject.can_be_called:
        pytest.skip("its example call fails: see test_can_be_called")
    exceptions, name = subject.conformance.exceptions, check.__name__
    run = functools.partial(check, factory)
    if name in exceptions:
        _expect_failure(run, f"{factory.__name__} is exempt from {name}", exceptions[name])
        return
    try:
        run()
    except DoesNotApply as reason:
        pytest.skip(str(reason))
