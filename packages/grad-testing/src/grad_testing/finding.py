"""Finding the factories that a package offers."""

import inspect
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from grad_core import GradientTransformation, is_factory

__all__ = ["transformation_factories"]

Factory = Callable[..., Any]


def transformation_factories(package: ModuleType) -> list[Factory]:
    """The public factories of transformations of a package, in the order of its ``__all__``.

    They are those that are decorated, and also functions that are not, but that are annotated to
    return a `GradientTransformation`: the suite will say what they lack. A factory that stands
    there under two names is found once.

    Args:
      package: A module with ``__all__``; modules that it names there are searched too.

    Returns:
      The factories.

    Raises:
      AttributeError: If the module has no ``__all__``.

    Example:
      >>> import grad_core
      >>> from grad_testing import transformation_factories
      >>> grad_core.scale in transformation_factories(grad_core)
      True
    """
    found: dict[int, Factory] = {}
    for candidate in _public(package):
        if _makes_transformations(candidate):
            found.setdefault(id(candidate), candidate)
    return list(found.values())


def _public(package: ModuleType) -> Iterator[Any]:
    if not hasattr(package, "__all__"):
        raise AttributeError(
            f"{package.__name__} has no __all__, so its public factories cannot be found; "
            "list its public names there."
        )
    for name in package.__all__:
        value = getattr(package, name)
        if isinstance(value, ModuleType):
            if hasattr(value, "__all__") and value.__name__.startswith(f"{package.__name__}."):
                yield from _public(value)
        else:
            yield value


def _makes_transformations(candidate: Any) -> bool:
    if not (is_factory(candidate) or inspect.isfunction(candidate)):
        return False
    returned = _return_type(candidate)
    if returned is None:
        return is_factory(candidate)
    return inspect.isclass(returned) and issubclass(returned, GradientTransformation)


def _return_type(function: Factory) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):  # names that exist only for type checkers
        annotation = inspect.signature(function).return_annotation
        named = str(annotation).rpartition(".")[2]
        is_ours = named.startswith("GradientTransformation")
        return GradientTransformation if is_ours else annotation
