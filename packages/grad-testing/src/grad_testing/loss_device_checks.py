"""Losses on devices: sharded over the batch, and compiled for a TPU."""

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grad_testing.checking import require, require_close
from grad_testing.loss_cases import Arrays
from grad_testing.loss_checks import tolerance
from grad_testing.loss_subject import LossSubject, quick_jit
from grad_testing.tpu_targets import Target, abstract

__all__ = ["compiles_for_tpu", "sharding_changes_nothing"]

EXAMPLES = 1024
"""That losses are compiled for, at most: few would not fill the registers of a TPU."""


def sharding_changes_nothing(subject: LossSubject, mesh: jax.sharding.Mesh) -> None:
    """With the examples sharded over a mesh, value and gradients are the same.

    On an explicit mesh they are lowered, but not run: what may go wrong there, types say. The
    values of examples are sharded like the examples.

    Args:
      subject: The loss.
      mesh: A mesh with the axis ``data``, automatic or explicit.
    """
    copies = mesh.shape["data"] // math.gcd(mesh.shape["data"], subject.batch_size)
    arrays = {name: _repeated(subject, name, a, copies) for name, a in subject.arrays.items()}
    reals = {name: arrays.pop(name) for name in subject.reals}
    placed = [_placed(subject, mesh, each) for each in (reals, arrays)]
    if AxisType.Explicit in mesh.axis_types:
        with jax.set_mesh(mesh):
            traced = jax.jit(subject.value_and_gradients).trace(*placed)
            traced.lower()
        if subject.is_per_example:
            sharding = traced.out_info[0].sharding
            is_sharded = sharding.spec[:1] == ("data",)
            require(is_sharded, f"{subject.name} of sharded examples is sharded as {sharding}")
        return
    run = quick_jit(subject.value_and_gradients)
    if subject.is_per_example:
        value, gradients = subject.results("float32")[0]
        value = np.concatenate([value] * copies)
        gradients = {n: _repeated(subject, n, g, copies, copies) for n, g in gradients.items()}
    else:
        value, gradients = jax.device_get(run(reals, arrays))
    got_value, got = jax.device_get(run(*placed))
    require_close(got_value, value, f"{subject.name}, sharded", tolerance("float32", value))
    for name, g in gradients.items():
        what = f"the gradient of {subject.name} by {name}, sharded"
        require_close(got[name], g, what, tolerance("float32", g))


def _repeated(subject: LossSubject, name: str, a: Any, copies: int, factor: int = 1) -> Any:
    """An array with the examples repeated; if it has none, multiplied by a factor."""
    return np.concatenate([a] * copies) if name in subject.batched else factor * a


def _placed(subject: LossSubject, mesh: jax.sharding.Mesh, arrays: Arrays) -> dict[str, jax.Array]:
    """Arrays on a mesh, with the examples sharded over ``data``."""

    def spec(name: str) -> PartitionSpec:
        axes = ("data",) if name in subject.batched else ()
        return PartitionSpec(*axes)  # type: ignore[no-untyped-call]

    return {name: jax.device_put(a, NamedSharding(mesh, spec(name))) for name, a in arrays.items()}


def compiles_for_tpu(subject: LossSubject, target: Target) -> None:
    """Value and gradients of many examples compile for TPUs, and need what is on record.

    Args:
      subject: The loss.
      target: A TPU, or a mesh of them.
    """
    copies = EXAMPLES // subject.batch_size // 2 * 2
    arrays = {
        name: abstract((a.shape[0] * copies, *a.shape[1:]), a.dtype)
        if name in subject.batched
        else a
        for name, a in jax.eval_shape(lambda: subject.cast("bfloat16")).items()
    }
    arrays = target.placed(arrays, dict.fromkeys(subject.batched, ("data",)))
    reals = {name: arrays.pop(name) for name in subject.reals}
    _, costs = target.compile(subject.value_and_gradients, reals, arrays)
    target.enter(subject.path, "value_and_grad", costs)
