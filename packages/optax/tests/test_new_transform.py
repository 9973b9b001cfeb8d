"""The way to contribute: `tools/new_transform`, and distributions of others in `optax.contrib`."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TOOL = "tools/new_transform.py"

pytestmark = pytest.mark.skipif(
    not (ROOT / TOOL).exists(), reason="the tool belongs to the workspace, and this is not one"
)


def run(*command, cwd, status=0, **variables):
    """What a command says; it must end with the status."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **variables}
    environment.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def python(*arguments, **kwargs):
    return run(sys.executable, *arguments, **kwargs)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A copy of what a contributor's change touches, and of what checks it."""
    copy = tmp_path_factory.mktemp("workspace")
    for name in ("packages", "tools"):
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    return copy


def changed_lines(before, after):
    """The lines that are there only after, of files that were there before."""
    return {
        path: [line for line in text.splitlines() if line not in before[path].splitlines()]
        for path, text in after.items()
        if path in before and text != before[path]
    }


def texts(folder):
    return {path.relative_to(folder): path.read_text("utf-8") for path in folder.rglob("*.py")}


def test_a_module_in_grad_contrib(workspace):
    """It passes lint, types and tests unedited; two other files have two lines more each."""
    packages = workspace / "packages"
    before = texts(packages)
    said = python(TOOL, "soften", cwd=workspace)
    after = texts(packages)
    assert "soften.py" in said
    new = [str(path) for path in after if path not in before]
    assert sorted(new) == [
        "grad-contrib/src/grad_contrib/soften.py",
        "grad-contrib/tests/test_soften.py",
    ]
    assert changed_lines(before, after) == {
        Path("grad-contrib/src/grad_contrib/__init__.py"): [
            "from grad_contrib.soften import soften",
            '    "soften",',
        ],
        Path("optax/src/optax/contrib.py"): ["    soften,", '    "soften",'],
    }
    sources = [str(packages / path) for path in (*new, *changed_lines(before, after))]
    python("-m", "ruff", "check", *sources, cwd=workspace)
    python("-m", "ruff", "format", "--check", *sources, cwd=workspace)
    python("-m", "mypy", sources[0], cwd=workspace)
    sources_first = os.pathsep.join(map(str, packages.glob("*/src")))
    chosen = ["packages/grad-contrib", "-k", "soften and not sharding", "-p", "no:cacheprovider"]
    said = python("-m", "pytest", "-q", *chosen, cwd=workspace, PYTHONPATH=sources_first)
    assert "passed" in said
    program = "import optax, grad_contrib; assert optax.contrib.soften is grad_contrib.soften"
    python("-c", program, cwd=workspace, PYTHONPATH=sources_first)


@pytest.fixture(scope="module")
def distribution(tmp_path_factory):
    """A distribution of its own, as the tool writes it."""
    folder = tmp_path_factory.mktemp("elsewhere")
    python(ROOT / TOOL, "soften_more", "--package", "--into", str(folder), cwd=folder)
    return folder / "grad-soften-more"


def test_a_distribution_of_its_own(distribution):
    """It passes its own lint, types and tests, wherever it stands."""
    source = str(distribution / "src")
    python("-m", "ruff", "check", ".", cwd=distribution)
    python("-m", "ruff", "format", "--check", ".", cwd=distribution)
    python("-m", "mypy", cwd=distribution)
    chosen = ["-q", "-p", "no:cacheprovider", "-k", "not sharding"]
    said = python("-m", "pytest", *chosen, cwd=distribution, PYTHONPATH=source)
    assert "passed" in said
    assert "failed" not in said


@pytest.fixture(scope="module")
def site(distribution, tmp_path_factory):
    """A folder of installed distributions: that one, a broken one, and two that disagree."""
    site = tmp_path_factory.mktemp("site")
    uv = shutil.which("uv")
    command = [uv] if uv else [sys.executable, "-m", "uv"]
    run(*command, "build", "--quiet", "--wheel", "--out-dir", str(site), cwd=distribution)
    (wheel,) = site.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    for name, contributed in {
        "grad-broken": "harden = grad_broken:harden",
        "grad-one": "twice = json:loads",
        "grad-two": "twice = json:dumps",
    }.items():
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[optax.contrib]\n{contributed}\n")
    (site / "grad_broken.py").write_text("import a_module_that_is_not_there\n")
    return site


def test_installed_distributions_are_in_optax_contrib(site):
    program = """
import sys
import optax
from optax import contrib

assert "grad_soften_more" not in sys.modules, "it must be imported on first use only"
assert {"soften_more", "harden", "twice", "prodigy"} <= set(dir(contrib))
assert "grad_soften_more" not in sys.modules
from optax.contrib import soften_more
assert contrib.soften_more is soften_more is sys.modules["grad_soften_more"].soften_more
print(soften_more(0.5))
"""
    said = python("-c", program, cwd=site, PYTHONPATH=str(site))
    assert said == "soften_more(decay=0.5)\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("harden", ["grad-broken", "cannot be imported", "a_module_that_is_not_there"]),
        ("twice", ["grad-one", "grad-two", "several distributions"]),
        ("nobodys", ["no installed distribution contributes"]),
    ],
)
def test_what_cannot_be_had_says_why(site, name, words):
    program = f"""
import warnings, optax.contrib
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
        optax.contrib.{name}
    except AttributeError as error:
        print(error)
print(len(caught), "warnings")
"""
    said = python("-c", program, cwd=site, PYTHONPATH=str(site))
    assert all(word in said for word in words), said
    assert f"{int(name == 'harden')} warnings" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Soften"], "'Soften' cannot be a name here"),
        (["class"], "'class' cannot be a name here"),
        (["adam"], "'adam' is a name of grad_optimizers already"),
        (["soften_more", "--package", "--into", "."], "exists already"),
    ],
)
def test_refusals(distribution, arguments, words):
    before = texts(distribution)
    said = python(ROOT / TOOL, *arguments, cwd=distribution.parent, status=1)
    assert words in said
    assert "Traceback" not in said
    assert texts(distribution) == before
