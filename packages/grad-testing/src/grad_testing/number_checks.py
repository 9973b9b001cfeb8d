"""Hyperparameters: their ranges, schedules in their place, and derivatives through updates."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from grad_testing.checking import (
    DoesNotApply,
    Subject,
    TransformationSubject,
    require,
    require_close,
    require_finite,
    require_refused,
    sample,
    take_steps,
)

__all__ = [
    "end_points_are_legal",
    "gradients_flow",
    "numbers_are_checked",
    "numbers_may_be_traced",
    "schedules_stand_for_numbers",
]


def numbers_are_checked(subject: Subject) -> None:
    """A number that is NaN or out of its range is refused, naming factory, argument and value."""
    for name, value in subject.arguments.arguments.items():
        if type(value) is float:
            require(
                name in subject.ranges,
                f"{subject.name}: {name} is a float, but its annotation tells no range; "
                "annotate it with grad_core.Real, NonNegative, Fraction or Decay",
            )
    for name, range_ in subject.ranges.items():
        outside = [x for x in (range_.low - 1, range_.high + 1) if math.isfinite(x)]
        for bad in (*outside, math.nan):
            require_refused(subject, name, bad, ValueError)
        require_refused(subject, name, "a string", TypeError)


def end_points_are_legal(subject: TransformationSubject) -> None:
    """Both ends of a number's range, and either sign where it is free, make finite updates."""
    params, gradients = sample()
    for name, range_ in subject.ranges.items():
        ends = {x for x in (range_.low, range_.high) if math.isfinite(x)}
        if range_.low == -math.inf and name in subject.numbers:
            ends |= {0.0, -subject.numbers[name]}
        if not subject.parameters[name].schedulable or name in subject.numbers:
            for end in sorted(ends):
                value = type(subject.numbers.get(name, 0.0))(end)
                tx = subject.make_runner(**{name: value})
                what = f"{subject.name}({name}={value!r})"
                require_finite(take_steps(tx, params, gradients), what)


def numbers_may_be_traced(subject: TransformationSubject) -> None:
    """Numbers may be arrays, and be traced by `jax.jit` and `jax.vmap`, with the same result."""
    if not subject.numbers:
        raise DoesNotApply("its example has no numbers")
    params, gradients = sample()

    def updates_at(numbers: dict[str, Any]) -> Any:
        return take_steps(subject.make_runner(**numbers), params, gradients[:2])[0]

    arrays = {name: jnp.asarray(x) for name, x in subject.numbers.items()}
    expected = subject.reference[0][:2]
    what = f"{subject.name}: with numbers"
    require_close(updates_at(arrays), expected, f"{what} as arrays")
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), arrays)
    batched = jax.jit(jax.vmap(updates_at))(batch)
    last = jax.tree.map(lambda u: u[-1], batched)
    require_close(last, expected, f"{what} traced by jit and vmap")


def schedules_stand_for_numbers(subject: TransformationSubject) -> None:
    """Where a schedule may stand for a number, a constant one means that number, also under jit."""
    names = [name for name in subject.numbers if subject.parameters[name].schedulable]
    if not names:
        raise DoesNotApply("it takes no schedules in place of numbers")
    params, gradients = sample()
    for name in names:
        value = subject.numbers[name]
        counts: list[Any] = []

        def constant(count: Any, value: float = value, counts: list[Any] = counts) -> float:
            counts.append(count)
            return value

        tx = subject.make_runner(**{name: constant})
        what = f"{subject.name}: with a constant schedule for {name}"
        updates, _ = take_steps(tx, params, gradients)
        require_close(updates, subject.reference[0], f"{what}, updates")
        seen = sorted({int(c) for c in counts if not isinstance(c, jax.core.Tracer)})
        require(seen == [0, 1, 2], f"{what}: it was called with counts {seen}, not 0, 1, 2")
        updates, _ = take_steps(tx, params, gradients, update=jax.jit(tx.update))
        require_close(updates, subject.reference[0], f"{what} under jit, updates")


def gradients_flow(subject: TransformationSubject) -> None:
    """Derivatives by numbers, gradients and parameters are finite, also at zero gradients."""
    params, gradients = sample()
    zero = jax.tree.map(jnp.zeros_like, params)
    numbers = {name: jnp.asarray(x, jnp.float32) for name, x in subject.numbers.items()}

    def size(numbers: Any, gradients: Any, params: Any) -> jax.Array:
        updates, _ = take_steps(subject.make_runner(**numbers), params, gradients)
        total: jax.Array = sum((jnp.sum(u**2 + u) for u in jax.tree.leaves(updates)), jnp.zeros(()))
        return total

    derivative = jax.jit(jax.grad(size, argnums=(0, 1, 2)))
    for name, each in (("gradients", gradients[:2]), ("zero gradients", [zero, zero])):
        require_finite(
            derivative(numbers, each, params),
            f"{subject.name}: derivatives by (numbers, gradients, parameters) at {name}",
        )
