"""Numbers that all leaves share."""

from typing import Any

import jax
import jax.numpy as jnp

from grad_core import Params


def scalar_dtype(params: Params) -> Any:
    """The dtype to keep them in: the real one of all leaves together, at least float32."""
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(params))
    return jnp.finfo(dtype).dtype  # type: ignore[no-untyped-call]
