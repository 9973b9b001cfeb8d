"""The pytest plugin, loaded wherever this package is installed.

It does nothing to JAX until it is asked to, by ``--backend``, or by a test that runs a suite or
uses one of the fixtures below; so it does not disturb projects that merely have it installed. Where
modules use JAX as they are imported, virtual devices must be made before: set
``grad_virtual_devices = true`` in the configuration of pytest.

Options:
  --backend: where to run tests.
  --run-summary=FILE: at the end say what did not run and why, in groups with counts.
  --record-tpu-costs=FILE: write down what programs need on TPUs, rather than compare it.

  (After a blank instead of ``=``, pytest would look for its configuration above FILE.)

Fixtures:
  backend: ``"cpu"``, ``"gpu"`` or ``"tpu"``, where the tests run.
  tolerance: ``tolerance(dtype)``, the error that results of this dtype may have on this backend.
  devices: the devices of the backend; on the CPU, 8 virtual ones.
  mesh: a 2-D mesh of them, once automatic and once explicit.
  tpu: a TPU, or a mesh of them, to compile for; there need not be one here.
  tpu_device: a single TPU, likewise.
  tpu_ledger: what programs need on TPUs, on record.

Markers:
  full: the test repeats what others show, on more cases; leave these out with ``-m "not full"``.
  tpu: the test compiles ahead of time for a TPU; skipped, with the reason, without libtpu.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import jax

    from grad_testing.tolerances import Tolerance
    from grad_testing.tpu_costs import Ledger
    from grad_testing.tpu_targets import Target

__all__ = ["backend", "devices", "mesh", "tolerance", "tpu", "tpu_device", "tpu_ledger"]

_NEEDS_DEVICES = frozenset({"devices", "mesh", "sharding_mesh"})


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options, and what the configuration may say."""
    group = parser.getgroup("grad-testing", "gradient transformations")
    group.addoption(
        "--backend",
        choices=("cpu", "gpu", "tpu"),
        default=None,
        help="where to run tests; without it, on JAX's default backend",
    )
    group.addoption(
        "--run-summary",
        metavar="FILE",
        default=None,
        help="at the end say what did not run and why, in groups, and append that to FILE",
    )
    group.addoption(
        "--record-tpu-costs",
        metavar="FILE",
        default=None,
        help="append what programs need on TPUs to a file, rather than compare it",
    )
    parser.addini(
        "grad_tpu_costs",
        default="",
        help="the table of what programs need on TPUs, from the root; compared with if given",
    )
    parser.addini(
        "grad_virtual_devices",
        type="bool",
        default=False,
        help="make the virtual CPU devices at once: test modules use JAX as they are imported",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the markers, and prepares the backend that ``--backend`` asks for."""
    config.addinivalue_line(
        "markers", 'full: repeats what others show, on more cases; -m "not full" leaves it out'
    )
    config.addinivalue_line(
        "markers", "tpu: compiles ahead of time for a TPU; skipped, with the reason, without libtpu"
    )
    file: str | None = config.getoption("--run-summary")
    if file is not None:
        from grad_testing.summary import Summary

        config.pluginmanager.register(Summary(config, file))
    asked: str | None = config.getoption("--backend")
    if asked is not None:
        from grad_testing.devices import prepare

        prepare(asked)
    elif config.getini("grad_virtual_devices"):
        from grad_testing.devices import make_virtual_devices

        make_virtual_devices()


def pytest_report_header(config: pytest.Config) -> str | None:
    """Says what costs on TPUs are compared with."""
    if not config.getini("grad_tpu_costs") or importlib.util.find_spec("libtpu") is None:
        return None
    return f"costs on TPUs: {_ledger(config)}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Makes the virtual devices, if a collected test needs them and it is not too late."""
    needed = any(_NEEDS_DEVICES & {*getattr(item, "fixturenames", ())} for item in items)
    if needed and config.getoption("--backend") is None:
        from grad_testing.devices import make_virtual_devices

        make_virtual_devices()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what cannot run here."""
    is_for_tpu = item.get_closest_marker("tpu") is not None
    if is_for_tpu and importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed (it comes with jax[tpu])")
    asked: str | None = item.config.getoption("--backend")
    if asked in ("gpu", "tpu") and not is_for_tpu:
        from grad_testing.devices import current_backend

        if current_backend() != asked:
            pytest.skip(f"there is no {asked.upper()} here")


# Linux gives a process 65,530 memory maps, each program compiled for the CPU takes three, and the
# compiler crashes when there are no more.
_MANY_MAPS = 30_000
_finished_tests = 0


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Now and then lets go of compiled programs, if there are very many."""
    global _finished_tests
    _finished_tests += 1
    maps = Path("/proc/self/maps")
    if _finished_tests % 25 or "jax" not in sys.modules or not maps.exists():
        return
    if maps.read_bytes().count(b"\n") > _MANY_MAPS:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def backend() -> str:
    """Where the tests run: ``"cpu"``, ``"gpu"`` or ``"tpu"``."""
    from grad_testing.devices import current_backend

    return current_backend()


@pytest.fixture(scope="session")
def tolerance(backend: str) -> Callable[[Any], Tolerance]:
    """``tolerance(dtype)``: the error that results may have, as keywords of ``assert_allclose``.

    Example::

        def test_double(tolerance):
            np.testing.assert_allclose(double(x), 2 * x, **tolerance(x.dtype)._asdict())
    """
    from grad_testing.tolerances import tolerance_for

    return lambda dtype: tolerance_for(dtype, backend)


@pytest.fixture(scope="session")
def devices() -> Sequence[jax.Device]:
    """The devices of the backend; the test is skipped where there can be but one."""
    import jax

    found = jax.devices()
    if len(found) == 1:
        if jax.default_backend() == "cpu":
            pytest.fail(
                "there is one CPU device: JAX was used before the plugin could make virtual ones. "
                "Make them at once, with --backend=cpu, or grad_virtual_devices = true in the "
                "configuration of pytest."
            )
        pytest.skip("there is but one device here")
    return found


@pytest.fixture(scope="session", params=["automatic", "explicit"])
def mesh(request: pytest.FixtureRequest, devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """A mesh with the axes ``data`` and ``model``, once automatic and once explicit."""
    from grad_testing.devices import make_mesh

    return make_mesh(explicit=request.param == "explicit", devices=devices)


@pytest.fixture(scope="session")
def tpu_ledger(request: pytest.FixtureRequest) -> Ledger:
    """Where to enter what programs need on TPUs; see `grad_testing.tpu_costs`."""
    return _ledger(request.config)


def _ledger(config: pytest.Config) -> Ledger:
    from grad_testing.tpu_costs import Ledger

    table: str = config.getini("grad_tpu_costs")
    recording: str | None = config.getoption("--record-tpu-costs")
    return Ledger(
        config.rootpath / table if table else None, Path(recording) if recording else None
    )


def _targets(*layouts: str) -> list[Any]:
    """Parameters of `tpu`. One topology shows what there is to see; the full tier has another."""
    return [
        pytest.param((topology, layout), id=f"{topology}-{layout}", marks=marks)
        for topology, marks in (("v5e:2x2", ()), ("v5p:2x2x1", pytest.mark.full))
        for layout in layouts
    ]


ONE_TPU = _targets("single")[:1]
"""Where bounds hold; what other programs, and other TPUs, need is on record."""


@pytest.fixture(scope="session", params=_targets("single", "sharded"))
def tpu(request: pytest.FixtureRequest, tpu_ledger: Ledger) -> Target:
    """What to compile for: a TPU, or a mesh of them; there need not be one here."""
    from grad_testing.tpu_targets import Target

    topology, layout = request.param
    return Target(topology, layout, _devices_of(topology), tpu_ledger)


@pytest.fixture(scope="session")
def tpu_device() -> jax.Device:
    """A TPU to compile for."""
    return _devices_of("v5e:2x2")[0]


def _devices_of(topology: str) -> tuple[jax.Device, ...]:
    from grad_testing.devices import NoTopology, devices_to_compile_for

    try:
        return devices_to_compile_for(topology)
    except NoTopology as error:
        pytest.skip(str(error))
