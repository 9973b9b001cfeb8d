"""The named optimizers."""

from collections.abc import Iterable
from math import inf

import jax
import jax.numpy as jnp

from parity.cases import Case, Family, call, case
from parity.coverage import public
from parity.parts import DECAY, LINEAR, NARROW, SCHEDULED, falling, matrices, vectors, warmed
from parity.problem import WITHOUT_SCALARS, descend


def names() -> Iterable[str]:
    """The factories of grad-optimizers but those of directions."""
    import grad_optimizers
    from grad_core import is_factory

    return public(
        grad_optimizers, lambda name, x: is_factory(x) and not name.startswith("scale_by_")
    )


ADAM: list[Case] = [
    case("adam", 0.1),
    case("adam", falling, b1=0.5, b2=0.9, eps=1e-3),
    case("adam", 0.02, b2=0.95, eps_root=1e-2, mu_dtype=jnp.float32, nesterov=True).differs(
        NARROW, float64=1e-5
    ),
    case("adam", 0.1, mu_dtype=jnp.bfloat16).differs(NARROW, float32=0.05, float64=0.05),
    case("adamw", 0.1),
    case("adamw", 0.05, b1=0.6, b2=0.95, eps=1e-4, weight_decay=0.1, mask=matrices),
    case(
        "adamw", warmed, eps_root=1e-2, mu_dtype=jnp.float32, weight_decay=0.5, nesterov=True
    ).differs(NARROW, float64=1e-5),
    case("nadam", 0.1),
    case("nadam", 0.1, b1=0.5, b2=0.9, eps=1e-3, nesterov=False),
    case("nadam", warmed, eps_root=1e-2, mu_dtype=jnp.float32).differs(NARROW, float64=1e-5),
    case("nadamw", 0.1),
    case("nadamw", 0.1, b1=0.5, b2=0.9, eps=1e-3, weight_decay=0.1, mask=vectors, nesterov=False),
    case("nadamw", warmed, eps_root=1e-2, mu_dtype=jnp.float32, weight_decay=0.5).differs(
        NARROW, float64=1e-5
    ),
    case("adamax", 0.1),
    case("adamax", falling, b1=0.5, b2=0.9),
    case("adamax", 0.02, eps=1e-2),
    case("adamaxw", 0.1),
    case("adamaxw", falling, b1=0.5, b2=0.9, weight_decay=0.1),
    case("adamaxw", 0.02, eps=1e-2, weight_decay=0.5, mask=matrices),
    case("adan", 0.1),
    case("adan", falling, b1=0.9, b2=0.8, b3=0.95, eps=1e-3),
    case("adan", 0.02, eps_root=1e-2, weight_decay=0.1, mask=vectors),
    case("amsgrad", 0.1),
    case("amsgrad", falling, b1=0.5, b2=0.9, eps=1e-3, bias_correction_mu=False),
    case("amsgrad", 0.02, eps_root=1e-2, mu_dtype=jnp.float32, bias_correction_nu=False).differs(
        NARROW, float64=1e-5
    ),
    case("adabelief", 0.1),
    case("adabelief", falling, b1=0.5, b2=0.9, eps=1e-3),
    case("adabelief", 0.02, eps_root=1e-2, nesterov=True),
    case("radam", 0.1),
    case("radam", falling, b1=0.5, b2=0.95, eps=1e-3, nesterov=True),
    case("radam", 0.02, b2=0.99, eps_root=1e-2, threshold=8.0),
    case("yogi", 0.1),
    case("yogi", falling, b1=0.5, b2=0.9),
    case("yogi", 0.02, eps=1e-1),
    case("lamb", 0.05),
    case("lamb", falling, b1=0.5, b2=0.9, eps=1e-3),
    case("lamb", 0.02, eps_root=1e-2, weight_decay=0.1, mask=matrices),
    case("novograd", 0.1),
    case("novograd", falling, b1=0.5, b2=0.9, weight_decay=0.1),
    case("novograd", 0.02, eps=1e-2, eps_root=1e-2),
    case("optimistic_adam", 0.1),
    case("optimistic_adam", 0.1, 0.05, b1=0.5, b2=0.9, eps=1e-3, nesterov=False),
    case("optimistic_adam", 0.02, 0.03, eps_root=1e-2, mu_dtype=jnp.float32).differs(
        NARROW, float64=1e-5
    ),
    case("optimistic_adam_v2", 0.1),
    case("optimistic_adam_v2", falling, alpha=0.5, beta=0.8, b1=0.5, b2=0.9, eps=1e-3),
    case(
        "optimistic_adam_v2", 0.02, alpha=0.7, eps_root=1e-2, mu_dtype=jnp.float32, nesterov=False
    ).differs(NARROW, float64=1e-5),
]

ADAPTIVE: list[Case] = [
    case("adadelta", 1.0),
    case("adadelta", falling, rho=0.5, eps=1e-3),
    case("adadelta", 0.5, rho=0.99, weight_decay=0.1, weight_decay_mask=matrices),
    case("adagrad", 0.1),
    case("adagrad", falling, initial_accumulator_value=1.0),
    case("adagrad", 0.02, eps=1e-2),
    case("rmsprop", 0.1),
    # From 0, the first variance would be g^2 - g^2, and the update all rounding.
    case("rmsprop", falling, 0.8, 0.1, initial_scale=1.0, centered=True, bias_correction=True),
    case("rmsprop", 0.02, eps=0.1, eps_in_sqrt=False, momentum=0.9, nesterov=True),
    case("sm3", 0.1).using(trees=WITHOUT_SCALARS),
    case("sm3", 0.1, momentum=0.5).using(trees=WITHOUT_SCALARS),
    case("sm3", 0.02, 0.0).using(trees=WITHOUT_SCALARS),
]

FACTORED: list[Case] = [
    each.differs(DECAY, float64=1e-6)
    for each in [
        case("adafactor"),
        case("adafactor", 0.1, min_dim_size_to_factor=2),
        case(
            "adafactor", falling, min_dim_size_to_factor=3, decay_rate=0.6, clipping_threshold=None
        ),
        case("adafactor", 0.1, 2, multiply_by_parameter_scale=False, momentum=0.9, factored=False),
        case(
            "adafactor",
            0.1,
            min_dim_size_to_factor=2,
            clipping_threshold=0.5,
            momentum=0.5,
            dtype_momentum=jnp.bfloat16,
        ),
        case(
            "adafactor",
            0.05,
            2,
            multiply_by_parameter_scale=False,
            weight_decay_rate=0.01,
            weight_decay_mask=matrices,
            eps=1e-3,
        ),
        case("adafactor", 0.1, 2, decay_offset=-5),
    ]
]

PLAIN: list[Case] = [
    case("sgd", 0.1),
    case("sgd", falling, momentum=0.9),
    case("sgd", 0.1, 0.9, accumulator_dtype=jnp.bfloat16).differs(
        NARROW, float32=0.05, float64=0.05
    ),
    case("sgd", LINEAR).differs(SCHEDULED, float64=1e-6),
    case("sgd", 0.02, momentum=0.8, nesterov=True, accumulator_dtype=jnp.float32).differs(
        NARROW, float64=1e-5
    ),
    case("noisy_sgd", 0.1),
    case("noisy_sgd", falling, eta=0.1, gamma=0.8, key=call(jax.random.key, 3)),
    case("noisy_sgd", 0.02, eta=0.5, seed=5),
    case("optimistic_gradient_descent", 0.1),
    case("optimistic_gradient_descent", falling, alpha=0.5),
    case("optimistic_gradient_descent", 0.02, alpha=1.5, beta=0.7),
    case("fromage", 0.1),
    case("fromage", falling, min_norm=0.1),
    case("fromage", 0.02, min_norm=2.0),
    case("lars", 0.1),
    case("lars", warmed, weight_decay=0.1, weight_decay_mask=matrices, trust_coefficient=0.1),
    case("lars", 5.0, eps=1e-2, trust_ratio_mask=vectors, momentum=0.5, nesterov=True),
    case("lion", 0.1),
    case("lion", falling, b1=0.5, b2=0.8, weight_decay=0.1),
    case("lion", 0.02, mu_dtype=jnp.float32, weight_decay=0.5, mask=matrices),
    case("sign_sgd", 0.1),
    case("sign_sgd", falling),
    case("sign_sgd", warmed),
    case("signum", 0.1),
    case("signum", falling, beta=0.5),
    case("signum", 0.02, beta=0.99, accumulator_dtype=jnp.float32),
    case("rprop", 0.1).differs("`rprop`", float32=inf, float64=inf),
    case("rprop", 0.05, eta_minus=0.3, eta_plus=1.1).differs("`rprop`", float32=inf, float64=inf),
    case("rprop", 0.1, min_step_size=0.05, max_step_size=0.5).differs(
        "`rprop`", float32=inf, float64=inf
    ),
    case("polyak_sgd"),
    case("polyak_sgd", 50.0, scaling=0.02, f_min=1.0, eps=0.1),
    case("polyak_sgd", 50.0, scaling=falling, f_min=300.0, variant="sps+"),
]

FAMILY = Family(names, [*ADAM, *ADAPTIVE, *FACTORED, *PLAIN], descend)
