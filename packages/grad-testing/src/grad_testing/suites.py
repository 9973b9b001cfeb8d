"""What all suites are made of: finding what to test, running checks, and seeing to exemptions."""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

import pytest

from grad_testing.checking import DoesNotApply, Factory, Subject
from grad_testing.devices import current_backend

__all__ = ["Suite", "as_test", "verify"]


def as_test(check: Callable[..., None], cases: Sequence[str] = ()) -> Callable[..., None]:
    """The test method that runs a check, or one for each of its cases."""
    if cases:

        def test(self: "Suite", factory: Factory, case: str) -> None:
            verify(check, self.subject_of(factory), case)

        test = pytest.mark.parametrize("case", cases)(test)
    else:

        def test(self: "Suite", factory: Factory) -> None:  # type: ignore[misc]
            verify(check, self.subject_of(factory))

    test.__name__, test.__doc__ = f"test_{check.__name__}", check.__doc__
    return test


class Suite:
    """The part that suites have in common.

    Attributes:
      package: The module whose factories are tested; or leave it, and override `factory`.
      promises: The promises that the suite knows.
      cases: The names of cases, that a factory can be exempt from in all tests.
    """

    package: ModuleType | None = None
    promises: ClassVar[frozenset[str]] = frozenset()
    cases: ClassVar[frozenset[str]] = frozenset()

    @staticmethod
    def find(package: ModuleType) -> list[Factory]:
        """The factories of a package."""
        raise NotImplementedError

    @staticmethod
    def subject_of(factory: Factory) -> Subject:
        """What checks look at; for each factory one, since they share work."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Makes a test for each factory of the package.

        All tests of one come in a row: where several processes share the tests, few of them do the
        same work.
        """
        if self.package is not None and "factory" in metafunc.fixturenames:
            check = metafunc.function.__name__.removeprefix("test_")
            found = [
                pytest.param(
                    factory,
                    id=factory.__name__,
                    marks=() if self.is_quick(check, factory) else pytest.mark.full,
                )
                for factory in type(self).find(self.package)
            ]
            metafunc.parametrize("factory", found, scope="class")

    def is_quick(self, check: str, factory: Factory) -> bool:
        """Whether the test of a factory is in the quick tier, rather than marked ``full``."""
        del check, factory
        return True

    @pytest.fixture
    def factory(self) -> Factory:
        """The factory to test, unless the class names a package."""
        raise pytest.UsageError(
            f"{type(self).__name__}: say `package = my_package`, or override the fixture `factory`"
        )

    def test_exemptions_are_known(self, factory: Factory) -> None:
        """Each exemption is of a test of this suite, and each promise is known to it."""
        known = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        conformance = self.subject_of(factory).conformance
        for name in conformance.exceptions:
            if name.partition("[")[0] not in known | self.cases:
                pytest.fail(f"{factory.__name__} is exempt from {name}, which is no test here")
        for name in conformance.promises:
            if name not in self.promises:
                pytest.fail(f"{factory.__name__} promises {name}, of which nothing is known here")


def verify(check: Callable[..., None], subject: Subject, *case: Any) -> None:
    """Runs a check, and sees to exemptions: an exempt property must be broken indeed.

    Args:
      check: The check; its name is the name of the property.
      subject: What to look at.
      *case: The other arguments of the check.
    """
    if subject.reason_to_skip is not None:
        pytest.skip(subject.reason_to_skip)
    if case and case[0] in ("float64", "complex64") and current_backend() == "tpu":
        pytest.skip(f"a TPU has no {case[0]}")
    exceptions = subject.conformance.exceptions
    name = check.__name__
    this_case = f"{name}[{case[0]}]" if case and isinstance(case[0], str) else name
    run = functools.partial(check, subject, *case)
    if this_case in exceptions and this_case not in subject.conformance.not_run:
        _expect_failure(run, f"{subject.name} is exempt from {this_case}", exceptions[this_case])
    elif reasons := [exceptions[x] for x in (this_case, name, *case[:1]) if x in exceptions]:
        pytest.skip(f"exempt: {reasons[0]}")
    else:
        try:
            run()
        except DoesNotApply as reason:
            pytest.skip(str(reason))


def _expect_failure(run: Callable[[], None], what: str, reason: str) -> None:
    try:
        run()
    except DoesNotApply:
        pytest.fail(f"{what}, which does not apply to it; remove the exemption")
    except Exception:
        pytest.xfail(f"exempt: {reason}")
    pytest.fail(f"{what} ({reason}), but the property holds; remove the exemption")
