"""The families of cases: every module here has a `FAMILY`, and is found by itself."""

import importlib
import pkgutil

from parity.cases import Family


def names() -> list[str]:
    """The names of all families."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Family:
    """The family of this name."""
    found: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return found
