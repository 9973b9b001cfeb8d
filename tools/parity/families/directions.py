"""The directions of the named optimizers: the `scale_by_*` of grad-optimizers."""

from collections.abc import Iterable
from functools import partial
from math import inf

import jax.numpy as jnp

from parity.cases import Family, case
from parity.coverage import public
from parity.parts import DECAY, NARROW, tempered
from parity.problem import WITHOUT_SCALARS, descend


def names() -> Iterable[str]:
    """The directions of grad-optimizers."""
    import grad_optimizers
    from grad_core import is_factory

    return public(grad_optimizers, lambda name, x: is_factory(x) and name.startswith("scale_by_"))


CASES = [
    case("scale_by_adam"),
    case("scale_by_adam", b1=0.5, b2=0.9, eps=1e-3),
    case("scale_by_adam", eps_root=1e-2, mu_dtype=jnp.float32, nesterov=True).differs(
        NARROW, float64=1e-5
    ),
    case("scale_by_adamax"),
    case("scale_by_adamax", b1=0.5, b2=0.9),
    case("scale_by_adamax", eps=1e-2),
    case("scale_by_adan"),
    case("scale_by_adan", b1=0.9, b2=0.8, b3=0.95),
    case("scale_by_adan", eps=1e-3, eps_root=1e-2),
    case("scale_by_amsgrad"),
    case("scale_by_amsgrad", b1=0.5, b2=0.9, eps=1e-3, bias_correction_mu=False),
    case("scale_by_amsgrad", eps_root=1e-2, mu_dtype=jnp.float32, bias_correction_nu=False).differs(
        NARROW, float64=1e-5
    ),
    case("scale_by_belief"),
    case("scale_by_belief", b1=0.5, b2=0.9, eps=1e-3),
    case("scale_by_belief", eps_root=1e-2, nesterov=True),
    case("scale_by_radam"),
    case("scale_by_radam", b1=0.5, b2=0.95, eps=1e-3, nesterov=True),
    case("scale_by_radam", b2=0.99, eps_root=1e-2, threshold=8.0),
    case("scale_by_yogi"),
    case("scale_by_yogi", b1=0.5, b2=0.9, eps=1e-2),
    case("scale_by_yogi", eps_root=1e-2, initial_accumulator_value=0.1),
    case("scale_by_novograd"),
    case("scale_by_novograd", b1=0.5, b2=0.9, weight_decay=0.1),
    case("scale_by_novograd", eps=1e-2, eps_root=1e-2, mu_dtype=jnp.float32).differs(
        NARROW, float64=1e-5
    ),
    case("scale_by_adadelta"),
    case("scale_by_adadelta", rho=0.5),
    case("scale_by_adadelta", rho=0.99, eps=1e-3),
    case("scale_by_rms"),
    case("scale_by_rms", decay=0.5, eps=1e-3, bias_correction=True),
    case("scale_by_rms", eps=0.1, initial_scale=1.0, eps_in_sqrt=False),
    case("scale_by_stddev"),
    # From 0, the first variance would be g^2 - g^2, and the update all rounding.
    case("scale_by_stddev", decay=0.8, eps=0.1, initial_scale=1.0, bias_correction=True),
    case("scale_by_stddev", eps=0.1, eps_in_sqrt=False),
    case("scale_by_rss"),
    case("scale_by_rss", initial_accumulator_value=1.0),
    case("scale_by_rss", initial_accumulator_value=0.0, eps=1e-2),
    case("scale_by_factored_rms").differs(DECAY, float64=1e-6),
    case("scale_by_factored_rms", decay_rate=0.6, min_dim_size_to_factor=2, epsilon=1e-3).differs(
        DECAY, float64=1e-6
    ),
    case("scale_by_factored_rms", False, step_offset=-5, min_dim_size_to_factor=2).differs(
        DECAY, float64=1e-6
    ),
    case("scale_by_factored_rms", min_dim_size_to_factor=2, decay_rate_fn=tempered),
    case("scale_by_lion"),
    case("scale_by_lion", b1=0.5, b2=0.8, mu_dtype=jnp.float32),
    case("scale_by_lion", mode="smooth", smooth_beta=2.0),
    case("scale_by_lion", mode="refined"),
    case("scale_by_optimistic_gradient"),
    case("scale_by_optimistic_gradient", alpha=0.5),
    case("scale_by_optimistic_gradient", alpha=1.5, beta=0.7),
    case("scale_by_sm3").using(trees=WITHOUT_SCALARS),
    case("scale_by_sm3", b1=0.5, b2=0.9).using(trees=WITHOUT_SCALARS),
    case("scale_by_sm3", b1=0.0, eps=1e-3).using(trees=WITHOUT_SCALARS),
    case("scale_by_rprop", 0.1).differs("`rprop`", float32=inf, float64=inf),
    case("scale_by_rprop", 0.05, eta_minus=0.3, eta_plus=1.1).differs(
        "`rprop`", float32=inf, float64=inf
    ),
    case("scale_by_rprop", 0.1, min_step_size=0.05, max_step_size=0.5).differs(
        "`rprop`", float32=inf, float64=inf
    ),
    case("scale_by_polyak"),
    case("scale_by_polyak", f_min=1.0, max_learning_rate=50.0, eps=0.1),
    case("scale_by_polyak", 300.0, 50.0, variant="sps+"),
]

FAMILY = Family(names, CASES, partial(descend, factor=-0.05))
