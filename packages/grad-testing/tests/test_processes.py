"""Processes that JAX joins: results are put together, and nothing outlives a failure."""

import fcntl
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from grad_testing import ProcessesFailed, run_processes
from grad_testing.processes import run_commands
from grad_testing.shards import LocalShards, assemble


def collective(scale):
    """Sums over all devices, of which half are elsewhere."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    numbers = jax.jit(lambda: scale * jnp.arange(16.0), out_shardings=rows)()
    total = jax.jit(jnp.sum, out_shardings=NamedSharding(mesh, PartitionSpec()))(numbers)
    return {"numbers": numbers, "total": total, "devices": len(jax.local_devices())}


def wait_for_one_that_fails():
    if jax.process_index() == 1:
        print("so far all is well")
        raise ValueError("but now it is not")
    return collective(1.0)


def test_results_are_put_together():
    made = run_processes(collective, 2.0)
    np.testing.assert_array_equal(made["numbers"], 2.0 * np.arange(16.0))
    assert (made["total"], made["devices"]) == (240.0, 4)


def test_an_error_in_one_process_ends_both():
    """The other waits for it, in compiled code."""
    with pytest.raises(ProcessesFailed, match="process 0 was ended") as caught:
        run_processes(wait_for_one_that_fails)
    message = str(caught.value)
    assert "process 1 ended with code 1" in message
    assert "so far all is well" in message
    assert "ValueError: but now it is not" in message


def test_functions_must_be_found_in_their_file():
    def inner():
        pass

    with pytest.raises(ValueError, match=r"move .*<locals>\.inner to the top level"):
        run_processes(inner)


def test_time_is_limited():
    with pytest.raises(ProcessesFailed, match=r"process 0 was ended(.|\n)*process 1 was ended"):
        run_processes(collective, 1.0, timeout=0.1)


# A program that locks a file and starts another, by which the file is locked too.
STILL_RAN = "was ended, as it still ran"
PARENT = """
import fcntl, os, pathlib, subprocess, sys, time
mine, first = map(pathlib.Path, sys.argv[1:])
held = open(mine, "w")
fcntl.flock(held, fcntl.LOCK_EX)
wait = [sys.executable, "-c", "import time; time.sleep(60)"]
subprocess.Popen(wait, pass_fds=[held.fileno()])
print("both run", flush=True)
print("both run", file=held, flush=True)
while not first.exists() or not first.read_text():
    time.sleep(0.01)
"""


def is_soon_free(path):
    """Whether nobody locks a file; who is killed may take a moment to let go."""
    with open(path) as file:
        for _ in range(100):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.05)
            else:
                return True
    return False


@pytest.mark.parametrize(
    ("code", "how", "timeout"),
    [
        ("time.sleep(60)", STILL_RAN, 5.0),
        ("sys.exit(3)", "ended with code 3", 50.0),
        ("os.abort()", "ended with code -6", 50.0),
    ],
    ids=["hangs", "fails", "crashes"],
)
def test_nothing_is_left(tmp_path, code, how, timeout):
    paths = [str(tmp_path / "first"), str(tmp_path / "second")]
    programs = [PARENT + "time.sleep(60)", PARENT + code]
    commands = [
        [sys.executable, "-c", program, path, paths[0]]
        for program, path in zip(programs, paths, strict=True)
    ]
    with pytest.raises(ProcessesFailed) as caught:
        run_commands(commands, timeout=timeout)
    _, first, wrote, _, second, too = str(caught.value).splitlines()
    assert first == f"process 0 {STILL_RAN}; it wrote:"
    assert second == f"process 1 {how}; it wrote:"
    assert wrote == too == "both run"
    assert all(map(is_soon_free, paths))


def test_what_succeeds_is_left_alone():
    run_commands([[sys.executable, "-c", "print('fine')"]] * 2, timeout=60.0)


def part(values, *index, shape=(4,)):
    return LocalShards(shape, np.dtype("float32"), [(index, np.asarray(values, "float32"))])


def test_shards_are_put_where_they_belong():
    parts = [part([3.0, 4.0], slice(2, 4)), part([1.0, 2.0], slice(0, 2))]
    np.testing.assert_array_equal(assemble(parts), [1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([part([1.0, 2.0], slice(0, 2)), part([2.0, 3.0], slice(1, 3))], "is not whole"),
        ([part([1.0] * 4, ...), part([2.0], slice(3, 4))], r"differ: \[1.\], and in process 1 \[2"),
        ([part([0.0] * 4, ...), part([-0.0], slice(3, 4))], r"differ: \[0.\], and in .* \[-0"),
        ([part([1.0] * 4, ...), part(1.0, shape=())], r"float32\(\) in process 1, but float32"),
    ],
    ids=["missing", "copies", "signs", "shapes"],
)
def test_what_does_not_fit_is_told(parts, message):
    with pytest.raises(AssertionError, match=message):
        assemble([{"a": p} for p in parts])


def test_trees_that_differ_are_told():
    with pytest.raises(AssertionError, match="process 1 has"):
        assemble([{"a": part([1.0] * 4, ...)}, {"b": part([1.0] * 4, ...)}])
