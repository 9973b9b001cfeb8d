"""What a factory tells the conformance suite about itself, beside its definition.

The suite of ``grad-testing`` finds every public factory by itself. A factory with required
arguments says how to call it; one that rightly breaks a property says which, and why.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


class Conformance(NamedTuple):
    """How the suite calls a factory, and which properties it may break, with the reasons."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = {}
    exceptions: Mapping[str, str] = {}


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


def exempt(check: str, reason: str) -> Callable[[F], F]:
    """Excuses a factory from one property of the conformance suite, with the reason."""

    def mark(factory: F) -> F:
        known = conformance_of(factory)
        return _mark(factory, known._replace(exceptions={**known.exceptions, check: reason}))

    return mark


def _mark(factory: F, conformance: Conformance) -> F:
    factory.__conformance__ = conformance  # type: ignore[attr-defined]
    return factory
