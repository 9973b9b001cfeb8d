#!/usr/bin/env python3
"""Names the packages whose tests a change can break: those it touches, and all that need them.

Who needs whom is read from the packages' pyproject.toml; a plugin of pytest is needed by all.
Documents belong to the umbrella, whose tests run them; whatever else stands outside of packages/
concerns every package. Needs nothing but Python and git.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath

from check_tree import ROOT, UMBRELLA
from versions import declared


def needs(root: Path = ROOT) -> dict[str, set[str]]:
    """The siblings that each package needs directly, for itself or for its tests."""
    projects = declared(root)
    plugins = {
        project["name"] for project in projects if "pytest11" in project.get("entry-points", {})
    }
    found = {}
    for project in projects:
        extras = project.get("optional-dependencies", {}).values()
        requirements = [*project["dependencies"], *(text for extra in extras for text in extra)]
        named = {re.split(r"[^\w-]", text)[0] for text in requirements}
        found[project["name"]] = named | plugins - {project["name"]}
    return {name: named & found.keys() for name, named in found.items()}


def with_dependants(touched: Iterable[str], needs: dict[str, set[str]]) -> set[str]:
    """Packages, and those that need them, however indirectly."""
    found = set(touched)
    while more := {name for name, needed in needs.items() if needed & found} - found:
        found |= more
    return found


def affected(files: Iterable[str], needs: dict[str, set[str]]) -> list[str]:
    """The packages whose tests a change of these files can break."""
    touched: set[str] = set()
    for file in files:
        top, *rest = PurePath(file).parts
        if top == "packages" and rest[0] in needs:
            touched.add(rest[0])
        elif top == "docs" or file.endswith(".md"):
            touched.add(UMBRELLA)
        else:
            return sorted(needs)
    return sorted(with_dependants(touched, needs))


def git(*arguments: str) -> str:
    """What git says; empty if it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, text=True, capture_output=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def main() -> int:
    """Prints their names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "base", nargs="?", help="what the change is compared with: a branch, a commit"
    )
    parser.add_argument("--json", action="store_true", help="as a list, for GitHub's workflows")
    arguments = parser.parse_args()
    start = arguments.base and git("merge-base", arguments.base, "HEAD")
    if start:
        found = affected(git("diff", "--name-only", start).splitlines(), needs())
    else:  # an unknown change can break anything
        found = sorted(needs())
    print(json.dumps(found) if arguments.json else " ".join(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
