"""Backends, virtual devices, meshes, and TPU topologies to compile for."""

import functools
import glob
import os
from collections.abc import Sequence

import jax
import numpy as np

__all__ = [
    "NoTopology",
    "current_backend",
    "devices_to_compile_for",
    "has_tpu",
    "make_mesh",
    "make_virtual_devices",
    "prepare",
]

VIRTUAL_DEVICES = 8


class NoTopology(Exception):
    """There is no TPU topology to compile for."""


def prepare(backend: str) -> None:
    """Makes JAX use a backend, if it has not chosen one yet; on the CPU with 8 virtual devices.

    Where the backend is missing JAX uses the CPU; `current_backend` tells. GPUs and TPUs multiply
    matrices in full float32 then, which is not their default: what tests compare is exact on CPUs.

    Args:
      backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    platforms = "cpu"
    if backend == "tpu" and has_tpu():
        platforms = "tpu,cpu"
    elif backend == "gpu" and _has_gpu():
        platforms = "cuda,cpu"
    _configure("jax_platforms", platforms)
    if platforms != "cpu":
        _configure("jax_default_matmul_precision", "highest")
    make_virtual_devices()


def make_virtual_devices(number: int = VIRTUAL_DEVICES) -> bool:
    """Splits the CPU into virtual devices, for tests of sharding.

    Args:
      number: How many.

    Returns:
      Whether there will be that many: not if JAX has been used before, or has been told otherwise.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return False
    try:
        _configure("jax_num_cpu_devices", number)
    except RuntimeError:  # too late
        return jax.local_device_count("cpu") >= number
    return True


def _configure(name: str, value: object) -> None:
    jax.config.update(name, value)  # type: ignore[no-untyped-call]


def current_backend() -> str:
    """Where JAX runs: ``"cpu"``, ``"gpu"`` or ``"tpu"``.

    Example:
      >>> from grad_testing.devices import current_backend
      >>> current_backend() in ("cpu", "gpu", "tpu")
      True
    """
    name = jax.default_backend()
    return "gpu" if name in ("cuda", "rocm") else name


def make_mesh(*, explicit: bool, devices: Sequence[jax.Device] | None = None) -> jax.sharding.Mesh:
    """A mesh with the axes ``data`` and ``model``, of 2 devices or fewer along the second.

    Args:
      explicit: Whether shardings are part of types, or chosen by the compiler.
      devices: The devices; all of the default backend with None.

    Returns:
      The mesh.
    """
    devices = jax.devices() if devices is None else devices
    second = 2 if len(devices) % 2 == 0 else 1
    kind = jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto
    grid = np.asarray(devices).reshape(-1, second)
    return jax.sharding.Mesh(grid, ("data", "model"), axis_types=(kind, kind))


def has_tpu() -> bool:
    """Whether this machine has a TPU."""
    return bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def _has_gpu() -> bool:
    return any(map(os.path.exists, ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")))


@functools.cache
def devices_to_compile_for(topology: str) -> tuple[jax.Device, ...]:
    """The TPUs of a topology that libtpu can compile for, whether or not there is a TPU here.

    Args:
      topology: The name of the topology, such as ``"v5e:2x2"``.

    Returns:
      The devices, to be named by the shardings of abstract arguments.

    Raises:
      NoTopology: If libtpu is missing, or cannot make the topology.
    """
    if not has_tpu():
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except Exception as error:  # what libtpu raises is not documented
        raise NoTopology(f"libtpu makes no topology {topology}: {error}") from error
    return tuple(found.devices)
