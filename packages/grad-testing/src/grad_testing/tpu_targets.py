"""What is compiled for: a TPU or a mesh of them, of a topology or of this machine."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from grad_testing.devices import make_mesh
from grad_testing.tpu_costs import Costs, Ledger, Program, costs_of

__all__ = ["Target", "abstract"]


class Target(NamedTuple):
    """TPUs, one or a mesh of them, and where to enter what programs need there.

    Attributes:
      topology: The name of the topology.
      layout: ``"single"``, for the first of them, or ``"sharded"``, for all.
      devices: The TPUs of the topology.
      ledger: The costs on record.
    """

    topology: str
    layout: str
    devices: tuple[jax.Device, ...]
    ledger: Ledger

    def sharding(self, *axes: str | None) -> Sharding:
        """That of an array whose axes are sharded over the mesh axes ``data`` and ``model``."""
        if self.layout == "single":
            return SingleDeviceSharding(self.devices[0])
        mesh = make_mesh(explicit=False, devices=self.devices)
        return NamedSharding(mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    def placed(self, tree: Any, axes: Mapping[str, Sequence[str | None]]) -> Any:
        """Shapes of arrays on the TPUs; by their names in the tree, how their axes are sharded."""

        def place(path: Any, x: Any) -> jax.ShapeDtypeStruct:
            name = getattr(path[-1], "key", "") if path else ""
            sharding = self.sharding(*axes.get(name, ()))
            return abstract(x.shape, x.dtype, sharding)

        return jax.tree_util.tree_map_with_path(place, tree)

    def compile(
        self, function: Any, *arguments: Any, donate: Sequence[int] = ()
    ) -> tuple[Any, Costs]:
        """Compiles a function for shapes of arrays.

        Args:
          function: The function.
          *arguments: Trees of shapes, with shardings.
          donate: The indices of arguments that are donated.

        Returns:
          The shapes of its results, with their shardings; and its costs.
        """
        with jax.default_matmul_precision("default"):  # as users do, whatever the tests need
            # Where no argument is used, nothing would tell that it is for TPUs.
            jitted = jax.jit(function, donate_argnums=tuple(donate), keep_unused=True)
            traced = jitted.trace(*arguments)
            compiled = traced.lower().compile()
        shapes = jax.tree.map(_with_sharding, traced.out_info, compiled.output_shardings)
        return shapes, costs_of(compiled)

    def enter(self, name: str | None, part: str, costs: Costs) -> None:
        """Compares what a program needs with what is on record; nothing for what is not public.

        Args:
          name: Of the function, as it stands in the table; None if it is not public.
          part: Which part of it, or what it does.
          costs: What the program needs.

        Raises:
          AssertionError: If that is more than on record, or less.
        """
        if name is not None:
            self.ledger.enter(Program(name, part, self.topology, self.layout), costs)


def _with_sharding(x: Any, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return abstract(x.shape, x.dtype, sharding)


def abstract(
    shape: Sequence[int], dtype: Any, sharding: Sharding | None = None
) -> jax.ShapeDtypeStruct:
    """An array that is not there."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # type: ignore[no-untyped-call]
