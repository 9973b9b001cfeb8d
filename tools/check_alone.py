#!/usr/bin/env python3
"""Installs every distribution alone, from its built wheel, and runs its smoke tests there.

For each distribution: build its sdist and wheel and look inside; make a fresh environment outside
the workspace; install the wheel; check that it brought exactly what its place in the house allows
and that no other sibling can be imported; run a copy of ``tests/smoke`` against it.

Siblings are pinned to the built files, other packages to the versions in ``uv.lock``, so a package
of the same name on an index can never be taken. Needs nothing but Python and uv; run it from
anywhere.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
ARRAYS = frozenset({"jax", "numpy"})
CORE = frozenset({"grad-core"})


class Needs(NamedTuple):
    """What a distribution may ask for: siblings, and other packages."""

    siblings: frozenset[str]
    others: frozenset[str]


_LEAF = Needs(CORE, ARRAYS)
NEEDS = {
    "grad-core": Needs(frozenset(), ARRAYS),
    "grad-schedules": _LEAF,
    "grad-wrappers": _LEAF,
    "grad-losses": _LEAF,
    "grad-second-order": _LEAF,
    "grad-estimators": Needs(CORE, ARRAYS | {"distrax"}),
    "grad-optimizers": _LEAF,
}
NEEDS["grad-contrib"] = Needs(frozenset(NEEDS), ARRAYS)
NEEDS["optax"] = Needs(frozenset(NEEDS), frozenset())
NEEDS["grad-testing"] = Needs(CORE, ARRAYS | {"chex", "pytest"})
EXTRAS = {
    ("grad-schedules", "plot"): frozenset({"matplotlib"}),
    ("optax", "testing"): frozenset({"grad-testing"}),
}


class Failure(Exception):
    """A check that did not hold; the message says which and why."""


def check(holds: bool, message: str) -> None:
    """Raises `Failure` with the message unless the check holds."""
    if not holds:
        raise Failure(message)


def module_of(name: str) -> str:
    """The name a distribution is imported by, which is also its spelling in file names."""
    return name.replace("-", "_")


def normal(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(names: Iterable[str]) -> str:
    """Names for a message, in order."""
    return ", ".join(sorted(names)) or "none"


def with_siblings(name: str) -> set[str]:
    """The distribution and every sibling that its dependencies bring."""
    if name not in NEEDS:  # another's
        return set()
    return {name}.union(*(with_siblings(sibling) for sibling in NEEDS[name].siblings))


def find_uv() -> list[str | Path]:
    """The command that runs uv."""
    found = os.environ.get("UV") or shutil.which("uv")
    return [found] if found else [sys.executable, "-m", "uv"]


def run(command: Sequence[str | Path], cwd: Path, given: str = "") -> str:
    """Runs a command without what the workspace left in the environment; returns its output."""
    ours = ("PYTHON", "PYTEST_", "UV_PROJECT", "VIRTUAL_ENV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env | {"JAX_PLATFORMS": "cpu"},
        input=given,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        shown = " ".join(str(part) for part in command)
        raise Failure(f"exit {done.returncode} from: {shown}\n{done.stdout}{done.stderr}".rstrip())
    return done.stdout


@dataclass(frozen=True)
class Built:
    """The two files made of one distribution."""

    name: str
    wheel: Path
    sdist: Path


class Bench:
    """A folder outside the workspace, with what was built and the environments made from it."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        self.python = python
        self.uv = find_uv()
        self.built: dict[str, Built] = {}
        self.third_party = folder / "third-party.txt"
        self.siblings = folder / "siblings.txt"
        export = ["export", "--quiet", "--locked", "--no-emit-workspace", "--no-hashes"]
        pins = run([*self.uv, *export, "--no-header", "--no-annotate"], cwd=ROOT)
        self.third_party.write_text(pins, encoding="utf-8")

    def build(self, names: Iterable[str]) -> None:
        """Builds the sdist of each distribution, and the wheel from that sdist."""
        out = self.folder / "dist"
        for name in sorted(names):
            run([*self.uv, "build", "--quiet", "--package", name, "--out-dir", out], cwd=ROOT)
            wheels = list(out.glob(f"{module_of(name)}-*.whl"))
            sdists = list(out.glob(f"{module_of(name)}-*.tar.gz"))
            check(len(wheels) == 1 and len(sdists) == 1, f"{name}: one wheel and one sdist wanted")
            self.built[name] = Built(name, wheels[0], sdists[0])
        pins = [f"{built.name} @ {built.wheel.as_uri()}\n" for built in self.built.values()]
        self.siblings.write_text("".join(pins), encoding="utf-8")

    def environment(self, name: str) -> Path:
        """Makes an empty environment and returns its Python."""
        home = self.folder / "envs" / name
        run(
            [*self.uv, "venv", "--quiet", "--no-project", "--python", self.python, home],
            self.folder,
        )
        windows = os.name == "nt"
        return home / ("Scripts/python.exe" if windows else "bin/python")

    def install(self, python: Path, requirement: str) -> None:
        """Installs a requirement; siblings can come from the built wheels only."""
        install = [*self.uv, "pip", "install", "--quiet", "--python", python]
        pins = ("--constraints", self.third_party, "--constraints", self.siblings)
        run([*install, *pins, requirement], self.folder)

    def installed(self, python: Path) -> set[str]:
        """The distributions in an environment."""
        command = [*self.uv, "pip", "list", "--quiet", "--format", "json", "--python", python]
        return {normal(item["name"]) for item in json.loads(run(command, self.folder))}

    def resolved(self, python: Path, names: Iterable[str]) -> set[str]:
        """The named packages of others, and all they need."""
        command = [*self.uv, "pip", "compile", "--quiet", "--python", python]
        options = ("--no-header", "--no-annotate", "--constraints", self.third_party)
        lines = run([*command, *options, "-"], self.folder, given="\n".join(names)).splitlines()
        return {normal(line.partition("==")[0]) for line in lines if "==" in line}


def check_files(built: Built) -> None:
    """Checks the contents and the metadata of a wheel and of an sdist."""
    name, module = built.name, module_of(built.name)
    with zipfile.ZipFile(built.wheel) as wheel:
        files = wheel.namelist()
        info = next(file.partition("/")[0] for file in files if ".dist-info/" in file)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    for wanted in (f"{module}/__init__.py", f"{module}/py.typed", f"{info}/licenses/LICENSE"):
        check(wanted in files, f"{built.wheel.name} lacks {wanted}")
    strays = [file for file in files if file.partition("/")[0] not in {module, info}]
    strays += [file for file in files if "tests" in Path(file).parts]
    check(not strays, f"{built.wheel.name} should not hold {listed(strays)}")
    check(metadata["License-Expression"] == "Apache-2.0", f"{name}: no license in the metadata")
    check(bool(metadata.get_payload()), f"{name}: no README in the metadata")

    declared, extras = set[str](), set[tuple[str, str]]()
    for requirement in metadata.get_all("Requires-Dist", []):
        match = re.match(r"[\w.-]+", requirement)
        other = normal(match.group() if match else requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if extra:
            extras.add((extra.group(1), other))
        else:
            declared.add(other)
    wanted_names = NEEDS[name].siblings | NEEDS[name].others
    message = (
        f"{name} declares {listed(declared)}; its place in the house is {listed(wanted_names)}"
    )
    check(declared == wanted_names, message)
    wanted_extras = {
        (extra, other)
        for (owner, extra), brings in EXTRAS.items()
        if owner == name
        for other in brings
    }
    check(extras == wanted_extras, f"{name} declares extras {extras}, should be {wanted_extras}")

    with tarfile.open(built.sdist) as sdist:
        inside = {member.partition("/")[2] for member in sdist.getnames()}
    needed = ("LICENSE", "PKG-INFO", "README.md", "pyproject.toml", "tests/smoke/test_smoke.py")
    for wanted in (*needed, f"src/{module}/__init__.py", f"src/{module}/py.typed"):
        check(wanted in inside, f"{built.sdist.name} lacks {wanted}")


LOCATE = """
import importlib.util, json, sys
specs = (importlib.util.find_spec(name) for name in sys.argv[1:])
print(json.dumps({spec.name: spec.origin for spec in specs if spec and spec.origin}))
"""


def check_importable(python: Path, cwd: Path, allowed: set[str]) -> None:
    """Checks that the allowed siblings can be imported, from this environment, and no other."""
    modules = [module_of(name) for name in NEEDS]
    found: dict[str, str] = json.loads(run([python, "-I", "-c", LOCATE, *modules], cwd))
    extra = found.keys() - {module_of(name) for name in allowed}
    check(not extra, f"beyond the declared dependencies, one can import {listed(extra)}")
    lacking = {module_of(name) for name in allowed} - found.keys()
    check(not lacking, f"one cannot import {listed(lacking)}")
    home = python.parent.parent
    astray = [
        f"{name} ({origin})" for name, origin in found.items() if home not in Path(origin).parents
    ]
    check(not astray, f"not imported from the environment: {listed(astray)}")


def check_alone(bench: Bench, name: str) -> str:
    """Checks one distribution; returns a line about it."""
    built = bench.built[name]
    check_files(built)

    python = bench.environment(name)
    bench.install(python, f"{name} @ {built.wheel.as_uri()}")
    siblings = with_siblings(name)
    others = {other for sibling in siblings for other in NEEDS[sibling].others}
    installed = bench.installed(python)
    wanted = siblings | bench.resolved(python, others)
    check(
        installed == wanted,
        f"installing {name} brought {listed(installed - wanted)} too much"
        f" and left out {listed(wanted - installed)}",
    )
    check_importable(python, bench.folder, siblings)

    if "pytest" not in installed:
        bench.install(python, "pytest")
    home = bench.folder / "smoke" / name
    shutil.copytree(ROOT / "packages" / name / "tests" / "smoke", home / "smoke")
    (home / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -q\n", "utf-8")
    output = run([python, "-I", "-m", "pytest", "smoke"], cwd=home)
    passed = re.search(r"\d+ passed", output)
    check(passed is not None, f"no smoke test of {name} passed:\n{output}")

    for (owner, extra), brings in EXTRAS.items():
        if owner == name:
            bench.install(python, f"{name}[{extra}] @ {built.wheel.as_uri()}")
            extended = siblings.union(*(with_siblings(other) for other in brings))
            check_importable(python, bench.folder, extended)
    return f"{passed.group() if passed else ''}, {len(installed)} distributions installed"


def main() -> int:
    """Checks the distributions asked for; the exit status is 1 when one fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", metavar="NAME", choices=list(NEEDS))
    parser.add_argument("--python", default=sys.executable, help="a version or a path, for uv")
    parser.add_argument("--keep", action="store_true", help="leave the folder for a look inside")
    arguments = parser.parse_args()
    names: list[str] = arguments.only or list(NEEDS)

    folder = Path(tempfile.mkdtemp(prefix="check-alone-")).resolve()
    lines, failed = [], 0
    try:
        start = time.monotonic()
        bench = Bench(folder, arguments.python)
        needed = set[str]().union(*(with_siblings(name) for name in names))
        for (owner, _), brings in EXTRAS.items():
            if owner in names:
                needed.update(*(with_siblings(other) for other in brings))
        bench.build(needed)
        print(f"built {len(needed)} distributions in {time.monotonic() - start:.0f} s", flush=True)
        for name in names:
            start = time.monotonic()
            try:
                result = "ok: " + check_alone(bench, name)
            except Failure as failure:
                failed += 1
                result = "FAILED"
                print(f"{name}: {failure}", flush=True)
            lines.append(f"  {name:<18} {time.monotonic() - start:4.0f} s  {result}")
            print(lines[-1], flush=True)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        if arguments.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder)
    print(f"\neach package alone: {len(names) - failed} ok, {failed} failed")
    print("\n".join(lines))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
