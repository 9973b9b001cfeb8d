"""Muon and its direction."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from parity.cases import Family, call, case
from parity.coverage import public
from parity.parts import falling, matrices, warmed
from parity.problem import descend


def names() -> Iterable[str]:
    """The names of the two, below ``optax``."""
    import grad_contrib
    from grad_core import is_factory

    return public(
        grad_contrib, lambda name, value: is_factory(value) and "muon" in name, "contrib."
    )


def first_and_others(tree: Any) -> Any:
    """Dimension numbers of a user's: the first axis is that of inputs, where there are two."""
    import optax

    numbers = optax.contrib.MuonDimensionNumbers

    def of(x: Any) -> Any:
        return numbers(0, tuple(range(1, x.ndim))) if x.ndim > 1 else None

    return jax.tree.map(of, tree)


SETS = ((3.0, -3.2, 1.2),) * 2 + ((2.0, -1.5, 0.5),) * 3
SWAPPED = call("contrib.MuonDimensionNumbers", 1, 0)

FAMILY = Family(
    names,
    [
        case("contrib.muon", 0.5),
        case("contrib.muon", falling, "dion", weight_decay=0.1, consistent_rms=0.2),
        case(
            "contrib.muon",
            warmed,
            (3.0, -3.2, 1.2),
            3,
            0.8,
            1e-3,
            0.1,
            matrices,
            nesterov=False,
            adam_b1=0.8,
            adam_b2=0.9,
            adam_eps_root=1e-3,
            adam_weight_decay=0.05,
            adam_learning_rate=0.3,
        ),
        case("contrib.muon", 0.1, adaptive=True, mu_dtype=jnp.float64),
        case(
            "contrib.muon",
            0.5,
            ns_steps=2,
            preconditioning="schatten",
            muon_weight_dimension_numbers=first_and_others,
        ),
        *[
            each.using(factor=-0.5, trees=("matrix",))
            for each in [
                case("contrib.scale_by_muon", weight_dimension_numbers=SWAPPED),
                case(
                    "contrib.scale_by_muon",
                    SETS,
                    5,
                    0.5,
                    mu_dtype=jnp.float64,
                    weight_dimension_numbers=SWAPPED,
                ),
                case(
                    "contrib.scale_by_muon",
                    preconditioning="spectral",
                    eps=1e-2,
                    weight_dimension_numbers=SWAPPED,
                ),
                case(
                    "contrib.scale_by_muon",
                    preconditioning="aol",
                    ns_steps=4,
                    nesterov=False,
                    weight_dimension_numbers=SWAPPED,
                ),
                case(
                    "contrib.scale_by_muon",
                    preconditioning="schatten",
                    adaptive=True,
                    weight_dimension_numbers=SWAPPED,
                ).using(factor=-0.01),
            ]
        ],
    ],
    descend,
)
