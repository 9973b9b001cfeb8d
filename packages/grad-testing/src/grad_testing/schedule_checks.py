"""Schedules: exact at every step, and the same however they are called.

A *check* is a function of a `ScheduleSubject` that raises if what it makes breaks a property.
"""

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grad_testing.checking import (
    Compilations,
    DoesNotApply,
    Factory,
    Subject,
    require,
    require_close,
    require_finite,
)
from grad_testing.tolerances import Tolerance
from grad_testing.tpu_targets import Target, abstract

__all__ = [
    "ScheduleSubject",
    "arrays_are_loops",
    "compiles_for_tpu",
    "counts_of_every_kind_agree",
    "end_points_are_legal",
    "end_value_is_reached",
    "gradients_by_numbers_are_finite",
    "gradients_by_steps_are_slopes",
    "is_continuous",
    "is_monotone",
    "jit_changes_nothing",
    "large_counts_are_exact",
    "numbers_may_be_traced",
    "precision_is_the_default",
    "schedule_subject_of",
    "steps_do_not_recompile",
    "values_are_exact",
    "values_are_finite",
    "values_at",
]

Values = np.ndarray[Any, np.dtype[np.float64]]

LATE = (2**24 - 1, 2**24 + 1, 2**24 + 3, 2**30 + 1, 2**31 - 2, 2**31 - 1)
"""Steps that float32 cannot tell from their neighbours, up to the last that int32 can hold."""


class ScheduleSubject(Subject):
    """A factory of schedules under test.

    Attributes:
      schedule: What the example call makes.
    """

    @property
    def schedule(self) -> Any:
        """What the example call makes."""
        return self.made

    def make(self, **changes: object) -> Any:
        """The example call with other values of some arguments."""
        made = super().make(**changes)
        require(callable(made), f"{self.name} must return a schedule, but returned {made!r}")
        return made

    def results(self, made: Any) -> list[Any]:
        """The values of a schedule at a few steps."""
        return [made(step) for step in (0, 3, 100)]

    def promised(self, what: str, **changes: object) -> Any:
        """What the factory's module promises of the example call; None if nothing."""
        promise = self.conformance.promises.get(what)
        if not callable(promise):
            return promise
        arguments = {**self.arguments.arguments, **changes}
        return promise(**{name: arguments[name] for name in inspect.signature(promise).parameters})

    def boundaries(self, **changes: object) -> list[float]:
        """The steps after 0 at which the parts of the schedule meet."""
        return sorted({b for b in self.promised("boundaries", **changes) or () if b > 0})

    def steps(self, **changes: object) -> list[int]:
        """Step 0, the neighbours of each boundary, steps between them, and steps beyond."""
        marks = [0, 7, *self.boundaries(**changes)]
        near = {math.floor(mark) + side for mark in marks for side in (-2, -1, 0, 1, 2)}
        between = {int((a + b) / 2) for a, b in itertools.pairwise(sorted(marks))}
        last = int(marks[-1])
        return sorted(step for step in near | between | {last + 1000} if 0 <= step < 2**31)


@functools.lru_cache(maxsize=256)
def schedule_subject_of(factory: Factory) -> ScheduleSubject:
    """The `ScheduleSubject` for a factory; one for all checks."""
    return ScheduleSubject(factory)


def values_at(schedule: Callable[[Any], Any], steps: Sequence[Any]) -> Values:
    """The values of a schedule at steps, one by one."""
    return np.array([np.asarray(schedule(step), np.float64) for step in steps])


def _in_double(schedule: Callable[[Any], Any], steps: Sequence[Any]) -> Values:
    with jax.enable_x64(True):
        return values_at(schedule, steps)


def _tolerance(values: Values, units: int = 32) -> Tolerance:
    eps = float(np.finfo(np.float32).eps)
    finite = np.abs(values[np.isfinite(values)])
    return Tolerance(units * eps, units / 4 * eps * float(finite.max(initial=0.0)))


def _require_exact(subject: ScheduleSubject, schedule: Any, steps: Sequence[int]) -> None:
    expected = _in_double(schedule, steps)
    for step, got, want in zip(steps, values_at(schedule, steps), expected, strict=True):
        what = f"{schedule!r} at step {step}, against double precision"
        require_close(got, want, what, _tolerance(expected))


# Values at steps.


def values_are_finite(subject: ScheduleSubject) -> None:
    """From step 0 over all boundaries to step 2^31 - 1 values are finite numbers."""
    for step in (*subject.steps(), *LATE):
        value = subject.schedule(step)
        require(
            np.shape(value) == (), f"{subject.schedule!r} at step {step} is no number: {value!r}"
        )
        require_finite(value, f"{subject.schedule!r} at step {step}")


def values_are_exact(subject: ScheduleSubject) -> None:
    """Values in float32 are those in float64, rounded: around boundaries, and up to 2^31 - 1."""
    _require_exact(subject, subject.schedule, [*subject.steps(), *LATE])


def large_counts_are_exact(subject: ScheduleSubject) -> None:
    """So are they where boundaries lie beyond 2^24, and steps are no longer float32 numbers.

    Tried are all ways to add 2^24 + 1 to some of the arguments that count steps: those whose name
    ends in ``steps`` or ``begin`` or begins with ``boundaries``.
    """
    moved = dict(_moved_counts(subject, 2**24 + 1))
    if not moved:
        raise DoesNotApply("no argument of its example counts steps")
    made = 0
    for size in range(1, len(moved) + 1):
        for names in itertools.combinations(moved, size):
            changes = {name: moved[name] for name in names}
            try:
                schedule = subject.make(**changes)
            except ValueError:
                continue  # these do not go together
            made += 1
            _require_exact(subject, schedule, subject.steps(**changes))
    require(made, f"{subject.name} refuses every large count")


def _moved_counts(subject: Subject, by: int) -> Iterator[tuple[str, Any]]:
    for name, value in subject.arguments.arguments.items():
        if name.endswith(("steps", "begin")) or name.startswith("boundaries"):
            if type(value) is int:
                yield name, value + by
            elif isinstance(value, Mapping):
                yield name, {step + by: x for step, x in value.items()}
            elif isinstance(value, tuple | list):
                yield name, tuple(step + by for step in value)


def counts_of_every_kind_agree(subject: ScheduleSubject) -> None:
    """A step as a Python, NumPy or JAX number, of integer or floating dtype, gives one value."""
    for step in [step for step in subject.steps() if step < 100]:
        want = subject.schedule(step)
        kinds = (np.int64, np.int32, np.uint8, jnp.int32, jnp.uint32, jnp.int8)
        floats = (float, np.float32, np.float64, jnp.float32, jnp.float16, jnp.bfloat16)
        for kind in (*kinds, *floats):
            got = subject.schedule(kind(step))
            what = f"{subject.schedule!r} at step {step} as {kind.__name__}"
            require_close(jnp.asarray(got), jnp.asarray(want), what)
            same = jnp.result_type(got) == jnp.result_type(want)
            require(same, f"{what} is {got!r}, but of an int {want!r}: the dtypes differ")


def precision_is_the_default(subject: ScheduleSubject) -> None:
    """Values are float32, or float64 where that is switched on; arrays, shaped like the steps."""
    for x64, dtype in ((False, "float32"), (True, "float64")):
        with jax.enable_x64(x64):
            for step in (3, 3.0, np.int32(3), np.arange(6).reshape(2, 3)):
                value = subject.schedule(step)
                what = f"{subject.schedule!r} of {step!r} with x64 {'on' if x64 else 'off'}"
                require(isinstance(value, jax.Array), f"{what} is no array, but {value!r}")
                require(value.dtype == dtype, f"{what} is {value.dtype}, but should be {dtype}")
                shapes = value.shape, np.shape(step)
                require(shapes[0] == shapes[1], f"{what} has shape {shapes[0]}, not {shapes[1]}")


# Ways to call.


def jit_changes_nothing(subject: ScheduleSubject) -> None:
    """Under `jax.jit`, and in a scan over the steps, values are the same."""
    steps = subject.steps()
    expected = values_at(subject.schedule, steps)
    got = values_at(jax.jit(subject.schedule), steps)
    require_close(got, expected, f"{subject.schedule!r} under jit", _tolerance(expected))
    _, scanned = jax.lax.scan(lambda _, t: (None, subject.schedule(t)), None, jnp.array(steps))
    require_close(
        np.asarray(scanned), expected, f"{subject.schedule!r} in scan", _tolerance(expected)
    )


def arrays_are_loops(subject: ScheduleSubject) -> None:
    """An array of steps, and `jax.vmap` over it, gives the curve that a loop gives."""
    steps = np.array([*subject.steps(), *LATE])
    expected = values_at(subject.schedule, [int(step) for step in steps])
    runs: dict[str, Callable[[], Any]] = {
        "of an array": lambda: subject.schedule(steps),
        "of a JAX array": lambda: subject.schedule(jnp.asarray(steps)),
        "of a matrix": lambda: subject.schedule(steps[:, None])[:, 0],
        "under vmap": lambda: jax.vmap(subject.schedule)(jnp.asarray(steps)),
    }
    for how, run in runs.items():
        got = np.asarray(run())
        require_close(got, expected, f"{subject.schedule!r} {how}", _tolerance(expected))


def steps_do_not_recompile(subject: ScheduleSubject) -> None:
    """However the step grows, what was compiled for the first is used for all."""
    subject.schedule(0), subject.schedule(jnp.int32(0))
    later = [*subject.steps(), *LATE]
    arrays = [jnp.int32(step) for step in later]
    with Compilations() as compilations:
        for step in (*later, *arrays):
            subject.schedule(step)
    require(
        compilations.count == 0,
        f"{subject.schedule!r} compiled {compilations.count} functions anew as the step grew",
    )


# Hyperparameters.


def end_points_are_legal(subject: ScheduleSubject) -> None:
    """The ends of a number's range make finite values, or are refused for another's sake."""
    for name, range_ in subject.ranges.items():
        for end in (x for x in (range_.low, range_.high) if math.isfinite(x)):
            value = type(subject.numbers.get(name, 0.0))(end)
            try:
                schedule = subject.make(**{name: value})
            except ValueError as error:
                named = subject.name in str(error) and name in str(error)
                require(named, f"{subject.name}({name}={value!r}) is refused with: {error}")
            else:
                steps = [*subject.steps(), *LATE]
                require_finite(values_at(schedule, steps), f"{schedule!r} at steps {steps}")


def numbers_may_be_traced(subject: ScheduleSubject) -> None:
    """Numbers may be arrays, and be traced by `jax.jit` and `jax.vmap`, with the same result."""
    if not subject.numbers:
        raise DoesNotApply("its example has no numbers")
    steps = jnp.array(subject.steps())

    def curve(numbers: dict[str, Any]) -> Any:
        return subject.make(**numbers)(steps)

    arrays = {name: jnp.asarray(x) for name, x in subject.numbers.items()}
    expected = values_at(subject.schedule, subject.steps())
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), arrays)
    runs: dict[str, Callable[[], Any]] = {
        "as arrays": lambda: curve(arrays),
        "traced by jit": lambda: jax.jit(curve)(arrays),
        "traced by vmap": lambda: jax.vmap(curve)(batch)[1],
    }
    for how, run in runs.items():
        what = f"{subject.name}: with numbers {how}"
        require_close(np.asarray(run()), expected, what, _tolerance(expected))


def gradients_by_numbers_are_finite(subject: ScheduleSubject) -> None:
    """Derivatives by the numbers of the example call are finite at every step."""
    if not subject.numbers:
        raise DoesNotApply("its example has no numbers")
    numbers = {name: jnp.asarray(x, jnp.float32) for name, x in subject.numbers.items()}
    steps = [*subject.steps(), *LATE]
    derivatives = jax.jit(jax.jacrev(lambda numbers, t: subject.make(**numbers)(t)))
    require_finite(
        derivatives(numbers, jnp.array(steps)),
        f"{subject.name}: derivatives by its numbers at steps {steps}",
    )


def gradients_by_steps_are_slopes(subject: ScheduleSubject) -> None:
    """Derivatives by the step are finite, and between boundaries the slope of the curve."""
    derivative = jax.grad(lambda t: subject.schedule(t))
    for step in (*subject.steps(), *LATE):
        require_finite(
            derivative(float(step)), f"the derivative of {subject.schedule!r} at step {step}"
        )
    if subject.promised("boundaries") is None:
        return
    h = 1e-5
    for begin, end in _spans(subject):
        inside = begin + 0.37 * (end - begin)
        before, after = _in_double(subject.schedule, [inside - h, inside + h])
        slope = (after - before) / (2 * h)
        with jax.enable_x64(True):
            got = np.asarray(derivative(inside))
        what = f"the derivative of {subject.schedule!r} at step {inside}, against the slope"
        require_close(got, slope, what, Tolerance(1e-5, 1e-7))


# What the factory's module promises.


def _spans(subject: ScheduleSubject) -> list[tuple[float, float]]:
    """The spans between boundaries, the last one cut off."""
    marks = [0.0, *subject.boundaries()]
    return list(itertools.pairwise([*marks, marks[-1] + 9]))


def is_monotone(subject: ScheduleSubject) -> None:
    """Between boundaries it only rises, or only falls, if promised."""
    if not subject.promised("is_monotone"):
        raise DoesNotApply("its module does not promise that")
    for begin, end in _spans(subject):
        steps = np.linspace(begin, end, 33)[:-1]  # at the end it may jump
        values = _in_double(subject.schedule, [float(step) for step in steps])
        slack = 1e-12 * np.max(np.abs(values))
        changes = np.diff(values)
        one_way = (changes >= -slack).all() or (changes <= slack).all()
        require(
            one_way,
            f"{subject.schedule!r} should only rise or only fall from step {begin} to step {end}, "
            f"but goes {values}",
        )


def is_continuous(subject: ScheduleSubject) -> None:
    """It does not jump at boundaries, if promised."""
    if not subject.promised("is_continuous"):
        raise DoesNotApply("its module does not promise that")
    values = _in_double(subject.schedule, subject.steps())
    slack = 1e-2 * (np.ptp(values) or 1.0)
    for step in subject.boundaries():
        before, after = _in_double(subject.schedule, [step - 1e-6, float(step)])
        require(
            abs(after - before) <= slack,
            f"{subject.schedule!r} should not jump, but does from {before} to {after} at {step}",
        )


def end_value_is_reached(subject: ScheduleSubject) -> None:
    """From the last boundary on it has the value that is promised."""
    promised = subject.promised("end_value")
    if promised is None:
        raise DoesNotApply("its module promises no last value")
    want = np.float32(promised)
    last = math.ceil([0.0, *subject.boundaries()][-1])
    for late in (last, last + 1, 1000 * last + 1, 2**31 - 1):
        what = f"{subject.schedule!r} at step {late}, against its last value"
        got = np.asarray(subject.schedule(late))
        require_close(got, np.asarray(want), what, Tolerance(2e-7, 0.0))


# Devices.


def compiles_for_tpu(subject: ScheduleSubject, target: Target) -> None:
    """The value at a step compiles for TPUs, and needs what is on record.

    Args:
      subject: The factory under test.
      target: A TPU, or a mesh of them.
    """
    count = target.placed(abstract((), "int32"), {})
    _, costs = target.compile(subject.schedule, count)
    target.enter(subject.path, "value", costs)
