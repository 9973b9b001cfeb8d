"""Checks of arguments that annotations cannot tell."""

from grad_core import Scalar


def pair_of_decays(factory: str, betas: tuple[Scalar, Scalar]) -> tuple[Scalar, Scalar]:
    """The two decays of an argument ``betas``.

    Raises:
      TypeError: If it is no pair.
      ValueError: If a Python number among them is not in [0, 1].
    """
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise TypeError(f"{factory}: betas must be a pair of numbers; got {betas!r}.")
    for b in betas:
        if isinstance(b, int | float) and not 0 <= b <= 1:
            raise ValueError(f"{factory}: betas must be in [0, 1]; got {betas!r}.")
    return betas[0], betas[1]
