"""The conformance suite for gradient transformations."""

from typing import ClassVar

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
from grad_testing.checking import Factory, subject_of
from grad_testing.finding import transformation_factories
from grad_testing.input_checks import DTYPES, OTHER_REAL_DTYPES
from grad_testing.plugin import ONE_TPU
from grad_testing.suites import Suite, as_test, verify
from grad_testing.tpu_targets import Target
from grad_testing.trees import KINDS

__all__ = ["TransformationSuite"]


class TransformationSuite(Suite):
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

    Of a factory that makes a chain of what public factories make, like most optimizers, some tests
    are marked ``full``: its links are tested for the same, and a chain adds nothing to it.

    Attributes:
      package: The module whose factories are tested; or leave it, and override `factory`.
      full_for_chains: The tests, without ``test_``, that are marked ``full`` for chains.
    """

    find = staticmethod(transformation_factories)
    subject_of = staticmethod(subject_of)
    cases = frozenset({*KINDS, *DTYPES})
    full_for_chains: ClassVar[frozenset[str]] = frozenset(
        {
            "donation_changes_nothing",
            "extra_arguments_are_ignored",
            "gradients_flow",
            "numbers_may_be_traced",
            "scan_is_a_loop",
            "sharding_changes_nothing",
            "takes_trees",
            "vmap_is_a_loop",
        }
    )

    def is_quick(self, check: str, factory: Factory) -> bool:
        """Whether the test of a factory is in the quick tier, rather than marked ``full``."""
        return check not in self.full_for_chains or not subject_of(factory).is_chain

    # What the factory's module says of it.

    def test_can_be_called(self, factory: Factory) -> None:
        """The factory can be called as its module says; if not, the other tests are skipped."""
        subject_of(factory).make()

    # Values.

    test_repr_is_the_call = as_test(value_checks.repr_is_the_call)
    test_equal_calls_are_equal = as_test(value_checks.equal_calls_are_equal)
    test_other_calls_are_unequal = as_test(value_checks.other_calls_are_unequal)
    test_pickles = as_test(value_checks.pickles)
    test_copies_are_equal = as_test(value_checks.copies_are_equal)
    test_survives_tree_map_and_replace = as_test(value_checks.survives_tree_map_and_replace)
    test_can_be_a_static_argument = as_test(value_checks.can_be_a_static_argument)
    test_numbers_do_not_recompile = as_test(value_checks.numbers_do_not_recompile)

    # States.

    test_state_holds_only_arrays = as_test(state_checks.state_holds_only_arrays)
    test_state_is_a_carry = as_test(state_checks.state_is_a_carry)
    test_state_round_trips = as_test(state_checks.state_round_trips)
    test_init_takes_shapes = as_test(state_checks.init_takes_shapes)

    # Steps.

    test_is_pure = as_test(step_checks.is_pure)
    test_jit_changes_nothing = as_test(step_checks.jit_changes_nothing)
    test_scan_is_a_loop = as_test(step_checks.scan_is_a_loop)
    test_vmap_is_a_loop = as_test(step_checks.vmap_is_a_loop)
    test_donation_changes_nothing = as_test(step_checks.donation_changes_nothing)
    test_extra_arguments_are_ignored = as_test(step_checks.extra_arguments_are_ignored)
    test_extra_arguments_are_routed = as_test(step_checks.extra_arguments_are_routed)

    # Inputs.

    test_takes_trees = as_test(input_checks.takes_trees, KINDS)
    test_works_in_dtype = as_test(input_checks.works_in_dtype, DTYPES)
    test_agrees_with_float32 = as_test(input_checks.agrees_with_float32, OTHER_REAL_DTYPES)
    test_zero_gradients_are_finite = as_test(input_checks.zero_gradients_are_finite, DTYPES)
    test_extreme_gradients_are_finite = as_test(input_checks.extreme_gradients_are_finite, DTYPES)

    # Hyperparameters.

    test_numbers_are_checked = as_test(number_checks.numbers_are_checked)
    test_end_points_are_legal = as_test(number_checks.end_points_are_legal)
    test_numbers_may_be_traced = as_test(number_checks.numbers_may_be_traced)
    test_schedules_stand_for_numbers = as_test(number_checks.schedules_stand_for_numbers)
    test_gradients_flow = as_test(number_checks.gradients_flow)

    # Descent.

    test_decreases_convex_loss = as_test(descent_checks.decreases_convex_loss)
    test_decreases_nonconvex_loss = as_test(descent_checks.decreases_nonconvex_loss)
    test_decreases_stochastic_loss = as_test(descent_checks.decreases_stochastic_loss)

    # Errors.

    test_integer_leaves_are_refused = as_test(error_checks.integer_leaves_are_refused)
    test_missing_params_are_named = as_test(error_checks.missing_params_are_named)
    test_wrong_trees_are_named = as_test(error_checks.wrong_trees_are_named)

    # Devices.

    def test_sharding_changes_nothing(self, factory: Factory, mesh: jax.sharding.Mesh) -> None:
        """Sharded over a mesh, automatic or explicit, updates and states are as they should be."""
        verify(sharding_checks.sharding_changes_nothing, subject_of(factory), mesh)

    @pytest.mark.tpu
    def test_compiles_for_tpu(self, factory: Factory, tpu: Target) -> None:
        """``init`` and ``update`` compile for TPUs, and keep shardings and costs."""
        verify(tpu_checks.compiles_for_tpu, subject_of(factory), tpu)

    @pytest.mark.tpu
    @pytest.mark.parametrize("tpu", ONE_TPU, indirect=True)
    def test_needs_little_memory_on_tpu(self, factory: Factory, tpu: Target) -> None:
        """``update`` on one TPU needs no large temporary buffer."""
        verify(tpu_checks.needs_little_memory_on_tpu, subject_of(factory), tpu)
