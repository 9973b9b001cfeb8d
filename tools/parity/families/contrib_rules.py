"""Contributed rules: optimizers that estimate their rate, plain ones, directions."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp

from parity.cases import Case, Family, case
from parity.coverage import public
from parity.parts import NARROW, falling, matrices, vectors, warmed
from parity.problem import descend

# Rows of docs/differences.md.
DECAY = "weight decay of `momo`, `momo_adam`"
ROOT = "the weight of gradients in `madgrad` with x64 on"

RULES = (
    "acprop",
    "ademamix",
    "adopt",
    "cocob",
    "dadapt",
    "dog",
    "dowg",
    "madgrad",
    "momo",
    "prodigy",
)


def names() -> Iterable[str]:
    """The names of the rules and of their directions, below ``optax``."""
    import grad_contrib
    from grad_core import is_factory

    def suits(name: str, value: Any) -> bool:
        return is_factory(value) and any(each in name for each in RULES)

    return public(grad_contrib, suits, "contrib.")


def rising(count: Any) -> Any:
    """A user's schedule of a decay: from 0.9 to 0.99 in 30 steps."""
    return 0.9 + 0.003 * jnp.minimum(count, 30)


def bounded(count: Any) -> Any:
    """A user's bound of what ADOPT averages."""
    return 0.5 + 0.02 * count


# Far from the default of 1e-6, as the distances gone in the first steps are lost in rounding then.
ESTIMATING: list[Case] = [
    case("contrib.prodigy", estim_lr0=0.1),
    case("contrib.prodigy", falling, (0.5, 0.9), beta3=0.8, eps=1e-3, estim_lr0=1.0),
    case("contrib.prodigy", 2.0, estim_lr0=0.5, estim_lr_coef=2.0, weight_decay=0.01),
    case("contrib.prodigy", 0.5, estim_lr0=0.5, safeguard_warmup=True),
    case("contrib.dadapt_adamw", estim_lr0=0.1),
    case("contrib.dadapt_adamw", falling, (0.5, 0.9), eps=1e-3, estim_lr0=1.0),
    case("contrib.dadapt_adamw", 2.0, estim_lr0=0.5, weight_decay=0.01),
    case("contrib.dog"),
    case("contrib.dog", falling, ("distance", 2.0), eps=1.0),
    case("contrib.dog", 0.5, ("learning_rate", 0.1), weight_decay=0.01, mask=matrices),
    case("contrib.dowg"),
    case("contrib.dowg", falling, 2.0, eps=1.0),
    case("contrib.dowg", 0.5, init_estim_sq_dist=0.5, weight_decay=0.01, mask=matrices),
    case("contrib.cocob"),
    case("contrib.cocob", falling, 10.0, eps=0.1),
    case("contrib.cocob", 0.5, weight_decay=0.01, mask=vectors),
]

PLAIN: list[Case] = [
    case("contrib.ademamix", 0.1),
    case("contrib.ademamix", falling, 0.5, 0.9, rising, falling, 1e-3, 1e-2),
    case("contrib.ademamix", 0.05, alpha=8.0, weight_decay=0.1, mask=matrices),
    case("contrib.ademamix", 0.05, b3=0.99, mu_dtype=jnp.float64),
    case("contrib.simplified_ademamix", 0.01),
    case("contrib.simplified_ademamix", falling, 0.5, 0.9, 3.0, 1e-3, 1e-2),
    case("contrib.simplified_ademamix", 0.01, weight_decay=0.1, mask=vectors),
    case("contrib.adopt", 0.1),
    case("contrib.adopt", falling, 0.5, 0.9, eps=0.5, nesterov=True),
    case("contrib.adopt", 0.05, use_clipping=False, mu_dtype=jnp.float32).differs(
        NARROW, float64=1e-5
    ),
    case("contrib.adopt", 0.05, clip_value_fn=bounded),
    case("contrib.acprop", 0.1),
    case("contrib.acprop", falling, 0.5, 0.9, eps=1e-3, eps_root=1e-2),
    case("contrib.acprop", warmed, weight_decay=0.1, mask=matrices),
    case("contrib.madgrad", 0.1).differs(ROOT, float64=1e-7),
    case("contrib.madgrad", falling, momentum=0.5, eps=1e-2).differs(ROOT, float64=1e-7),
    case("contrib.madgrad", 0.5, weight_decay=0.01).differs(ROOT, float64=1e-7),
    case("contrib.momo"),
    case("contrib.momo", falling, 0.5, lower_bound=9.0),
    case("contrib.momo", lower_bound=5.0, adapt_lower_bound=True),
    case("contrib.momo", 0.5, weight_decay=0.01).differs(DECAY, float32=0.01, float64=0.01),
    case("contrib.momo_adam"),
    case("contrib.momo_adam", falling, 0.5, 0.9, 1e-3, lower_bound=9.0),
    case("contrib.momo_adam", 20.0, lower_bound=5.0, adapt_lower_bound=True),
    case("contrib.momo_adam", 0.5, weight_decay=0.01).differs(DECAY, float32=0.01, float64=0.01),
    case("contrib.scale_by_cocob"),
    case("contrib.scale_by_cocob", 50.0),
    case("contrib.scale_by_cocob", eps=1.0),
    case("contrib.scale_by_madgrad", 0.1).differs(ROOT, float64=1e-7),
    case("contrib.scale_by_madgrad", falling, momentum=0.5).differs(ROOT, float64=1e-7),
    case("contrib.scale_by_madgrad", warmed, eps=1e-2),
]

DIRECTIONS: list[Case] = [
    each.using(factor=-0.1)
    for each in [
        case("contrib.scale_by_ademamix"),
        case("contrib.scale_by_ademamix", 0.5, 0.9, rising, falling, 1e-3, 1e-2),
        case("contrib.scale_by_ademamix", b3=0.99, alpha=2.0, mu_dtype=jnp.float64),
        case("contrib.scale_by_simplified_ademamix"),
        case("contrib.scale_by_simplified_ademamix", 0.5, 0.9, 3.0),
        case("contrib.scale_by_simplified_ademamix", eps=1e-3, eps_root=1e-2),
        case("contrib.scale_by_adopt"),
        case("contrib.scale_by_adopt", 0.5, 0.9, eps=0.5, nesterov=True, clip_value_fn=bounded),
        case("contrib.scale_by_adopt", use_clipping=False, mu_dtype=jnp.float32).differs(
            NARROW, float64=1e-5
        ),
        case("contrib.scale_by_acprop"),
        case("contrib.scale_by_acprop", 0.5, 0.9),
        case("contrib.scale_by_acprop", eps=1e-3, eps_root=1e-2),
    ]
]

FAMILY = Family(names, [*ESTIMATING, *PLAIN, *DIRECTIONS], descend)
