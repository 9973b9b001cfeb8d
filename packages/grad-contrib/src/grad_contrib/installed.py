"""Transformations that other distributions contribute, as attributes of `optax.contrib`.

A distribution offers one by an entry point in the group ``optax.contrib``, in its pyproject::

    [project.entry-points."optax.contrib"]
    soften = "grad_soften:soften"

Where it is installed, ``optax.contrib.soften`` is that object. It is imported on first use, so that
a distribution that is broken, or slow to import, does no harm to ``import optax``.
"""

import functools
import importlib.metadata
import warnings
from typing import Any

import grad_contrib

__all__ = ["__dir__", "__getattr__"]

GROUP = "optax.contrib"


def __getattr__(name: str) -> Any:
    """The object that an installed distribution contributes under this name.

    Args:
      name: The name of an entry point in the group ``optax.contrib``.

    Returns:
      What the entry point leads to.

    Raises:
      AttributeError: If no distribution contributes the name, or several do, or the one that does
        cannot be imported. (In that case there is a warning too, since ``from optax.contrib import
        name`` hides why.)
    """
    if name.startswith("__"):
        raise AttributeError(f"module {GROUP!r} has no attribute {name!r}")
    return _contributed(name)


def __dir__() -> list[str]:
    """The names that are here, and those that installed distributions contribute.

    Nothing is imported for it.
    """
    return sorted({*grad_contrib.__all__, *importlib.metadata.entry_points(group=GROUP).names})


@functools.cache
def _contributed(name: str) -> Any:
    found = importlib.metadata.entry_points(group=GROUP, name=name)
    places = {entry.value: _distribution(entry) for entry in found}
    if not places:
        raise AttributeError(
            f"module {GROUP!r} has no attribute {name!r}, and no installed distribution "
            "contributes one of this name."
        )
    if len(places) > 1:
        raise AttributeError(
            f"{GROUP}.{name} is contributed by several distributions: "
            f"{', '.join(sorted(places.values()))}. Uninstall all but one, or import theirs."
        )
    (entry,) = {entry.value: entry for entry in found}.values()
    try:
        return entry.load()
    except Exception as error:
        message = (
            f"{GROUP}.{name} is contributed by {_distribution(entry)}, which cannot be imported: "
            f"{type(error).__name__}: {error}. Mend or uninstall that distribution."
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        raise AttributeError(message) from error


def _distribution(entry: importlib.metadata.EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.value
