"""The conformance suite for losses."""

import inspect

import jax
import pytest

from grad_testing import (
    loss_checks,
    loss_derivative_checks,
    loss_device_checks,
    loss_error_checks,
    loss_extreme_checks,
)
from grad_testing.checking import Factory
from grad_testing.finding import loss_functions
from grad_testing.loss_cases import EXTREMES
from grad_testing.loss_subject import DTYPES, loss_subject_of
from grad_testing.suites import Suite, as_test, verify
from grad_testing.tpu_targets import Target

__all__ = ["LossSuite"]


class LossSuite(Suite):
    """What every loss keeps, as tests to inherit.

    To test all losses of a package, those to come included, name it in a subclass::

        import my_package
        from grad_testing import LossSuite


        class TestMyLosses(LossSuite):
            package = my_package

    Every function in the package's ``__all__`` gets every test. A loss says in its own module how
    to call it, with arrays of a few examples along the first axis, generic (no ties, no kinks,
    nothing at the end of its range), small, and all different::

        @grad_core.example(
            np.array([[0.5, -1.0, 2.0], [1.0, 0.0, 0.3]], np.float32), np.array([2, 0])
        )
        @grad_core.promises(infinite=("logits",))
        def cross_entropy(logits: ArrayLike, labels: ArrayLike) -> jax.Array: ...

    Arrays of floating point numbers are tried in every dtype, differentiated by, and replaced by
    zeros, tiny and huge numbers. Integer and boolean arrays, and all other arguments, stay as they
    are; but Python floats, unless annotated as ``float``, may be traced arrays. Of a tuple that a
    loss returns, the first item is tested.

    Promises, by the names of arguments:
      per: ``"example"`` (what is assumed), or ``"batch"`` for a loss of the batch or set as a
        whole. One value for all, or one for each example, it is the same whatever their order.
      shared: The arrays that have no batch axis, as weights of classes have none.
      fixed: The floating point arrays that select rather than measure, such as paddings and masks
        of 0 and 1: no derivatives are taken of them, and no extremes tried.
      ranges: For arrays of which not all finite numbers are legal, the closed interval of those
        that are, as ``ranges={"probabilities": (0, 1), "variances": (0, math.inf)}``. Finite ends
        are tried: value and gradient there are never NaN, and infinite only where the mathematics
        is. (So if 0 is no legal variance, let the interval begin with the smallest that is.) For
        arguments that are Python floats, numbers outside are refused, as NaN always is.
      infinite: The arrays that may hold -inf and +inf, each if its range has no finite end there.
        The value is then the limit for ever greater numbers.

    A loss that rightly breaks a property says so, by the name of the test without ``test_``, or of
    one case of it, and why. A function that is no loss says that, and is left out of the rest::

        @grad_core.exempt("second_derivatives_are_slopes", reason="its gradient is a subgradient")
        @grad_core.exempt("extremes_are_finite[largest]", reason="...")
        @grad_core.exempt("is_a_loss", reason="it returns an assignment")

    If it keeps the property nevertheless, that is a failure: the exemption is to be removed.

    To test a single loss, give the suite the fixture ``factory``, that returns it.

    Attributes:
      package: The module whose losses are tested; or leave it, and override `factory`.
    """

    find = staticmethod(loss_functions)
    subject_of = staticmethod(loss_subject_of)
    promises = frozenset({"fixed", "infinite", "per", "ranges", "shared"})

    # What the loss's module says of it.

    def test_is_a_loss(self, factory: Factory) -> None:
        """It can be called as its module says, and gives finite floating point numbers."""
        subject = loss_subject_of(factory)
        no_loss = subject.conformance.exceptions.get("is_a_loss")
        try:
            subject.value  # noqa: B018 - it is what may fail
        except Exception as error:
            if no_loss is None:
                error.add_note('If it is no loss, @grad_core.exempt("is_a_loss", reason="...").')
                raise
            pytest.xfail(f"no loss: {no_loss}")
        if no_loss is not None:
            pytest.fail(f"{subject.name} claims to be no loss, but is; remove the exemption")

    def test_exemptions_are_known(self, factory: Factory) -> None:
        """Exemptions are of tests of this suite; promises are known to it, and of arguments."""
        super().test_exemptions_are_known(factory)
        subject = loss_subject_of(factory)
        arguments = {*inspect.signature(factory).parameters}
        for promise in self.promises - {"per"}:
            unknown = {*subject.promised(promise, ())} - arguments
            if unknown:
                pytest.fail(f"{subject.name} promises {promise} of {unknown}, which it has not")
        if subject.promised("per", "example") not in ("example", "batch"):
            pytest.fail(f'{subject.name} promises per; that must be "example" or "batch"')

    # Batches.

    test_one_value_per_example = as_test(loss_checks.one_value_per_example)
    test_order_of_examples_is_kept = as_test(loss_checks.order_of_examples_is_kept)
    test_empty_batch_is_empty = as_test(loss_checks.empty_batch_is_empty)

    # Ways to call.

    test_jit_changes_nothing = as_test(loss_checks.jit_changes_nothing)
    test_vmap_is_a_loop = as_test(loss_checks.vmap_is_a_loop)
    test_lists_are_arrays = as_test(loss_checks.lists_are_arrays)

    # Dtypes.

    test_works_in_dtype = as_test(loss_checks.works_in_dtype, DTYPES)
    test_arithmetic_is_in_float32 = as_test(loss_checks.arithmetic_is_in_float32)

    # Derivatives.

    test_gradients_are_slopes = as_test(loss_derivative_checks.gradients_are_slopes)
    test_tangents_are_slopes = as_test(loss_derivative_checks.tangents_are_slopes)
    test_second_derivatives_are_slopes = as_test(
        loss_derivative_checks.second_derivatives_are_slopes
    )

    # Extremes.

    test_extremes_are_finite = as_test(loss_extreme_checks.extremes_are_finite, EXTREMES)
    test_infinities_are_limits = as_test(loss_extreme_checks.infinities_are_limits)

    # Errors.

    test_integers_are_refused = as_test(loss_error_checks.integers_are_refused)
    test_wrong_shapes_are_named = as_test(loss_error_checks.wrong_shapes_are_named)
    test_numbers_are_checked = as_test(loss_error_checks.numbers_are_checked)

    # Devices.

    def test_sharding_changes_nothing(self, factory: Factory, mesh: jax.sharding.Mesh) -> None:
        """With the examples sharded over a mesh, automatic or explicit, results are the same."""
        verify(loss_device_checks.sharding_changes_nothing, loss_subject_of(factory), mesh)

    @pytest.mark.tpu
    def test_compiles_for_tpu(self, factory: Factory, tpu: Target) -> None:
        """Value and gradients compile for TPUs, and keep costs."""
        verify(loss_device_checks.compiles_for_tpu, loss_subject_of(factory), tpu)
