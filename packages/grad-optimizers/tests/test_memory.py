"""What an optimizer's documentation says of its memory is what it takes."""

import inspect
import re

import jax
import jax.numpy as jnp
import pytest

import grad_optimizers
from grad_testing import transformation_factories
from grad_testing.checking import subject_of

ALIASES = [
    factory
    for factory in transformation_factories(grad_optimizers)
    if not factory.__name__.startswith("scale_by_")
]
SAID = re.compile(r"(\d+) (?:bytes )?(?:a parameter )?for (float32 and for bfloat16|b?float\d+)")


def bytes_of_state(tx, dtype):
    """Bytes a parameter, for a large square matrix."""
    params = jax.ShapeDtypeStruct((4096, 4096), dtype)
    leaves = jax.tree.leaves(jax.eval_shape(tx.init, params))
    return sum(x.size * x.dtype.itemsize for x in leaves if x.ndim) / 4096**2


@pytest.mark.parametrize("factory", ALIASES, ids=lambda f: f.__name__)
def test_documented_bytes_per_parameter(factory):
    text = " ".join(inspect.getdoc(factory).split())
    said = re.search(r"State: (.*?)(?: Args:|$)", text)
    assert said, f"{factory.__name__} does not say what state it keeps"
    by_dtype = {}
    for count, dtypes in SAID.findall(said[1]):
        by_dtype |= dict.fromkeys(dtypes.split(" and for "), int(count))
    if not by_dtype:
        by_dtype = dict.fromkeys(("float32", "bfloat16"), 0)
        assert "none" in said[1] or "m + n" in said[1]
    elif "bfloat16" not in by_dtype:
        by_dtype["bfloat16"] = by_dtype["float32"] / 2
    tx = subject_of(factory).make(**({"momentum": 0.9} if factory.__name__ == "sgd" else {}))
    for dtype, count in by_dtype.items():
        assert bytes_of_state(tx, jnp.dtype(dtype)) == pytest.approx(count, abs=0.01), dtype
