"""The conformance suite for gradient transformations."""

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, ClassVar

import jax
import pytest

from grad_testing import (
    descent_checks,
    error_checks,
    input_checks,
    number_checks,
    sharding_checks,
    state_checks,
    step_checks,
    tpu_checks,
    value_checks,
)
from grad_testing.checking import DoesNotApply, Factory, subject_of
from grad_testing.devices import current_backend
from grad_testing.finding import transformation_factories
from grad_testing.input_checks import DTYPES, OTHER_REAL_DTYPES
from grad_testing.trees import KINDS

__all__ = ["TransformationSuite"]

Test = Callable[..., None]


def _test(check: Callable[..., None], cases: Sequence[str] = ()) -> Test:
    """The test method that runs a check, or one for each of its cases."""
    if cases:

        def test(self: object, factory: Factory, case: str) -> None:
            verify(check, factory, case)

        test = pytest.mark.parametrize("case", cases)(test)
    else:

        def test(self: object, factory: Factory) -> None:  # type: ignore[misc]
            verify(check, factory)

    test.__name__, test.__doc__ = f"test_{check.__name__}", check.__doc__
    return test


class TransformationSuite:
    """What every gradient transformation keeps, as tests to inherit.

    To test all factories of a package, those to come included, name it in a subclass::

        import my_package
        from grad_testing import TransformationSuite


        class TestMyPackage(TransformationSuite):
            package = my_package

    Every public factory in the package's ``__all__`` gets every test. To test a single factory,
    give the suite that fixture::

        class TestSoften(TransformationSuite):
            @pytest.fixture
            def factory(self):
                return soften

    A factory says in its own module what is special about it: how to call it if it has required
    arguments, and which property it breaks, by the name of its test without ``test_``, and why::

        @grad_core.example(0.5)
        @grad_core.exempt("integer_leaves_are_refused", reason="casts them")
        @grad_core.rule
        def soften(strength: grad_core.NonNegative) -> grad_core.LeafRule: ...

    One case of a test is excused as ``"works_in_dtype[float16]"``, and a case in all tests by its
    name, ``"complex64"``. Where a test or one case of it is exempt, and the property holds
    nevertheless, that is a failure: the exemption is to be removed.

    Attributes:
      package: The module whose factories are tested; or leave it, and override `factory`.
    """

    package: ClassVar[ModuleType | None] = None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Makes a test for each factory of the package."""
        if self.package is not None and "factory" in metafunc.fixturenames:
            factories = transformation_factories(self.package)
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
        subject_of(factory).make()

    def test_exemptions_are_known(self, factory: Factory) -> None:
        """Each property that the factory is exempt from is one of this suite's."""
        known = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        known |= {*KINDS, *DTYPES}
        for name in subject_of(factory).conformance.exceptions:
            if name.partition("[")[0] not in known:
                pytest.fail(f"{factory.__name__} is exempt from {name}, which is no test here")

    # Values.

    test_repr_is_the_call = _test(value_checks.repr_is_the_call)
    test_equal_calls_are_equal = _test(value_checks.equal_calls_are_equal)
    test_other_calls_are_unequal = _test(value_checks.other_calls_are_unequal)
    test_pickles = _test(value_checks.pickles)
    test_copies_are_equal = _test(value_checks.copies_are_equal)
    test_survives_tree_map_and_replace = _test(value_checks.survives_tree_map_and_replace)
    test_can_be_a_static_argument = _test(value_checks.can_be_a_static_argument)
    test_numbers_do_not_recompile = _test(value_checks.numbers_do_not_recompile)

    # States.

    test_state_holds_only_arrays = _test(state_checks.state_holds_only_arrays)
    test_state_is_a_carry = _test(state_checks.state_is_a_carry)
    test_state_round_trips = _test(state_checks.state_round_trips)
    test_init_takes_shapes = _test(state_checks.init_takes_shapes)

    # Steps.

    test_is_pure = _test(step_checks.is_pure)
    test_jit_changes_nothing = _test(step_checks.jit_changes_nothing)
    test_scan_is_a_loop = _test(step_checks.scan_is_a_loop)
    test_vmap_is_a_loop = _test(step_checks.vmap_is_a_loop)
    test_donation_changes_nothing = _test(step_checks.donation_changes_nothing)
    test_extra_arguments_are_ignored = _test(step_checks.extra_arguments_are_ignored)
    test_extra_arguments_are_routed = _test(step_checks.extra_arguments_are_routed)

    # Inputs.

    test_takes_trees = _test(input_checks.takes_trees, KINDS)
    test_works_in_dtype = _test(input_checks.works_in_dtype, DTYPES)
    test_agrees_with_float32 = _test(input_checks.agrees_with_float32, OTHER_REAL_DTYPES)
    test_zero_gradients_are_finite = _test(input_checks.zero_gradients_are_finite, DTYPES)
    test_extreme_gradients_are_finite = _test(input_checks.extreme_gradients_are_finite, DTYPES)

    # Hyperparameters.

    test_numbers_are_checked = _test(number_checks.numbers_are_checked)
    test_end_points_are_legal = _test(number_checks.end_points_are_legal)
    test_numbers_may_be_traced = _test(number_checks.numbers_may_be_traced)
    test_schedules_stand_for_numbers = _test(number_checks.schedules_stand_for_numbers)
    test_gradients_flow = _test(number_checks.gradients_flow)

    # Descent.

    test_decreases_convex_loss = _test(descent_checks.decreases_convex_loss)
    test_decreases_nonconvex_loss = _test(descent_checks.decreases_nonconvex_loss)
    test_decreases_stochastic_loss = _test(descent_checks.decreases_stochastic_loss)

    # Errors.

    test_integer_leaves_are_refused = _test(error_checks.integer_leaves_are_refused)
    test_missing_params_are_named = _test(error_checks.missing_params_are_named)
    test_wrong_trees_are_named = _test(error_checks.wrong_trees_are_named)

    # Devices.

    def test_sharding_changes_nothing(self, factory: Factory, mesh: jax.sharding.Mesh) -> None:
        """Sharded over a mesh, automatic or explicit, updates and states are as they should be."""
        verify(sharding_checks.sharding_changes_nothing, factory, mesh)

    @pytest.mark.tpu
    def test_compiles_for_tpu(self, factory: Factory, tpu_device: jax.Device) -> None:
        """``update`` compiles for a TPU, and needs no large temporary buffer."""
        verify(tpu_checks.compiles_for_tpu, factory, tpu_device)


def verify(check: Callable[..., None], factory: Factory, *case: Any) -> None:
    """Runs a check, and sees to exemptions: an exempt property must be broken indeed.

    Args:
      check: The check; its name is the name of the property.
      factory: What to look at.
      *case: The other arguments of the check.
    """
    subject = subject_of(factory)
    if not subject.can_be_called:
        pytest.skip("its example call fails: see test_can_be_called")
    if case and case[0] in ("float64", "complex64") and current_backend() == "tpu":
        pytest.skip(f"a TPU has no {case[0]}")
    exceptions = subject.conformance.exceptions
    name = check.__name__
    this_case = f"{name}[{case[0]}]" if case and isinstance(case[0], str) else name
    run = functools.partial(check, factory, *case)
    if this_case in exceptions:
        _expect_failure(
            run, f"{factory.__name__} is exempt from {this_case}", exceptions[this_case]
        )
    elif name in exceptions or (case and case[0] in exceptions):
        pytest.skip(f"exempt: {exceptions.get(name) or exceptions[case[0]]}")
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
