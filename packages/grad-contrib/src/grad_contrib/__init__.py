"""Contributed gradient transformations, one a module.

Nothing is here yet in 0.3.0.
"""

__all__: list[str] = []
