"""Sharded parameters: the results are those of unsharded ones, and states are sharded alike."""

import contextlib

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grad_testing.checking import (
    TransformationSubject,
    numbered,
    require_close,
    require_sharded_alike,
    take_steps,
)

__all__ = ["sharding_changes_nothing"]


def _spec(*axes: str | None) -> PartitionSpec:
    return PartitionSpec(*axes)  # type: ignore[no-untyped-call]


SPECS = {
    "bias": ((8,), _spec("model")),
    "columns": ((8, 16), _spec(None, "data")),
    "columns_too": ((8, 16), _spec(None, "model")),
    "replicated": ((8, 16), _spec()),
    "rows": ((8, 16), _spec("data", None)),
    "rows_too": ((8, 16), _spec("model", None)),
    "scalar": ((), _spec()),
}
"""Every spec of a matrix that shards one axis, in one tree, as models have them."""


def sharding_changes_nothing(subject: TransformationSubject, mesh: jax.sharding.Mesh) -> None:
    """Sharded over a mesh, updates equal those of unsharded leaves, with and without `jax.jit`.

    What the state keeps for a leaf, at a path that ends in the leaf's own, is sharded like it:
    after ``init``, after ``init`` under jit, after ``update``.

    Args:
      subject: The factory under test.
      mesh: A mesh with the axes ``data`` and ``model``, automatic or explicit.
    """
    tx = subject.runner
    shapes = [shape for shape, _ in SPECS.values()]
    params, *gradients = (dict(zip(SPECS, numbered(shapes, i), strict=True)) for i in range(3))
    expected, _ = take_steps(tx, params, gradients)
    is_explicit = AxisType.Explicit in mesh.axis_types
    context = jax.set_mesh(mesh) if is_explicit else contextlib.nullcontext()
    with context:
        shardings = {name: NamedSharding(mesh, spec) for name, (_, spec) in SPECS.items()}
        params = jax.device_put(params, shardings)
        gradients = [jax.device_put(g, shardings) for g in gradients]
        states = {"init": tx.init(params), "init under jit": jax.jit(tx.init)(params)}
        for when, state in states.items():
            require_sharded_alike(state, params, f"{subject.name}: after {when}")
        eager, state = take_steps(tx, params, gradients)
        require_close(eager, expected, f"{subject.name}: on sharded leaves, updates")
        require_sharded_alike(state, params, f"{subject.name}: after update")
        update = jax.jit(tx.update)
        jitted, state = take_steps(tx, params, gradients, states["init under jit"], update)
        require_close(jitted, expected, f"{subject.name}: on sharded leaves under jit, updates")
        require_sharded_alike(state, params, f"{subject.name}: after update under jit")
