"""Transformations compile for TPUs, keep shardings, and need little memory; no TPU is needed."""

import functools
from typing import Any

import jax

from grad_testing.checking import TransformationSubject, require, require_sharded_alike
from grad_testing.tpu_costs import Costs
from grad_testing.tpu_targets import Target, abstract

__all__ = ["compiles_for_tpu", "needs_little_memory_on_tpu"]

SHAPES = {"bias": (1024,), "kernel": (4096, 1024), "other": (4096, 1024)}
AXES = {"bias": ("model",), "kernel": ("data", "model"), "other": (None, "data")}


def compiles_for_tpu(subject: TransformationSubject, target: Target) -> None:
    """``init`` and ``update`` compile for TPUs, keep shardings, and need what is on record.

    Args:
      subject: The factory under test.
      target: A TPU, or a mesh of them.
    """
    for part, costs in _costs(subject, target).items():
        target.enter(subject.path, part, costs)


def needs_little_memory_on_tpu(subject: TransformationSubject, target: Target) -> None:
    """``update`` on one TPU needs no temporary buffer larger than the largest leaf.

    Args:
      subject: The factory under test.
      target: A TPU.
    """
    temporary = _costs(subject, target)["update"].temporary
    largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(_params(target)))
    require(
        temporary <= largest,
        f"{subject.name}: compiled for a TPU, update needs {temporary} bytes of temporary buffers, "
        f"more than the {largest} of the largest leaf",
    )


@functools.lru_cache(maxsize=8)
def _costs(subject: TransformationSubject, target: Target) -> dict[str, Costs]:
    """What ``init`` and ``update`` need, if they keep shardings."""
    params, (init, update) = _params(target), subject.runner
    state, of_init = target.compile(init, params)
    require_sharded_alike(state, params, f"{subject.name}: after init, for TPUs")
    (_, state), of_update = target.compile(update, params, state, params, donate=(0, 1))
    require_sharded_alike(state, params, f"{subject.name}: after update, for TPUs")
    return {"init": of_init, "update": of_update}


def _params(target: Target) -> Any:
    shapes = {name: abstract(shape, "float32") for name, shape in SHAPES.items()}
    return target.placed(shapes, AXES)
