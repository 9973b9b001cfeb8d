#!/usr/bin/env python3
"""Starts a transformation: a module that works and is tested, to be made your own.

``tools/new_transform soften`` writes ``grad_contrib/soften.py`` and its test, and adds the name to
grad-contrib and to ``optax.contrib``: two lines in each of two files, and nothing else has a list.

``tools/new_transform soften --package`` writes a distribution of its own instead, ``grad-soften``:
its tests pass at once, and where it is installed, ``optax.contrib.soften`` is there.
"""

import argparse
import keyword
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "tools" / "templates"
CONTRIB = Path("packages/grad-contrib")
LISTS = {  # the files that list names, and how they import one
    CONTRIB / "src/grad_contrib/__init__.py": "from grad_contrib.{name} import {name}\n",
    Path("packages/optax/src/optax/contrib.py"): "    {name},\n",
}


class Refusal(Exception):
    """Why nothing was written."""


def written_files(name: str, is_package: bool) -> dict[str, str]:
    """What is to be written: the text of each file, by its path."""
    package = f"grad_{name}" if is_package else "grad_contrib"
    module = package if is_package else f"grad_contrib.{name}"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    major, minor, _ = version.split(".")
    words = {
        "name": name,
        "Title": name.replace("_", " ").capitalize(),
        "Camel": "".join(word.capitalize() for word in name.split("_")),
        "package": package,
        "module": module,
        "distribution": package.replace("_", "-"),
        "version": version,
        "next_version": f"{major}.{int(minor) + 1}",
    }
    files = {
        f"src/{package}/{name}.py": "module.py.txt",
        f"tests/test_{name}.py": "test.py.txt",
    }
    if is_package:
        files |= {
            "pyproject.toml": "package/pyproject.toml.txt",
            "README.md": "package/README.md.txt",
            f"src/{package}/__init__.py": "package/init.py.txt",
            "tests/test_conformance.py": "package/test_conformance.py.txt",
            "tests/smoke/test_smoke.py": "package/test_smoke.py.txt",
        }
    texts = {
        path: Template((TEMPLATES / template).read_text("utf-8")).substitute(words)
        for path, template in files.items()
    }
    if is_package:
        texts |= {f"src/{package}/py.typed": "", "LICENSE": (ROOT / "LICENSE").read_text("utf-8")}
    return texts


def with_name(text: str, name: str, imported: str) -> str:
    """The text of a module that imports a name and lists it, each in its place in the order."""
    imports, mark, listed = text.partition("\n\n__all__")
    new = imported.format(name=name)
    start = new.partition(name)[0]
    return (
        _with_line(imports + "\n", new, start)
        + mark[1:]
        + _with_line(listed, f'    "{name}",\n', '    "')
    )


def _with_line(text: str, new: str, start: str) -> str:
    """The text with one line more, before the first greater one of those with the same start."""
    lines = text.splitlines(keepends=True)
    places = [i for i, line in enumerate(lines) if line.startswith(start)]
    end = places[-1] + 1
    if lines[places[-1]].rstrip().endswith("("):  # an import over several lines
        end += lines[end:].index(")\n") + 1
    place = next((i for i in places if lines[i] > new), end)
    return "".join([*lines[:place], new, *lines[place:]])


def check_name(name: str) -> None:
    """Refuses what cannot be the name of a module, or is one already."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise Refusal(
            f"{name!r} cannot be a name here: take lower-case words and underscores, like "
            "'soften' or 'scale_by_soften'."
        )
    homes = [
        source
        for source in ROOT.glob("packages/grad-*/src/*/__init__.py")
        if re.search(rf'^    "{name}",$', source.read_text("utf-8"), re.MULTILINE)
    ]
    if homes:
        raise Refusal(f"{name!r} is a name of {homes[0].parent.name} already: take another.")


def start(name: str, folder: Path | None) -> Iterator[str]:
    """Writes a module into grad-contrib, or a distribution into a folder; says what it did."""
    check_name(name)
    home = ROOT / CONTRIB if folder is None else folder / f"grad-{name.replace('_', '-')}"
    texts = {home / path: text for path, text in written_files(name, folder is not None).items()}
    taken = [path for path in ([home] if folder is not None else texts) if path.exists()]
    if taken:
        raise Refusal(f"{taken[0]} exists already: nothing was written.")
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        yield f"wrote {path}"
    if folder is None:
        for place, imported in LISTS.items():
            path = ROOT / place
            path.write_text(with_name(path.read_text("utf-8"), name, imported), encoding="utf-8")
            yield f"added {name} to {path}: two lines"
        yield f"next: edit the module, then run ci/run cpu grad-contrib -- -k {name}"
    else:
        yield f"next: cd {home}, pip install -e '.[testing]', pytest"


def main() -> int:
    """Starts what the arguments say; the exit status is 1 if nothing was written."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="of the factory and its module, like soften")
    parser.add_argument("--package", action="store_true", help="write a distribution of its own")
    parser.add_argument(
        "--into", type=Path, metavar="FOLDER", help="where the distribution goes (here)"
    )
    arguments = parser.parse_args()
    if arguments.into and not arguments.package:
        parser.error("--into says where a distribution goes: it needs --package")
    folder = (arguments.into or Path.cwd()) if arguments.package else None
    try:
        for line in start(arguments.name, folder):
            print(line)
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
