"""Wrappers around gradient transformations: accumulation, conditions, averaging and the like.

Nothing is here yet in 0.3.0.
"""

__all__: list[str] = []
