"""Every block of Python in the documentation runs, one after another in each file."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("packages/*/*.md")),
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the pattern's page takes as imported: everything one writes transformations with.
GIVEN = """
from typing import NamedTuple
import jax
import jax.numpy as jnp
import optax
from grad_core import *
"""


def blocks_of(path):
    """The source of each block, with its line in the file."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m[1]) for m in BLOCK.finditer(text)]


DOCUMENTS = [path for path in FILES if blocks_of(path)]


def test_there_are_examples():
    """Outside of the workspace there is nothing to run."""
    if not (ROOT / "uv.lock").exists():
        pytest.skip("the documents belong to the workspace, and this is not one")
    assert ROOT / "README.md" in DOCUMENTS
    assert ROOT / "docs" / "pattern.md" in DOCUMENTS


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # whatever an example writes
    namespace = {"__name__": "documentation"}
    if path.name == "pattern.md":
        exec(GIVEN, namespace)
    for line, source in blocks_of(path):
        code = compile("\n" * line + source, str(path), "exec")  # errors name the document's line
        exec(code, namespace)
