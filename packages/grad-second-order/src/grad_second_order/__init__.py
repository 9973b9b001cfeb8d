"""Curvature products and diagonals, line searches and L-BFGS.

Nothing is here yet in 0.3.0.
"""

__all__: list[str] = []
