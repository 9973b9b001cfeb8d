"""The public names: explicit, sorted, all there, and cheap to import."""

import ast
import inspect
import pathlib
import subprocess
import sys
import types

import pytest

import grad_core


def test_all_is_sorted_and_without_repetition():
    assert list(grad_core.__all__) == sorted(set(grad_core.__all__))


def test_all_is_an_explicit_list():
    module = ast.parse(pathlib.Path(grad_core.__file__).read_text())
    (value,) = [
        node.value
        for node in module.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    assert isinstance(value, ast.List)
    assert all(isinstance(item, ast.Constant) for item in value.elts)


@pytest.mark.parametrize("name", grad_core.__all__)
def test_every_name_resolves_and_is_public(name):
    assert not name.startswith("_")
    assert getattr(grad_core, name) is not None


def test_every_name_imported_is_public():
    module = ast.parse(pathlib.Path(grad_core.__file__).read_text())
    imported = {
        alias.asname or alias.name
        for node in module.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported == set(grad_core.__all__)


def test_what_is_public_has_a_docstring():
    documented = [
        getattr(grad_core, name)
        for name in grad_core.__all__
        if inspect.isroutine(getattr(grad_core, name))
        or isinstance(getattr(grad_core, name), type | types.ModuleType)
    ]
    assert len(documented) > 40
    assert [x.__name__ for x in documented if not x.__doc__] == []


def test_importing_is_cheap():
    program = (
        "import sys, jax, jax.numpy; before = set(sys.modules); import grad_core;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    new = done.stdout.split()
    assert "grad_core" in new
    heavy = (
        "chex",
        "distrax",
        "tensorflow_probability",
        "scipy",
        "pytest",
        "flax",
        "optax",
        "absl",
    )
    assert [name for name in new if name.split(".")[0] in heavy] == []
    assert [name for name in new if name.startswith("jax.experimental")] == []
    siblings = {name.split(".")[0] for name in new if name.startswith("grad_")}
    assert siblings == {"grad_core"}
