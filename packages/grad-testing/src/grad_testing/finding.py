"""Finding the factories that a package offers."""

import inspect
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from grad_core import GradientTransformation, Schedule, is_factory

__all__ = ["loss_functions", "schedule_factories", "transformation_factories"]

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
    return _found(package, _makes_transformations)


def schedule_factories(package: ModuleType) -> list[Factory]:
    """The public factories of schedules of a package, in the order of its ``__all__``.

    They are the functions, decorated or not, that are annotated to return a `Schedule`. A factory
    that stands there under two names is found once.

    Args:
      package: A module with ``__all__``; modules that it names there are searched too.

    Returns:
      The factories.

    Raises:
      AttributeError: If the module has no ``__all__``.

    Example:
      >>> from types import ModuleType
      >>> import grad_core
      >>> from grad_testing import schedule_factories
      >>> @grad_core.schedule
      ... def halving(init_value: grad_core.Real) -> grad_core.Schedule:
      ...     return lambda count: init_value * 0.5**count
      >>> package = ModuleType("package")
      >>> package.halving, package.__all__ = halving, ["halving"]
      >>> schedule_factories(package) == [halving]
      True
    """
    return _found(package, _makes_schedules)


def loss_functions(package: ModuleType) -> list[Factory]:
    """The public functions of a package, in the order of its ``__all__``, losses or not.

    That none escapes the suite by accident, all are found; those that are no losses say so, with
    ``@grad_core.exempt("is_a_loss", reason="...")``. A function that stands there under two names
    is found once.

    Args:
      package: A module with ``__all__``; modules that it names there are searched too.

    Returns:
      The functions.

    Raises:
      AttributeError: If the module has no ``__all__``.

    Example:
      >>> from types import ModuleType
      >>> import jax.numpy as jnp
      >>> from grad_testing import loss_functions
      >>> def absolute_error(predictions, targets):
      ...     return jnp.abs(predictions - targets)
      >>> package = ModuleType("package")
      >>> package.absolute_error, package.__all__ = absolute_error, ["absolute_error"]
      >>> loss_functions(package) == [absolute_error]
      True
    """
    return _found(package, lambda x: callable(x) and not inspect.isclass(x))


def _found(package: ModuleType, is_wanted: Callable[[Any], bool]) -> list[Factory]:
    """The wanted among the public names of a package, each once, in their order."""
    return list({id(x): x for x in _public(package) if is_wanted(x)}.values())


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
    if isinstance(returned, str):
        return returned.startswith("GradientTransformation")
    return inspect.isclass(returned) and issubclass(returned, GradientTransformation)


def _makes_schedules(candidate: Any) -> bool:
    if not (is_factory(candidate) or inspect.isfunction(candidate)):
        return False
    return _return_type(candidate) in (Schedule, "Schedule")


def _return_type(function: Factory) -> Any:
    """What a function is annotated to return, or its bare name if only type checkers know it."""
    try:
        return typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return str(inspect.signature(function).return_annotation).rpartition(".")[2]
