"""What a factory tells the conformance suite about itself, beside its definition.

The suite of ``grad-testing`` finds every public factory by itself. A factory with required
arguments says how to call it; one that rightly breaks a property says which, and why.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Conformance(NamedTuple):
    """How the suite calls a factory and ``update``, and which properties it may break, and why.

    Of the properties that it may break, those in `not_run` are not looked at.
    """

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = {}
    extra_args: Mapping[str, object] = {}
    exceptions: Mapping[str, str] = {}
    promises: Mapping[str, Any] = {}
    not_run: frozenset[str] = frozenset()


def conformance_of(factory: Callable[..., Any]) -> Conformance:
    """What the factory's module tells of it; nothing, if it tells nothing."""
    found: Conformance = getattr(factory, "__conformance__", Conformance())
    return found


def example(*args: object, **kwargs: object) -> Callable[[F], F]:
    """Tells the conformance suite how to call a factory with required arguments.

    Example:
      >>> import grad_core
      >>> @grad_core.example(0.5)
      ... @grad_core.rule
      ... def multiply(factor: grad_core.Real) -> grad_core.LeafRule:
      ...     return grad_core.LeafRule(lambda g: factor * g)
    """

    def mark(factory: F) -> F:
        return _mark(factory, conformance_of(factory)._replace(args=args, kwargs=kwargs))

    return mark


def needs_extra_args(**extra_args: object) -> Callable[[F], F]:
    """Tells the conformance suite which extra arguments ``update`` requires, and gives values.

    Where the suite minimises a loss, it passes the true ``value``, ``grad`` and ``value_fn``
    instead.

    Example:
      >>> import grad_core
      >>> @grad_core.needs_extra_args(value=2.0)
      ... @grad_core.rule
      ... def scale_by_value() -> grad_core.LeafRule:
      ...     return grad_core.LeafRule(
      ...         lambda g, value: value * g, once=lambda value: {"value": value}
      ...     )
    """

    def mark(factory: F) -> F:
        return _mark(factory, conformance_of(factory)._replace(extra_args=extra_args))

    return mark


def promises(**promised: object) -> Callable[[F], F]:
    """Tells the conformance suite what holds of this factory beyond what holds of all.

    The suite's docstring says which promises it knows. One that depends on the call is a function
    that asks for arguments of the factory by name.

    Example:
      >>> import grad_core
      >>> @grad_core.example(0.1, 10)
      ... @promises(boundaries=lambda warmup_steps: (warmup_steps,), is_continuous=True)
      ... @grad_core.schedule
      ... def warmup(peak: grad_core.Real, warmup_steps: grad_core.Real) -> grad_core.Schedule:
      ...     return lambda count: peak * (count / warmup_steps).clip(0, 1)
    """

    def mark(factory: F) -> F:
        known = conformance_of(factory)
        return _mark(factory, known._replace(promises={**known.promises, **promised}))

    return mark


def exempt(check: str, reason: str, *, run: bool = True) -> Callable[[F], F]:
    """Excuses a factory from one property of the conformance suite, with the reason.

    The suite runs the check nevertheless, and requires that it fails; with ``run=False`` it does
    not, for what would take too long.
    """

    def mark(factory: F) -> F:
        known = conformance_of(factory)
        exceptions = {**known.exceptions, check: reason}
        not_run = known.not_run if run else known.not_run | {check}
        return _mark(factory, known._replace(exceptions=exceptions, not_run=not_run))

    return mark


def _mark(factory: F, conformance: Conformance) -> F:
    factory.__conformance__ = conformance  # type: ignore[attr-defined]
    return factory
