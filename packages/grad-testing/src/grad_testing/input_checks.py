"""Trees and dtypes of every kind; gradients that are zero, huge, tiny."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import grad_core
from grad_testing.checking import (
    TransformationSubject,
    require,
    require_close,
    require_finite,
    require_same_types,
    sample,
    take_steps,
)
from grad_testing.tolerances import tolerance_for
from grad_testing.trees import sample_of

__all__ = [
    "DTYPES",
    "OTHER_REAL_DTYPES",
    "agrees_with_float32",
    "extreme_gradients_are_finite",
    "takes_trees",
    "works_in_dtype",
    "zero_gradients_are_finite",
]

DTYPES = ("float32", "bfloat16", "float16", "float64", "complex64")
"""The dtypes that every transformation works in."""

OTHER_REAL_DTYPES = ("bfloat16", "float16", "float64")

_HUGE = {"float32": 1e30, "bfloat16": 1e30, "float64": 1e200, "complex64": 1e30 + 1e30j}


def takes_trees(subject: TransformationSubject, kind: str) -> None:
    """On a tree of any kind, leaves are updated as in a plain list, and the structure is kept.

    None, `MaskedNode` and float0 mean no update: they come back, and the parameter stays.
    """
    params, gradients, leaves, updates, pick = sample_of(kind)
    expected, _ = take_steps(subject.runner, leaves, [updates] * 2)
    state = first = subject.runner.init(params)
    for i in range(2):
        found, state = subject.runner.update(gradients, state, params)
        what = f"{subject.name} on {kind}: update {i + 1}"
        require_same_types(state, first, f"{what}: the state")
        structures: list[Any] = [jax.tree.structure(found), jax.tree.structure(gradients)]
        require(structures[0] == structures[1], f"{what} is {structures[0]}, not {structures[1]}")
        require_close(pick(found), expected[i], what)
        moved = grad_core.apply_updates(params, found)
        if kind.endswith("_gradients"):
            stayed = moved["b"], params["b"]
            require_close(*stayed, f"{what}: a parameter without a gradient should stay")


def works_in_dtype(subject: TransformationSubject, dtype: str) -> None:
    """Updates have the gradients' dtype; they and the state are finite."""
    with jax.enable_x64(dtype == "float64"):
        params, gradients = sample(dtype)
        updates, state = take_steps(subject.runner, params, gradients)
        what = f"{subject.name} in {dtype}"
        for step, g in zip(updates, gradients, strict=True):
            require_same_types(step, g, f"{what}: updates", weak=False)
        require_finite((updates, state), what)


def agrees_with_float32(subject: TransformationSubject, dtype: str) -> None:
    """The first update in another dtype is that in float32, computed so and rounded once."""
    with jax.enable_x64(dtype == "float64"):
        params, gradients = sample(dtype)
        updates, _ = take_steps(subject.runner, params, gradients[:1])
        single = jax.tree.map(lambda x: x.astype("float32"), (params, gradients[:1]))
        expected, _ = take_steps(subject.runner, *single)
        tolerance = tolerance_for("float32" if dtype == "float64" else dtype)
        require_close(updates, expected, f"{subject.name} in {dtype}: the first update", tolerance)


def zero_gradients_are_finite(subject: TransformationSubject, dtype: str) -> None:
    """A zero gradient makes a finite update, in every dtype, at the first step and later."""
    with jax.enable_x64(dtype == "float64"):
        params, gradients = sample(dtype)
        zero = jax.tree.map(jnp.zeros_like, params)
        found = take_steps(subject.runner, params, [zero, zero, gradients[0], zero])
        require_finite(found, f"{subject.name} in {dtype} with zero gradients")
        at_zero = take_steps(subject.runner, zero, [zero, zero])
        require_finite(at_zero, f"{subject.name} in {dtype} with zero gradients and parameters")


def extreme_gradients_are_finite(subject: TransformationSubject, dtype: str) -> None:
    """Huge and tiny gradients make finite updates, and leave later ones finite.

    Huge is 1e30 in float32 and half the largest number in float16; tiny is the smallest normal
    number, and the smallest of all.
    """
    with jax.enable_x64(dtype == "float64"):
        params, gradients = sample(dtype)
        for name, size in _extremes(dtype).items():
            extreme = jax.tree.map(lambda p, size=size: jnp.full_like(p, size), params)
            updates, _ = take_steps(subject.runner, params, [extreme, gradients[0]])
            require_finite(updates, f"{subject.name} in {dtype} with {name} gradients")


def _extremes(dtype: str) -> dict[str, Any]:
    info = jnp.finfo(dtype)  # type: ignore[no-untyped-call]
    return {
        "huge": _HUGE.get(dtype, float(info.max) / 2),
        "tiny": float(info.tiny),
        "subnormal": float(np.asarray(info.smallest_subnormal, np.float64)),
    }
