#!/usr/bin/env python3
"""Checks that the tree keeps the house rules that no other tool holds.

Module length, files every distribution must have, versions in lockstep, hosts in the lock file.
Needs nothing but Python; run it from anywhere.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UMBRELLA = "optax"
MAX_LINES = 500
HOSTS = {"pypi.org", "files.pythonhosted.org"}


def long_modules() -> Iterator[str]:
    """Names every module that has outgrown the limit."""
    for pattern in ("packages/*/src/**/*.py", "tools/**/*.py"):
        for module in sorted(ROOT.glob(pattern)):
            lines = len(module.read_text(encoding="utf-8").splitlines())
            if lines > MAX_LINES:
                yield f"{module.relative_to(ROOT)}: {lines} lines, more than {MAX_LINES}"


def missing_files(package: Path) -> Iterator[str]:
    """Names what a distribution's folder lacks."""
    module = package / "src" / package.name.replace("-", "_")
    needed = [
        package / "README.md",
        package / "tests" / "smoke" / "test_smoke.py",
        module / "__init__.py",
        module / "py.typed",
    ]
    for file in needed:
        if not file.is_file():
            yield f"{file.relative_to(ROOT)}: missing"
    own = package / "LICENSE"
    if not own.is_file() or own.read_bytes() != (ROOT / "LICENSE").read_bytes():
        yield f"{own.relative_to(ROOT)}: must be a copy of LICENSE at the root"


def version_slips(package: Path, siblings: set[str], version: str) -> Iterator[str]:
    """Names versions and sibling bounds that are out of step with the workspace's version."""
    where = f"packages/{package.name}/pyproject.toml"
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if project["version"] != version:
        yield f"{where}: version {project['version']}, the workspace is at {version}"
    major, minor, _ = version.split(".")
    bound = f">={version},<{major}.{int(minor) + 1}"
    if package.name == UMBRELLA:
        bound = f"=={version}"
    extras = project.get("optional-dependencies", {}).values()
    for requirement in [*project["dependencies"], *(r for extra in extras for r in extra)]:
        match = re.match(r"[\w-]+", requirement)
        name = match.group() if match else requirement
        if name in siblings and requirement != name + bound:
            yield f"{where}: asks for {requirement!r}, should be {name + bound!r}"
        if name not in siblings and "<" not in requirement:
            yield f"{where}: {requirement!r} is not bounded above"


def foreign_hosts() -> Iterator[str]:
    """Names hosts other than the package index's own in the lock file."""
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    for host in sorted(set(re.findall(r"https?://([^/\"]+)", lock)) - HOSTS):
        yield f"uv.lock: {host} is not the package index; lock with `uv --no-config lock`"


def problems() -> Iterator[str]:
    """Runs every check."""
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
    siblings = {package.name for package in packages}
    yield from long_modules()
    yield from foreign_hosts()
    for package in packages:
        yield from missing_files(package)
        yield from version_slips(package, siblings, root["project"]["version"])
    for name in siblings ^ set(root["project"]["dependencies"]):
        yield f"pyproject.toml: dependencies and packages/ disagree about {name}"


def main() -> int:
    """Prints every problem; the exit status is 1 when there are any."""
    found = list(problems())
    print("\n".join(found) or "the tree keeps the house rules")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
