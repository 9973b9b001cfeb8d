"""The suite can fail: for each check a schedule that breaks its property, and is caught."""

import functools
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import grad_core
from grad_core import NonNegative, Numeric, Real, Schedule, example
from grad_core.conformance import promises
from grad_testing import (
    DoesNotApply,
    ScheduleSuite,
    number_checks,
    schedule_checks,
    schedule_factories,
    value_checks,
)
from grad_testing.schedule_checks import schedule_subject_of
from grad_testing.tpu_targets import Target


def parts(count: Numeric, length: Numeric) -> jax.Array:
    count = jnp.asarray(count)
    is_whole = jnp.issubdtype(count.dtype, jnp.integer)
    count = count.astype(int if is_whole else jnp.promote_types(count.dtype, jnp.float32))
    return jnp.clip(count, 0, length) / length


@example(1.0, 10)
@promises(
    boundaries=lambda decay_steps: (decay_steps,),
    is_continuous=True,
    is_monotone=True,
    end_value=lambda: 0.0,
)
@grad_core.schedule
def good(init_value: Real, decay_steps: NonNegative) -> Schedule:
    """Breaks nothing: a line to zero."""

    def at(count: Numeric) -> Numeric:
        return init_value * (1 - parts(count, jnp.maximum(decay_steps, 1)))

    return at


def broken(example_args: tuple[Any, ...] = (1.0, 10), **promised: Any) -> Any:
    """Marks a function as a factory that claims to be `good`, with its ranges and promises."""

    def mark(make: Any) -> Any:
        public = functools.wraps(make)(lambda *args, **kwargs: make(*args, **kwargs))
        public.__factory__ = good.__factory__
        public.__wrapped__ = good
        boundaries = {"boundaries": lambda decay_steps: (decay_steps,)}
        return example(*example_args)(promises(**{**boundaries, **promised})(public))

    return mark


def of_ours(make_body: Any, *args: Any, **promised: Any) -> Any:
    """A decorated factory with the signature of `good`."""

    @grad_core.schedule
    def factory(init_value: Real, decay_steps: NonNegative) -> Schedule:
        return lambda count: make_body(init_value, decay_steps, count)  # type: ignore[no-any-return]

    factory.__name__ = make_body.__name__
    boundaries = {"boundaries": lambda decay_steps: (decay_steps,)}
    return example(*(args or (1.0, 10)))(promises(**{**boundaries, **promised})(factory))


# Values at steps.


@of_ours
def infinite_at_zero(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return init_value / count


@of_ours
def rounds_its_decay(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return (1 - 1e-4 * init_value) ** count


@example(1.0, 10, 0)
@promises(boundaries=lambda begin, decay_steps: (begin, begin + decay_steps))
@grad_core.schedule
def counts_in_float32(init_value: Real, decay_steps: Real, begin: Real) -> Schedule:
    return lambda count: init_value * parts(count * 1.0 - begin, decay_steps)


@of_ours
def wraps_narrow_counts(init_value: Any, decay_steps: Any, count: Any) -> Any:
    count = jnp.asarray(count)
    return init_value * (count + count.astype(jnp.int32).astype(count.dtype)) / 64


@of_ours
def single_precision_always(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return (init_value * (1 - parts(count, decay_steps))).astype(jnp.float32)


@of_ours
def forgets_the_shape(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return init_value * jnp.ones(())


# Ways to call.


@broken()
def looks_whether_it_is_traced(init_value: Any, decay_steps: Any) -> Any:
    schedule = good(init_value, decay_steps)
    return lambda count: schedule(count) * (2 if isinstance(count, jax.core.Tracer) else 1)


@broken()
def takes_the_first_of_an_array(init_value: Any, decay_steps: Any) -> Any:
    schedule = good(init_value, decay_steps)
    return lambda count: jnp.zeros(np.shape(count)) + schedule(jnp.ravel(count)[0])


@broken()
def compiles_each_step(init_value: Any, decay_steps: Any) -> Any:
    return lambda count: jax.jit(lambda: init_value * jnp.exp(-float(count)))()


# Hyperparameters.


@broken()
def compiles_each_number(init_value: Any, decay_steps: Any) -> Any:
    return jax.jit(lambda count: init_value * (1 - parts(count, decay_steps)))


@broken()
def checks_no_number(init_value: Any, decay_steps: Any) -> Any:
    return lambda count: init_value * (1 - parts(count, decay_steps))


@of_ours
def divides_by_its_length(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return init_value * jnp.asarray(count) / decay_steps


@broken()
def branches_on_its_number(init_value: Any, decay_steps: Any) -> Any:
    return good(init_value if init_value > 0 else 0.0, decay_steps)


@of_ours
def root_of_a_number_at_zero(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return jnp.sqrt(init_value * (1 - parts(count, decay_steps)))


@of_ours
def derivative_is_stopped(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return jax.lax.stop_gradient(init_value * (1 - parts(count, decay_steps)))


# Promises.


@functools.partial(of_ours, is_monotone=True)
def swings(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return init_value * jnp.sin(jnp.asarray(count) * 1.0)


@functools.partial(of_ours, is_continuous=True)
def jumps_up_to_its_floor(init_value: Any, decay_steps: Any, count: Any) -> Any:
    left = 1 - parts(count, decay_steps)
    return jnp.where(left > 0, init_value * left, 0.1)


@functools.partial(of_ours, end_value=lambda: 0.1)
def misses_its_end(init_value: Any, decay_steps: Any, count: Any) -> Any:
    return init_value + (0.0999 - init_value) * parts(count, decay_steps)


# Schedules as values.


@broken()
def bare_function(init_value: Any, decay_steps: Any) -> Any:
    schedule = good(init_value, decay_steps)
    return lambda count: schedule(count)


@broken()
def ignores_its_numbers(init_value: Any, decay_steps: Any) -> Any:
    return good(1.0, 10)


class Unequal:
    """A schedule that no copy equals."""

    def __init__(self, schedule: Any) -> None:
        self.schedule = schedule

    def __call__(self, count: Any) -> Any:
        return self.schedule(count)


@broken()
def unequal_copies(init_value: Any, decay_steps: Any) -> Any:
    return Unequal(good(init_value, decay_steps))


@broken()
def runs_on_cpus_only(init_value: Any, decay_steps: Any) -> Any:
    return lambda count: jnp.abs(jnp.linalg.eigvals(jnp.eye(2) * (count + 1.0))).sum()


CAUGHT = [
    (schedule_checks.values_are_finite, infinite_at_zero),
    (schedule_checks.values_are_exact, rounds_its_decay),
    (schedule_checks.large_counts_are_exact, counts_in_float32),
    (schedule_checks.counts_of_every_kind_agree, wraps_narrow_counts),
    (schedule_checks.precision_is_the_default, single_precision_always),
    (schedule_checks.precision_is_the_default, forgets_the_shape),
    (schedule_checks.jit_changes_nothing, looks_whether_it_is_traced),
    (schedule_checks.arrays_are_loops, takes_the_first_of_an_array),
    (schedule_checks.steps_do_not_recompile, compiles_each_step),
    (value_checks.numbers_do_not_recompile, compiles_each_number),
    (number_checks.numbers_are_checked, checks_no_number),
    (schedule_checks.end_points_are_legal, divides_by_its_length),
    (schedule_checks.numbers_may_be_traced, branches_on_its_number),
    (schedule_checks.gradients_by_numbers_are_finite, root_of_a_number_at_zero),
    (schedule_checks.gradients_by_steps_are_slopes, root_of_a_number_at_zero),
    (schedule_checks.gradients_by_steps_are_slopes, derivative_is_stopped),
    (schedule_checks.is_monotone, swings),
    (schedule_checks.is_continuous, jumps_up_to_its_floor),
    (schedule_checks.end_value_is_reached, misses_its_end),
    (value_checks.repr_is_the_call, bare_function),
    (value_checks.equal_calls_are_equal, bare_function),
    (value_checks.other_calls_are_unequal, ignores_its_numbers),
    (value_checks.pickles, bare_function),
    (value_checks.copies_are_equal, unequal_copies),
    (value_checks.can_be_a_static_argument, bare_function),
]


@pytest.mark.parametrize(
    ("check", "factory"), CAUGHT, ids=[f"{c.__name__}-{f.__name__}" for c, f in CAUGHT]
)
def test_the_check_catches(check: Any, factory: Any) -> None:
    subject = schedule_subject_of(factory)
    assert subject.reason_to_skip is None  # what is caught is not the call
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what breaks may raise anything
        check(subject)
    assert not isinstance(caught.value, DoesNotApply)


@pytest.mark.tpu
def test_what_does_not_compile_for_a_tpu_is_caught(tpu: Target) -> None:
    with pytest.raises(Exception, match="eig"):
        schedule_checks.compiles_for_tpu(schedule_subject_of(runs_on_cpus_only), tpu)


def test_every_check_is_a_test_of_the_suite_and_shown_to_fail() -> None:
    shared = {*value_checks.__all__} - {"survives_tree_map_and_replace"}  # of tuples
    named = {*schedule_checks.__all__, *shared, "numbers_are_checked"}
    checks = named - {"ScheduleSubject", "schedule_subject_of", "values_at"}
    assert checks == {check.__name__ for check, _ in CAUGHT} | {"compiles_for_tpu"}
    tests = {name for name in dir(ScheduleSuite) if name.startswith("test_")}
    assert tests == {f"test_{name}" for name in checks} | {
        "test_can_be_called",
        "test_exemptions_are_known",
    }


def test_factories_are_found_by_what_they_return() -> None:
    def undecorated(value: float) -> Schedule:
        return lambda count: value

    def another(value: float) -> float:
        return value

    package = ModuleType("package")
    package.names = {"good": good, "again": good, "undecorated": undecorated, "other": another}
    vars(package).update(package.names)
    package.__all__ = [*package.names]
    assert schedule_factories(package) == [good, undecorated]
    with pytest.raises(AttributeError, match="no_all has no __all__"):
        schedule_factories(ModuleType("no_all"))


@pytest.mark.parametrize("factory", [bare_function, promises(is_lovely=True)(bare_function)])
def test_what_is_no_value_or_promises_the_unknown_fails(factory: Any) -> None:
    suite = ScheduleSuite()
    with pytest.raises(pytest.fail.Exception, match="decorate it"):
        suite.test_can_be_called(factory)
    if "is_lovely" in grad_core.conformance_of(factory).promises:
        with pytest.raises(pytest.fail.Exception, match="promises is_lovely"):
            suite.test_exemptions_are_known(factory)


def test_exemptions_must_be_needed() -> None:
    needless = grad_core.exempt("values_are_finite", reason="none")(
        example(1.0, 10)(grad_core.schedule(good.__wrapped__))
    )
    with pytest.raises(pytest.fail.Exception, match="the property holds"):
        ScheduleSuite().test_values_are_finite(needless)


class TestGood(ScheduleSuite):
    """What breaks nothing passes."""

    @pytest.fixture
    def factory(self) -> Any:
        return good
