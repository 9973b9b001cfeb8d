"""CI: its scripts say what ran and why not, and everything it runs is derived from the packages."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))
ACTIONS = sorted(ROOT.glob(".github/actions/*/action.yml"))

pytestmark = pytest.mark.skipif(
    not (ROOT / "ci").exists(), reason="CI belongs to the workspace, and this is not one"
)


def run(*command, cwd=ROOT, status=0, **variables):
    """What a command says; it must end with the status."""
    left_out = ("CI_REPORT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON", "UV_RESOLUTION", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept | {"PYTHON": sys.executable} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, said
    return said


@pytest.fixture
def workspace(tmp_path):
    """A copy of what says which packages and versions there are, under git."""
    for name in ("ci", ".ci", "tools"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "uv.lock", *(f"packages/{x}/pyproject.toml" for x in PACKAGES)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(folder, *arguments):
    return run("git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments, cwd=folder)


def commit(folder):
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a change")


def edit(folder, pattern, old, new):
    """Replaces text in every file of a pattern."""
    for file in folder.glob(pattern):
        before = file.read_text("utf-8")
        assert old in before
        file.write_text(before.replace(old, new), "utf-8")


def affected(folder, *files):
    """The packages that a change of these files affects."""
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("a") as opened:
            opened.write("\n")
    commit(folder)
    return json.loads(run(sys.executable, "tools/affected.py", "--json", "HEAD~1", cwd=folder))


# The scripts.


def test_steps_are_summed_up(workspace):
    (workspace / "ci" / "some").write_text(
        """source ci/common.sh
        step "good" report "12 passed"
        step "bad" ci/more "two words"
        step "absent" report "skipped: no GPU here"
        step_summary "some:"
        """
    )
    more = workspace / "ci" / "more"
    more.write_text('source ci/common.sh\nstep "inner" false\nstep_summary "more:"')
    more.chmod(0o755)
    said = run("bash", "ci/some", cwd=workspace, status=1).partition("\nsome:\n")[2]
    assert re.sub(r" +\d+s  | +", " ", said).splitlines() == [
        " good ok",
        " 12 passed",
        r" bad FAILED (exit 1); again alone: ci/more two\ words",
        " inner FAILED (exit 1); again alone: false",
        " absent skipped",
        " skipped: no GPU here",
    ]


@pytest.mark.parametrize("script", [".ci/run", "ci/run", "ci/versions"])
def test_scripts_have_help(script):
    said = run(script, "--help")
    assert f"Usage: {script}" in said
    assert "--full" in said
    assert "set -euo" not in said


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([".ci/run", "--ful"], "run: unknown option --ful"),
        ([".ci/run", "cpu"], "run: unknown option cpu"),
        (["ci/run"], "run: name a backend"),
        (["ci/run", "vpu"], "run: no backend vpu"),
        (["ci/run", "cpu", "--ful"], "run: unknown option --ful"),
        (["ci/run", "cpu", "optx"], "run: no package optx; there are: grad-contrib"),
        (["ci/versions", "--only", "2.7-locked"], "versions: no row 2.7-locked"),
        (["ci/lint", "tools"], "lint: it takes no arguments"),
    ],
)
def test_unknown_arguments_are_errors(command, error):
    """At once: nothing has run."""
    said = run(*command, status=2)
    assert said.startswith(error)
    assert "Usage: " in said


def test_a_report_elsewhere_leaves_pytest_its_configuration(tmp_path):
    """pytest looks for it above a path among its arguments, if it does not know the option yet."""
    report = tmp_path / "report"
    report.touch()
    said = run("ci/run", "cpu", "--full", "--", "-n", "0", "--markers", CI_REPORT=str(report))
    assert "full: belongs to the full tier" in said


# Versions.


def rows(folder):
    said = run(sys.executable, "tools/versions.py", cwd=folder)
    return {row.split("\t")[0]: row.split("\t")[1:] for row in said.splitlines()}


def test_versions_are_those_that_packages_declare(workspace):
    found = rows(workspace)
    assert [*found] == ["3.11-lowest-direct", "3.11-locked", "3.12-locked", "3.13-locked"]
    python, resolution, jax, *_ = found["3.11-lowest-direct"]
    assert (python, resolution, jax) == ("3.11", "lowest-direct", "0.10")
    assert f'name = "jax"\nversion = "{found["3.13-locked"][2]}"' in (ROOT / "uv.lock").read_text()
    matrix = json.loads(run("ci/versions", "--json", cwd=workspace))
    assert [row["name"] for row in matrix["include"]] == [*found]

    # What one package does not support, the workspace does not; what all do, it does.
    edit(workspace, "packages/grad-losses/pyproject.toml", 'Python :: 3.11"', 'Python :: 2.7"')
    edit(workspace, "packages/*/pyproject.toml", 'Python :: 3.13"', 'Python :: 3.99"')
    edit(workspace, "packages/grad-core/pyproject.toml", '"jax>=0.10,', '"jax>=0.11,')
    assert [*rows(workspace)] == ["3.12-lowest-direct", "3.12-locked", "3.99-locked"]
    assert rows(workspace)["3.12-lowest-direct"][2] == "0.11"


def test_a_python_that_is_not_here_is_said(workspace):
    edit(workspace, "packages/*/pyproject.toml", "Python :: 3.1", "Python :: 3.9")
    said = run("ci/versions", cwd=workspace)
    for row in ("3.91-lowest-direct", "3.91-locked", "3.92-locked", "3.93-locked"):
        assert re.search(rf"{row} +\d+s  skipped\n +skipped: no Python 3.9\d here", said)
    run("ci/versions", "--only", "3.92-locked", cwd=workspace, status=1)


# Which packages a change affects.


def test_a_change_affects_a_package_and_those_that_need_it(workspace):
    assert affected(workspace, "packages/grad-losses/src/x.py") == [
        "grad-contrib",
        "grad-losses",
        "optax",
    ]
    assert affected(workspace, "packages/optax/src/x.py") == ["optax"]
    assert affected(workspace, "packages/grad-core/tests/test_x.py") == PACKAGES
    assert affected(workspace, "packages/grad-testing/src/x.py") == PACKAGES
    assert affected(workspace, "CHANGELOG.md", "docs/x.md") == ["optax"]
    assert affected(workspace, "uv.lock") == PACKAGES


def test_a_new_package_needs_no_edit(workspace):
    text = (ROOT / "packages/grad-contrib/pyproject.toml").read_text("utf-8")
    new = workspace / "packages/grad-new/pyproject.toml"
    new.parent.mkdir()
    new.write_text(text.replace('"grad-contrib"', '"grad-new"'), "utf-8")
    commit(workspace)
    assert affected(workspace, "packages/grad-new/src/x.py") == ["grad-new"]
    assert "grad-new" in affected(workspace, "packages/grad-losses/src/x.py")
    assert "grad-new" in affected(workspace, "ci/run")


def test_an_unknown_base_affects_everything(workspace):
    for base in ((), ("",), ("0" * 40,)):
        assert run(sys.executable, "tools/affected.py", *base, cwd=workspace).split() == PACKAGES


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_imports_affects_it(workspace, package):
    """Else a change could break its tests unseen."""
    imported = set()
    for file in (ROOT / "packages" / package).rglob("*.py"):
        imported |= {*re.findall(r"^\s*(?:from|import) (grad_\w+|optax)\b", file.read_text(), re.M)}
    assert imported
    for module in imported:
        assert package in affected(workspace, f"packages/{module.replace('_', '-')}/src/x.py")


# Workflows.


def load(path):
    yaml = pytest.importorskip("ruamel.yaml")
    return yaml.YAML(typ="safe").load(path)


def parts(tree):
    """Every mapping in a workflow."""
    if isinstance(tree, dict):
        yield tree
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from parts(part)


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + "/" + path.name
)
def test_what_workflows_call_exists(path):
    calls = [part for part in parts(load(path)) if {"run", "uses"} & part.keys()]
    assert calls
    for call in calls:
        for command in re.findall(r"(?<![\w/])(?:\.?ci|tools|docs)/[\w./]+", call.get("run", "")):
            assert os.access(ROOT / command, os.X_OK) or f"uv run --locked {command}" in call["run"]
            assert (ROOT / command).is_file()
        if call.get("uses", "").startswith("./"):
            called = load(path_called(call["uses"]))
            inputs = called.get("inputs") or called["on"]["workflow_call"]["inputs"]
            assert call.get("with", {}).keys() <= inputs.keys()


def path_called(uses):
    path = ROOT / uses
    return path if path.is_file() else path / "action.yml"


def test_workflows_run_what_one_machine_runs():
    """Every script that `.ci/run` runs is in a workflow, and they test on the oldest Python."""
    workflows = "".join(path.read_text("utf-8") for path in WORKFLOWS)
    script = (ROOT / ".ci/run").read_text("utf-8")
    commands = set(re.findall(r"(?:ci|tools|docs)/[\w./]+", script)) - {"ci/common.sh", "ci/run"}
    assert len(commands) == 4
    for command in (*commands, "ci/run"):
        assert command in workflows
    [action] = ACTIONS
    oldest, *_ = rows(ROOT).values()
    assert load(action)["inputs"]["python"]["default"] == oldest[0]


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("timeout-minutes: 10", "timeout-minuts: 10", "$.jobs.plan"),
        ("pull_request:\n", "pull_requests:\n", "$.on"),
        ("run: ci/lint", "run: echo ${{ github.event.pull_request.title }}", "template-injection"),
        ("@08c6903cd8c0fde910a37f88322edcfb5dd907a8", "@v5", "unpinned-uses"),
    ],
)
def test_faults_in_workflows_are_caught(tmp_path, old, new, error):
    """By what ci/lint runs."""
    pytest.importorskip("check_jsonschema")
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    workflow = tmp_path / ".github/workflows/ci.yml"
    assert lint(workflow) == ""
    edit(tmp_path, ".github/workflows/ci.yml", old, new)
    assert error in lint(workflow)


def lint(workflow):
    """What linters have against a workflow."""
    scripts = Path(sys.executable).parent
    form = [scripts / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    safety = [scripts / "zizmor", "--offline", "--quiet", workflow.parents[1]]
    done = [subprocess.run(x, capture_output=True, text=True, check=False) for x in (form, safety)]
    return "".join(x.stdout + x.stderr for x in done if x.returncode)
