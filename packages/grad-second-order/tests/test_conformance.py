"""Every transformation of grad_second_order keeps what transformations keep.

Searches are expensive to compile, for each tree, dtype and mesh anew. So the quick tier holds the
rules to most properties, and the aliases, which are chains of them, to those that compile little;
the full tier holds all to all.
"""

import pytest

import grad_second_order
from grad_testing import TransformationSuite
from grad_testing.finding import transformation_factories

QUICK_FOR_ALIASES = {
    "test_can_be_called",
    "test_equal_calls_are_equal",
    "test_exemptions_are_known",
    "test_missing_params_are_named",
    "test_numbers_are_checked",
    "test_other_calls_are_unequal",
    "test_repr_is_the_call",
    "test_state_holds_only_arrays",
}
FULL_FOR_RULES = {
    "test_agrees_with_float32",
    "test_can_be_a_static_argument",
    "test_decreases_nonconvex_loss",
    "test_decreases_stochastic_loss",
    "test_donation_changes_nothing",
    "test_gradients_flow",
    "test_numbers_may_be_traced",
    "test_scan_is_a_loop",
    "test_sharding_changes_nothing",
    "test_takes_trees",
    "test_vmap_is_a_loop",
}


class TestGradSecondOrder(TransformationSuite):
    package = grad_second_order

    def pytest_generate_tests(self, metafunc):
        name = metafunc.function.__name__
        found = []
        for factory in transformation_factories(self.package):
            is_rule = factory.__name__.startswith("scale_by_")
            is_quick = name not in FULL_FOR_RULES if is_rule else name in QUICK_FOR_ALIASES
            marks = [] if is_quick else [pytest.mark.full]
            found.append(pytest.param(factory, id=factory.__name__, marks=marks))
        metafunc.parametrize("factory", found, scope="class")
