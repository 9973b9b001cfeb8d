#!/usr/bin/env python3
"""The versions that tests run on, derived from what the packages declare. `ci/versions` runs them.

Every Python of the classifiers gets what `uv.lock` has for it, which is the newest; the oldest
Python also gets the lowest of every declared dependency. Needs nothing but Python and uv.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from check_alone import find_uv

ROOT = Path(__file__).resolve().parent.parent
LOCKED, LOWEST = "locked", "lowest-direct"


class Row(NamedTuple):
    """One set of versions."""

    name: str
    python: str
    resolution: str  # LOCKED, or how uv resolves anew
    jax: str
    interpreter: str  # its path; empty where this machine has none
    own: bool  # whether it is what this workspace's own environment has


def declared(root: Path) -> list[dict[str, Any]]:
    """The project tables of all packages."""
    files = sorted(root.glob("packages/*/pyproject.toml"))
    return [tomllib.loads(file.read_text(encoding="utf-8"))["project"] for file in files]


def numbers(version: str) -> tuple[int, ...]:
    """A version for comparing."""
    return tuple(map(int, version.split(".")))


def pythons(projects: Iterable[dict[str, Any]]) -> list[str]:
    """The Pythons that every package says it supports, oldest first."""
    found = []
    for project in projects:
        classified = re.findall(r"Python :: (\d+\.\d+)'", str(project["classifiers"]))
        least = numbers(project["requires-python"].removeprefix(">="))
        found.append({version for version in classified if numbers(version) >= least})
    return sorted(set.intersection(*found), key=numbers)


def lowest_jax(projects: Iterable[dict[str, Any]]) -> str:
    """The greatest lower bound that any package sets for jax."""
    requirements = (text for project in projects for text in project["dependencies"])
    bounds = (re.match(r"jax>=([\d.]+)", text) for text in requirements)
    return max((match.group(1) for match in bounds if match), key=numbers)


def uv(*arguments: str, may_fail: bool = False) -> str:
    """What uv says; empty if it fails and may. It finds pyenv's Pythons too, and downloads none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places = [os.environ.get("PATH", ""), *map(str, sorted(pyenv.glob("versions/*/bin")))]
    done = subprocess.run(
        [*find_uv(), *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": os.pathsep.join(places), "UV_PYTHON_DOWNLOADS": "never"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if may_fail else None,
        text=True,
        check=not may_fail,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def locked_jax(python: str) -> str:
    """The jax that `uv.lock` has for a Python."""
    options = ("--frozen", "--quiet", "--package", "jax", "--depth=0")
    return uv("tree", "--python-version", python, *options).rpartition(" v")[2]


def rows(projects: list[dict[str, Any]]) -> Iterator[Row]:
    """All sets of versions, oldest first."""
    own = uv("python", "find", "--show-version", may_fail=True).rpartition(".")[0]
    for number, python in enumerate(pythons(projects)):
        found = uv("python", "find", "--system", "--no-project", python, may_fail=True)
        if number == 0:
            jax = lowest_jax(projects)
            yield Row(f"{python}-{LOWEST}", python, LOWEST, jax, found, own=False)
        jax = locked_jax(python)
        yield Row(f"{python}-{LOCKED}", python, LOCKED, jax, found, own=python == own)


def main() -> int:
    """Prints the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="as a matrix of GitHub's workflows")
    arguments = parser.parse_args()
    found = list(rows(declared(ROOT)))
    if arguments.json:
        shown = [{key: getattr(row, key) for key in ("name", "python")} for row in found]
        print(json.dumps({"include": shown}))
    else:
        for row in found:
            print("\t".join(str(value or "-") for value in row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
