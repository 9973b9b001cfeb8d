"""Where arrays are placed on meshes with explicit axes.

Meshes with automatic axes are XLA's to decide on. On explicit ones a spec tells how each axis of an
array is sharded.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def placed(x: jax.Array, spec: Sequence[Any]) -> jax.Array:
    """The array, sharded by a spec; ``()`` puts it whole on every device."""
    sharding = sharding_by(x, spec)
    if sharding is None:
        return x
    moved: jax.Array = jax.sharding.reshard(x, sharding)  # type: ignore[no-untyped-call]
    return moved


def sharding_by(x: jax.Array, spec: Sequence[Any]) -> NamedSharding | None:
    """The sharding by a spec over the mesh of an array; None if that has no explicit axes."""
    mesh = jax.typeof(x).sharding.mesh
    if AxisType.Explicit not in mesh.axis_types:
        return None
    return NamedSharding(mesh, PartitionSpec(*spec))  # type: ignore[no-untyped-call]


def spec_of(x: Any) -> tuple[Any, ...]:
    """How each axis of an array is sharded."""
    spec = jax.typeof(x).sharding.spec
    return (*spec, *[None] * (jnp.ndim(x) - len(spec)))
