"""The cases of ``torch_losses.py``: a module here is a family, found by itself, with ``CASES``.

::

    from torch_cases import Case, numbers

    CASES = {
        "l1": Case("l1_loss", {"input": numbers(3, 4), "target": numbers(3, 4, seed=1)}),
    }
"""

import importlib
import pkgutil
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A call of torch.

    Attributes:
      function: Its name in ``torch.nn.functional``, or a function of torch tensors, whose name
        counts then, for what takes more than one call.
      inputs: The arrays, by name, in the order in which they are passed, of any shapes and of
        floating point, integer or boolean dtypes. Floating point ones are passed as float64.
      arguments: What is passed besides, by keyword; ``reduction="none"`` unless it says otherwise.
      wrt: The inputs whose gradients are recorded; with none given, the first.
    """

    function: str | Callable[..., Any]
    inputs: Mapping[str, Array]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    wrt: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.function if isinstance(self.function, str) else self.function.__name__

    @property
    def differentiated(self) -> tuple[str, ...]:
        return self.wrt or (next(iter(self.inputs)),)


def numbers(*shape: int, seed: int = 0, low: float = -3.0, high: float = 3.0) -> Array:
    """Odd multiples of 1/128 in between, so that float32 has them and none is 0 or a round number.

    They are the same with every version of Python and NumPy.
    """
    rng, size = random.Random(seed), np.prod(shape, dtype=int)
    steps = [rng.randrange(round(64 * low), round(64 * high)) for _ in range(size)]
    return (np.reshape(steps, shape) + 0.5) / 64


def integers(*shape: int, seed: int = 0, low: int = 0, high: int) -> Array:
    """Integers from low to below high, the same with every version of Python and NumPy."""
    rng, size = random.Random(seed), np.prod(shape, dtype=int)
    return np.reshape([rng.randrange(low, high) for _ in range(size)], shape)


def families() -> dict[str, dict[str, Case]]:
    """The cases of each module here."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").CASES for name in names}
