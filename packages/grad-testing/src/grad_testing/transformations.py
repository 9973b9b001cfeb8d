"""The conformance suite for gradient transformations."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import grad_core
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

__all__ = ["TransformationSuite"]


class TransformationSuite:
    """What every gradient transformation keeps, as tests to inherit.

    To test all factories of a package, those to come included, name it in a subclass, in a test file::

        import my_package
        from grad_testing import TransformationSuite


        class TestMyPackage(TransformationSuite):
            package = my_package

    Every public factory in the package's ``__all__`` gets every test. To test a single factory, give
    the suite that fixture::

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

    One case of a test is excused as ``"works_in_dtype[complex64]"``. An exempt property that holds
    is a failure too: the exemption is to be removed.

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

    def test_exemptions_are_known(self, factory: Factory) -> None:
        """Each property that the factory is exempt from is one of this suite's."""
        known = {name.removeprefix("test_") for name in dir(self) if name.startswith("test_")}
        for name in subject_of(factory).conformance.exceptions:
            if name.partition("[")[0] not in known:
                pytest.fail(f"{factory.__name__} is exempt from {name}, which is no test here")

    # Values.

    def test_repr_is_the_call(self, factory: Factory) -> None:
        verify(value_checks.repr_is_the_call, factory)

    def test_equal_calls_are_equal(self, factory: Factory) -> None:
        verify(value_checks.equal_calls_are_equal, factory)

    def test_other_calls_are_unequal(self, factory: Factory) -> None:
        verify(value_checks.other_calls_are_unequal, factory)

    def test_pickles(self, factory: Factory) -> None:
        verify(value_checks.pickles, factory)

    def test_copies_are_equal(self, factory: Factory) -> None:
        verify(value_checks.copies_are_equal, factory)

    def test_survives_tree_map_and_replace(self, factory: Factory) -> None:
        verify(value_checks.survives_tree_map_and_replace, factory)

    def test_can_be_a_static_argument(self, factory: Factory) -> None:
        verify(value_checks.can_be_a_static_argument, factory)

    def test_numbers_do_not_recompile(self, factory: Factory) -> None:
        verify(value_checks.numbers_do_not_recompile, factory)

    # States.

    def test_state_holds_only_arrays(self, factory: Factory) -> None:
        verify(state_checks.state_holds_only_arrays, factory)

    def test_state_is_a_carry(self, factory: Factory) -> None:
        verify(state_checks.state_is_a_carry, factory)

    def test_state_round_trips(self, factory: Factory) -> None:
        verify(state_checks.state_round_trips, factory)

    def test_init_takes_shapes(self, factory: Factory) -> None:
        verify(state_checks.init_takes_shapes, factory)

    # Steps.

    def test_is_pure(self, factory: Factory) -> None:
        verify(step_checks.is_pure, factory)

    def test_jit_changes_nothing(self, factory: Factory) -> None:
        verify(step_checks.jit_changes_nothing, factory)

    def test_scan_is_a_loop(self, factory: Factory) -> None:
        verify(step_checks.scan_is_a_loop, factory)

    def test_vmap_is_a_loop(self, factory: Factory) -> None:
        verify(step_checks.vmap_is_a_loop, factory)

    def test_donation_changes_nothing(self, factory: Factory) -> None:
        verify(step_checks.donation_changes_nothing, factory)

    def test_extra_arguments_are_ignored(self, factory: Factory) -> None:
        verify(step_checks.extra_arguments_are_ignored, factory)

    def test_extra_arguments_are_routed(self, factory: Factory) -> None:
        verify(step_checks.extra_arguments_are_routed, factory)

    # Inputs.

    @pytest.mark.parametrize("kind", input_checks.KINDS)
    def test_takes_trees(self, factory: Factory, kind: str) -> None:
        verify(input_checks.takes_trees, factory, kind)

    @pytest.mark.parametrize("dtype", input_checks.DTYPES)
    def test_works_in_dtype(self, factory: Factory, dtype: str) -> None:
        _skip_if_unsupported(dtype)
        verify(input_checks.works_in_dtype, factory, dtype)

    @pytest.mark.parametrize("dtype", input_checks.DTYPES)
    def test_zero_gradients_are_finite(self, factory: Factory, dtype: str) -> None:
        _skip_if_unsupported(dtype)
        verify(input_checks.zero_gradients_are_finite, factory, dtype)

    @pytest.mark.parametrize("dtype", input_checks.DTYPES)
    def test_extreme_gradients_are_finite(self, factory: Factory, dtype: str) -> None:
        _skip_if_unsupported(dtype)
        verify(input_checks.extreme_gradients_are_finite, factory, dtype)

    # Hyperparameters.

    def test_numbers_are_checked(self, factory: Factory) -> None:
        verify(number_checks.numbers_are_checked, factory)

    def test_end_points_are_legal(self, factory: Factory) -> None:
        verify(number_checks.end_points_are_legal, factory)

    def test_numbers_may_be_traced(self, factory: Factory) -> None:
        verify(number_checks.numbers_may_be_traced, factory)

    def test_schedules_stand_for_numbers(self, factory: Factory) -> None:
        verify(number_checks.schedules_stand_for_numbers, factory)

    def test_gradients_flow(self, factory: Factory) -> None:
        verify(number_checks.gradients_flow, factory)

    # Descent.

    def test_decreases_convex_loss(self, factory: Factory) -> None:
        verify(descent_checks.decreases_convex_loss, factory)

    def test_decreases_nonconvex_loss(self, factory: Factory) -> None:
        verify(descent_checks.decreases_nonconvex_loss, factory)

    def test_decreases_stochastic_loss(self, factory: Factory) -> None:
        verify(descent_checks.decreases_stochastic_loss, factory)

    # Errors.

    def test_integer_leaves_are_refused(self, factory: Factory) -> None:
        verify(error_checks.integer_leaves_are_refused, factory)

    def test_missing_params_are_named(self, factory: Factory) -> None:
        verify(error_checks.missing_params_are_named, factory)

    def test_wrong_trees_are_named(self, factory: Factory) -> None:
        verify(error_checks.wrong_trees_are_named, factory)

    # Devices.

    def test_sharding_changes_nothing(self, factory: Factory, mesh: jax.sharding.Mesh) -> None:
        verify(sharding_checks.sharding_changes_nothing, factory, mesh)

    @pytest.mark.tpu
    def test_compiles_for_tpu(self, factory: Factory, tpu_device: jax.Device) -> None:
        verify(tpu_checks.compiles_for_tpu, factory, tpu_device)


def verify(check: Callable[..., None], factory: Factory, *case: Any) -> None:
    """Runs a check, and sees to exemptions: an exempt property must be broken indeed.

    Args:
      check: The check; its name is the name of the property.
      factory: What to look at.
      *case: The other arguments of the check.
    """
    exceptions = grad_core.conformance_of(factory).exceptions
    name = check.__name__
    this_case = f"{name}[{case[0]}]" if case else name
    run = functools.partial(check, factory, *case)
    if this_case in exceptions:
        _expect_failure(run, f"{factory.__name__} is exempt from {this_case}", exceptions[this_case])
    elif name in exceptions:
        pytest.skip(f"exempt: {exceptions[name]}")
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


def _skip_if_unsupported(dtype: str) -> None:
    if current_backend() == "tpu" and dtype in ("float64", "complex64"):
        pytest.skip(f"a TPU has no {dtype}")
