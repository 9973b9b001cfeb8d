"""The arguments that optimizers share: what each refuses, and how; dtypes for every moment."""

import math
import re

import jax
import jax.numpy as jnp
import pytest

import grad_optimizers
from grad_testing import transformation_factories
from grad_testing.checking import subject_of

FACTORIES = transformation_factories(grad_optimizers)

NAN = math.nan
REAL = {NAN: "must be a number; got nan", "0.1": "must be a number, an array of shape ()"}
NON_NEGATIVE = {**REAL, -1e-9: "must be >= 0; got -1e-09", NAN: "must be >= 0; got nan"}
FRACTION = {
    **REAL,
    -0.1: "must be in [0, 1]; got -0.1",
    1.5: "must be in [0, 1]; got 1.5",
    NAN: "must be in [0, 1]; got nan",
}
FLAG = {"no": "must be True or False; got 'no' (str)", 1.0: "must be True or False; got 1.0"}
DTYPE = {
    "int32": "must be a floating-point or complex dtype, such as jnp.float32; got 'int32'",
    "float33": "must be a floating-point or complex dtype, such as jnp.float32; got 'float33'",
    32: "must be a floating-point or complex dtype, such as jnp.float32; got 32",
}

# What each argument refuses, and what the error says; all factories agree, but for the last lines.
REFUSED = {
    "accumulator_dtype": DTYPE,
    "alpha": REAL,
    "b1": FRACTION,
    "b2": FRACTION,
    "b3": FRACTION,
    "beta": REAL,
    "bias_correction": FLAG,
    "bias_correction_mu": FLAG,
    "bias_correction_nu": FLAG,
    "centered": FLAG,
    "clipping_threshold": NON_NEGATIVE,
    "decay": FRACTION,
    "decay_offset": REAL,
    "decay_rate": NON_NEGATIVE,
    "dtype_momentum": DTYPE,
    "eps": NON_NEGATIVE,
    "eps_in_sqrt": FLAG,
    "eps_root": NON_NEGATIVE,
    "epsilon": NON_NEGATIVE,
    "eta": NON_NEGATIVE,
    "eta_minus": NON_NEGATIVE,
    "eta_plus": NON_NEGATIVE,
    "f_min": REAL,
    "factored": FLAG,
    "gamma": REAL,
    "initial_accumulator_value": NON_NEGATIVE,
    "initial_scale": NON_NEGATIVE,
    "key": {"nought": "must be a random key or an integer"},
    "learning_rate": REAL,
    "max_learning_rate": REAL,
    "max_step_size": NON_NEGATIVE,
    "min_dim_size_to_factor": {"many": "must be an integer; got 'many'", 0.5: "must be an integer"},
    "min_norm": NON_NEGATIVE,
    "min_step_size": NON_NEGATIVE,
    "mode": {"loud": "must be one of hard, smooth, refined; got 'loud'"},
    "momentum": FRACTION,
    "mu_dtype": DTYPE,
    "multiply_by_parameter_scale": FLAG,
    "nesterov": FLAG,
    "nu_dtype": DTYPE,
    "optimism": REAL,
    "rho": FRACTION,
    "scaling": REAL,
    "smooth_beta": NON_NEGATIVE,
    "step_offset": REAL,
    "threshold": REAL,
    "trust_coefficient": REAL,
    "variant": {"loud": "must be one of sps, sps+; got 'loud'"},
    "weight_decay": REAL,
    "weight_decay_rate": REAL,
}
REFUSED_BY = {("signum", "beta"): FRACTION}
# Errors that name the part which has the argument too.
NAMED = {("noisy_sgd", "key"): "add_noise"}
# Masks and functions: refused when they meet a tree, or not to be told from others.
NOT_CHECKED = {"decay_rate_fn", "mask", "seed", "trust_ratio_mask", "weight_decay_mask"}


def cases():
    for factory in FACTORIES:
        for name in subject_of(factory).arguments.arguments:
            table = REFUSED_BY.get((factory.__name__, name), REFUSED.get(name, {}))
            for value, text in table.items():
                label = f"{factory.__name__}-{name}-{value}"
                yield pytest.param(factory, name, value, text, id=label)


@pytest.mark.parametrize(("factory", "name", "value", "text"), list(cases()))
def test_bad_values_are_refused(factory, name, value, text):
    kind = (
        TypeError if isinstance(value, str) and value not in ("loud",) else (TypeError, ValueError)
    )
    named = NAMED.get((factory.__name__, name), factory.__name__)
    with pytest.raises(kind, match=f"^{named}: {name} {re.escape(text)}"):
        subject_of(factory).make(**{name: value})


def test_every_argument_is_in_the_table():
    names = {name for f in FACTORIES for name in subject_of(f).arguments.arguments}
    assert names == {*REFUSED, *NOT_CHECKED}


@pytest.mark.parametrize("factory", FACTORIES, ids=lambda f: f.__name__)
def test_every_moment_has_a_dtype_argument(factory):
    """With every dtype argument set, no array of the state has another dtype."""
    subject = subject_of(factory)
    chosen = {name: "float16" for name, p in subject.parameters.items() if p.is_dtype}
    momentum = {"momentum": 0.9} if "momentum" in subject.parameters else {}
    state = subject.make(**chosen, **momentum).init(jnp.ones((256, 256), jnp.bfloat16))
    for path, x in jax.tree_util.tree_flatten_with_path(state)[0]:
        if x.ndim:
            assert x.dtype == jnp.float16, jax.tree_util.keystr(path)
