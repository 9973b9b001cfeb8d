"""Operations on trees: arithmetic, norms, casts, random trees, moments, look-ups in states.

A tree is any nesting of containers that JAX knows (dicts, lists, tuples, dataclasses, ...) with
arrays, or numbers, as leaves. Here it acts as one long vector.
"""

from grad_core.tree._arithmetic import add, add_scale, clip, conj, div, mul, real, scale, sub, where
from grad_core.tree._casting import (
    batch_shape,
    cast,
    cast_like,
    dtype,
    full_like,
    ones_like,
    zeros_like,
)
from grad_core.tree._map_params import map_params
from grad_core.tree._moments import (
    bias_correction,
    update_infinity_moment,
    update_moment,
    update_moment_per_elem_norm,
)
from grad_core.tree._random import random_like, split_key_like, unwrap_random_key_data
from grad_core.tree._reductions import allclose, max, min, norm, size, sum, vdot
from grad_core.tree._state import get, get_all_with_path, set

__all__ = [
    "add",
    "add_scale",
    "allclose",
    "batch_shape",
    "bias_correction",
    "cast",
    "cast_like",
    "clip",
    "conj",
    "div",
    "dtype",
    "full_like",
    "get",
    "get_all_with_path",
    "map_params",
    "max",
    "min",
    "mul",
    "norm",
    "ones_like",
    "random_like",
    "real",
    "scale",
    "set",
    "size",
    "split_key_like",
    "sub",
    "sum",
    "unwrap_random_key_data",
    "update_infinity_moment",
    "update_moment",
    "update_moment_per_elem_norm",
    "vdot",
    "where",
    "zeros_like",
]
