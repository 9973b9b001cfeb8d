"""Monte-Carlo gradient estimators, control variates and perturbations.

Importing this package does not import distrax: the functions that need it import it on first use.
"""

from grad_estimators.normal import multi_normal

__all__ = [
    "multi_normal",
]
