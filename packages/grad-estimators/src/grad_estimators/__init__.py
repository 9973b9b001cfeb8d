"""Monte-Carlo gradient estimators, control variates and perturbations.

Nothing is here yet in 0.3.0. Importing this package does not import distrax: the functions that
need it will import it on first use.
"""

__all__: list[str] = []
