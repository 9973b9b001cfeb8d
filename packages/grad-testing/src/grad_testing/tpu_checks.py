"""Transformations compile for a TPU, without large temporary buffers; no TPU is needed."""

from typing import Any

import jax

from grad_testing.checking import TransformationSubject, require

__all__ = ["compiles_for_tpu"]

SHAPES = {"bias": (1024,), "kernel": (4096, 1024), "other": (4096, 1024)}


def compiles_for_tpu(subject: TransformationSubject, device: jax.Device) -> None:
    """``update`` compiles for a TPU, and needs no temporary buffer larger than the largest leaf.

    Args:
      subject: The factory under test.
      device: A TPU, or a device of a TPU topology.
    """
    sharding = jax.sharding.SingleDeviceSharding(device)

    def on_device(tree: Any) -> Any:
        return jax.tree.map(lambda x: _abstract(x.shape, x.dtype, sharding), tree)

    shapes = {name: _abstract(shape, "float32") for name, shape in SHAPES.items()}
    params = on_device(shapes)
    state = on_device(jax.eval_shape(subject.runner.init, shapes))
    update = jax.jit(subject.runner.update, donate_argnums=(0, 1))
    analysis = update.trace(params, state, params).lower().compile().memory_analysis()
    largest = max(x.size * x.dtype.itemsize for x in jax.tree.leaves(params))
    temporary = analysis.temp_size_in_bytes
    require(
        temporary <= largest,
        f"{subject.name}: compiled for a TPU, update needs {temporary} bytes of temporary buffers, "
        f"more than the {largest} of the largest leaf",
    )


def _abstract(shape: tuple[int, ...], dtype: Any, sharding: Any = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # type: ignore[no-untyped-call]
