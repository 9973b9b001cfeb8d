"""Several processes that JAX joins, as on several hosts: a function is called in all at once.

Each process has virtual CPU devices of its own, on every backend; `jax.devices` lists those of all.
"""

import contextlib
import importlib.util
import inspect
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import jax

from grad_testing.shards import assemble, local_shards

__all__ = ["ProcessesFailed", "run_commands", "run_processes"]

TIMEOUT = 300.0


class ProcessesFailed(Exception):
    """One of the processes failed, or ran for too long; the message has the output of all."""


def run_processes(
    function: Callable[..., Any],
    *args: Any,
    processes: int = 2,
    devices: int = 4,
    timeout: float = TIMEOUT,
) -> Any:
    """Calls a function in several processes at once, and puts together what it returns in them.

    An array is put together from the shards in all processes, which must have every element, and
    the same for each of its copies. Anything else must be the same in all processes.

    Example::

        def numbers():
            mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
            rows = NamedSharding(mesh, PartitionSpec("data"))
            return jax.jit(lambda: jnp.arange(8), out_shardings=rows)()


        def test_two_processes():
            assert run_processes(numbers).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]

    Args:
      function: A function at the top level of a file. The file is executed in each process.
      *args: Its arguments; they are pickled.
      processes: How many.
      devices: How many virtual devices each of them has.
      timeout: How long they may take, in seconds.

    Returns:
      The tree that the function returns, of NumPy arrays.

    Raises:
      ProcessesFailed: If the function raises, a process crashes, or they take too long. The others
        are ended.
      AssertionError: If the processes do not return the same.
      ValueError: If the function is in a class or in another function.
    """
    if function.__qualname__ != function.__name__:
        raise ValueError(
            f"run_processes: move {function.__qualname__} to the top level of its file"
        )
    with tempfile.TemporaryDirectory() as name, _free_address() as address:
        folder = Path(name)
        call = (inspect.getfile(function), function.__module__, function.__name__, args)
        (folder / "call").write_bytes(pickle.dumps((sys.path, call)))
        start = [sys.executable, "-c", f"from {__name__} import _child; _child()"]
        commands = [[*start, name, address, str(processes), str(i)] for i in range(processes)]
        run_commands(commands, env=_environment(devices), timeout=timeout)
        made = [pickle.loads((folder / f"made{i}").read_bytes()) for i in range(processes)]
    return assemble(made)


def _environment(devices: int) -> dict[str, str]:
    flags = os.environ.get("XLA_FLAGS", "")
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": re.sub(r"--xla_force_host_platform_device_count=\S*", "", flags),
    }


@contextlib.contextmanager
def _free_address() -> Iterator[str]:
    """An address that JAX can listen at, as it shares ports, and nobody else is given meanwhile."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        host, port = held.getsockname()
        yield f"{host}:{port}"


def _child() -> None:
    """What each process runs."""
    folder, address, processes, index = sys.argv[1:]
    try:
        jax.distributed.initialize(address, int(processes), int(index))
        sys.path[:], call = pickle.loads((Path(folder) / "call").read_bytes())
        made = jax.tree.map(local_shards, _call(*call))
        (Path(folder) / f"made{index}").write_bytes(pickle.dumps(made))
    except BaseException:
        traceback.print_exc()
        sys.stdout.flush()
        os._exit(1)  # JAX would wait for the others, and they for this one


def _call(file: str, module_name: str, function_name: str, args: tuple[Any, ...]) -> Any:
    """Calls a function of a file, which need not be where Python looks for modules."""
    if module_name == "__main__":  # a program shall not start itself once more
        module_name = "__mp_main__"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    # By its name, so that classes of that module can be unpickled where the results are read.
    sys.modules[module_name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, function_name)(*args)


def run_commands(
    commands: Sequence[Sequence[str]], *, env: dict[str, str] | None = None, timeout: float
) -> None:
    """Runs commands side by side, and ends them all as soon as one fails, or when time is up.

    What they started in their process groups is ended too.

    Args:
      commands: Programs with their arguments.
      env: The environment they run in; that of this process with None.
      timeout: How long they may take, in seconds.

    Raises:
      ProcessesFailed: If one of them fails or is not done in time.
    """
    with contextlib.ExitStack() as stack:
        # Files, as pipes would have to be read all the time.
        outputs = [stack.enter_context(tempfile.TemporaryFile()) for _ in commands]
        codes = _exit_codes(commands, outputs, env, time.monotonic() + timeout)
        if any(code != 0 for code in codes):
            header = f"not all succeed, for which they had {timeout:g} seconds"
            reports = map(_report, range(len(codes)), codes, outputs)
            raise ProcessesFailed("\n".join([header, *reports]))


def _exit_codes(
    commands: Sequence[Sequence[str]],
    outputs: Sequence[IO[bytes]],
    env: dict[str, str] | None,
    deadline: float,
) -> list[int | None]:
    """Runs commands until all have ended or one has failed; None for those that still ran then."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command, output in zip(commands, outputs, strict=True):
            process = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            running.append(process)
        while None in (codes := [process.poll() for process in running]):
            if any(codes) or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return codes
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _report(index: int, code: int | None, output: IO[bytes]) -> str:
    """How a process ended, and what it wrote."""
    output.seek(0)
    how = "was ended, as it still ran" if code is None else f"ended with code {code}"
    return f"process {index} {how}; it wrote:\n{output.read().decode(errors='replace')}"
