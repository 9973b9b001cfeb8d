"""The conformance suite for schedules."""

import pytest

from grad_core.schedules import ScheduleFn
from grad_testing import number_checks, schedule_checks, value_checks
from grad_testing.checking import Factory
from grad_testing.finding import schedule_factories
from grad_testing.schedule_checks import schedule_subject_of
from grad_testing.suites import Suite, as_test, verify
from grad_testing.tpu_targets import Target

__all__ = ["ScheduleSuite"]


class ScheduleSuite(Suite):
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

    find = staticmethod(schedule_factories)
    subject_of = staticmethod(schedule_subject_of)
    promises = frozenset({"boundaries", "end_value", "is_continuous", "is_monotone"})

    # What the factory's module says of it.

    def test_can_be_called(self, factory: Factory) -> None:
        """The factory can be called as its module says; if not, the other tests are skipped."""
        made = schedule_subject_of(factory).make()
        if not isinstance(made, ScheduleFn) and not hasattr(made, "call"):
            pytest.fail(
                f"{factory.__name__} makes a bare {type(made).__name__}: decorate it with "
                "@grad_core.schedule, so that its schedules are values"
            )

    # Values at steps.

    test_values_are_finite = as_test(schedule_checks.values_are_finite)
    test_values_are_exact = as_test(schedule_checks.values_are_exact)
    test_large_counts_are_exact = as_test(schedule_checks.large_counts_are_exact)
    test_counts_of_every_kind_agree = as_test(schedule_checks.counts_of_every_kind_agree)
    test_precision_is_the_default = as_test(schedule_checks.precision_is_the_default)

    # Ways to call.

    test_jit_changes_nothing = as_test(schedule_checks.jit_changes_nothing)
    test_arrays_are_loops = as_test(schedule_checks.arrays_are_loops)
    test_steps_do_not_recompile = as_test(schedule_checks.steps_do_not_recompile)

    # Hyperparameters.

    test_numbers_do_not_recompile = as_test(value_checks.numbers_do_not_recompile)
    test_numbers_are_checked = as_test(number_checks.numbers_are_checked)
    test_end_points_are_legal = as_test(schedule_checks.end_points_are_legal)
    test_numbers_may_be_traced = as_test(schedule_checks.numbers_may_be_traced)
    test_gradients_by_numbers_are_finite = as_test(schedule_checks.gradients_by_numbers_are_finite)
    test_gradients_by_steps_are_slopes = as_test(schedule_checks.gradients_by_steps_are_slopes)

    # Promises.

    test_is_monotone = as_test(schedule_checks.is_monotone)
    test_is_continuous = as_test(schedule_checks.is_continuous)
    test_end_value_is_reached = as_test(schedule_checks.end_value_is_reached)

    # Schedules as values.

    test_repr_is_the_call = as_test(value_checks.repr_is_the_call)
    test_equal_calls_are_equal = as_test(value_checks.equal_calls_are_equal)
    test_other_calls_are_unequal = as_test(value_checks.other_calls_are_unequal)
    test_pickles = as_test(value_checks.pickles)
    test_copies_are_equal = as_test(value_checks.copies_are_equal)
    test_can_be_a_static_argument = as_test(value_checks.can_be_a_static_argument)

    # Devices.

    @pytest.mark.tpu
    def test_compiles_for_tpu(self, factory: Factory, tpu: Target) -> None:
        """The value at a step compiles for TPUs, and keeps costs."""
        verify(schedule_checks.compiles_for_tpu, schedule_subject_of(factory), tpu)
