"""Contributed transformations of matrices."""

from collections.abc import Iterable
from typing import Any

import jax

from parity.cases import Case, Family, call, case, find
from parity.coverage import public
from parity.parts import falling, matrices
from parity.problem import descend

# Rows of docs/differences.md.
PROJECTORS = "projectors of `galore` with x64 on"

OF_MATRICES = ("galore",)


def names() -> Iterable[str]:
    """The names of these factories, below ``optax``."""
    import grad_contrib
    from grad_core import is_factory

    def suits(name: str, value: Any) -> bool:
        return is_factory(value) and any(each in name for each in OF_MATRICES)

    return public(grad_contrib, suits, "contrib.")


def turned(tree: Any) -> Any:
    """GaLore's dimension numbers: columns before rows, and the third axis with the first."""
    axes: dict[int, Any] = {2: (1, 0), 3: ((0, 2), 1)}

    def of_leaf(x: Any) -> Any:
        return find("contrib.GaLoreDimensionNumbers")(*axes[x.ndim]) if x.ndim in axes else None

    return jax.tree.map(of_leaf, tree)


# Singular vectors have free signs. Those of the first projector do not matter, as all these bases
# turn over with what they are shown; those of later ones do, where a base keeps first moments.
RMS = call("scale_by_rms", 0.9, 1e-3)
LION = call("scale_by_lion", 0.5, 0.9)
NUMBERS = call("contrib.GaLoreDimensionNumbers", 1, 0)

GALORE: list[Case] = [
    case("contrib.galore", 0.1, 2),
    case("contrib.galore", falling, 2, 7, 0.25, RMS, 0.1, matrices),
    case("contrib.galore", 0.1, 1, 100, weight_decay=0.1, weight_dimension_numbers=turned),
    case("contrib.galore", 0.1, base_optimizer=LION),
    *(
        each.using(factor=-0.1)
        for each in (
            case("contrib.scale_by_galore", 2),
            case("contrib.scale_by_galore", 1, 5, 0.5, call("identity")),
            case("contrib.scale_by_galore", 2, 3, 2.0, RMS, turned),
            case("contrib.scale_by_galore", weight_dimension_numbers=NUMBERS).using(
                trees=("matrix",)
            ),
        )
    ),
]

FAMILY = Family(names, [each.differs(PROJECTORS, float64=1e-5) for each in GALORE], descend)
