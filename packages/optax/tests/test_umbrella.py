"""The umbrella: the names users know, each the object of its home, and nothing else."""

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import optax

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = Path(inspect.getfile(optax)).parent
SOURCES = sorted(PACKAGE.glob("**/*.py"))
LEAVES = [
    "grad_contrib",
    "grad_core",
    "grad_estimators",
    "grad_losses",
    "grad_optimizers",
    "grad_schedules",
    "grad_second_order",
    "grad_wrappers",
]


def module_name(source):
    """The module that a file of the umbrella is; ``optax.experimental`` is a package."""
    parts = source.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = sorted(map(module_name, SOURCES))


def load_tool(name):
    """A program of the workspace's tools, as a module."""
    path = ROOT / "tools" / f"{name}.py"
    if not path.exists():
        pytest.skip(f"{path.name} belongs to the workspace, and this is not one")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def imported_names(source):
    """``(module, name there, name here)`` of every import in a module of the umbrella."""
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module, alias.name, alias.asname or alias.name


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_resolves(name):
    module = importlib.import_module(name)
    names = module.__all__
    public = [each for each in names if each != "__version__"]
    assert public == sorted(set(public))
    for each in names:
        getattr(module, each)
    unlisted = {each for each in vars(module) if not each.startswith("_")} - set(names)
    assert not unlisted, f"{name} imports names that it does not list"


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_every_name_is_the_object_of_its_home(source):
    name = module_name(source)
    module = importlib.import_module(name)
    for home, there, here in imported_names(source):
        if home == "importlib.metadata":
            continue
        owner = importlib.import_module(home)
        assert getattr(module, here) is getattr(owner, there), f"{name}.{here}"
        if not home.startswith("optax"):
            assert there in owner.__all__, f"{home} does not list {there}"


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_there_is_no_algorithm(source):
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_assignment = isinstance(node, ast.Assign) and all(
            isinstance(target, ast.Name) and target.id in ("__all__", "__version__")
            for target in node.targets
        )
        assert is_docstring or is_assignment or isinstance(node, ast.ImportFrom), ast.unparse(node)


def test_no_name_has_two_homes():
    homes = {}
    for leaf in LEAVES:
        for name in getattr(importlib.import_module(leaf), "__all__", []):
            homes.setdefault(name, []).append(leaf)
    assert not {name: leaves for name, leaves in homes.items() if len(leaves) > 1}


def test_public_names_of_the_leaves_are_reached():
    """Whatever the leaves offer to users is here too, but for grad_core's tools of the trade."""
    for leaf in LEAVES:
        if leaf == "grad_core":
            continue
        module = importlib.import_module(leaf)
        public = {name: getattr(module, name) for name in module.__all__}
        for name, each in list(public.items()):
            if inspect.ismodule(each):
                public |= {part: getattr(each, part) for part in each.__all__}
                del public[name]
        places = [importlib.import_module(place) for place in MODULES]
        for name, each in public.items():
            assert any(getattr(place, name, None) is each for place in places), f"{leaf}.{name}"


def test_schedules_beyond_the_released_ones_are_in_their_module_only():
    tool = load_tool("check_api")
    released = json.loads(tool.REFERENCE.read_text(encoding="utf-8"))["names"]
    for name in optax.schedules.__all__:
        assert hasattr(optax, name) == (name in released), name


def test_version():
    assert optax.__version__ == importlib.metadata.version("optax")


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "program",
    [
        "import optax.losses; optax.losses.l2_loss(1.0)",
        "from optax.losses import l2_loss; l2_loss(1.0)",
        "from optax import losses; losses.l2_loss(1.0)",
        "import optax; optax.tree.map_params; optax.tree_utils.tree_map_params",
        "import optax.tree; from optax.tree import map_params; optax.tree.map_params is map_params",
        "import optax.schedules, optax.projections, optax.transforms, optax.tree_utils",
        "import optax; optax.schedules, optax.projections, optax.transforms, optax.losses",
        "from optax.experimental import aggregating; aggregating.process",
        "import optax.experimental.aggregating as a; a.process",
        "import optax.microbatching; optax.microbatching.microbatch",
        "import optax.perturbations; optax.perturbations.make_perturbed_fun",
        "import optax.contrib; from optax.contrib import prodigy; optax.contrib.prodigy is prodigy",
        "import optax; optax.contrib.dpsgd, optax.second_order.hvp",
        "import optax; optax.monte_carlo.rloo_jacobians",
        "import optax.tree_utils as otu; otu.tree_zeros_like({'a': 1.0})",
    ],
)
def test_submodules_are_reached_both_ways(program):
    run(program)


@pytest.mark.parametrize("package", ["optax", *LEAVES])
def test_imports_cost_little(package):
    """After jax, nothing is imported but ours and the standard library."""
    program = (
        "import sys, json, jax, jax.numpy\n"
        "before = {name.split('.')[0] for name in sys.modules}\n"
        f"import {package}\n"
        "after = {name.split('.')[0] for name in sys.modules}\n"
        "print(json.dumps(sorted(after - before - sys.stdlib_module_names)))"
    )
    added = {name for name in json.loads(run(program)) if not name.startswith("__editable__")}
    ours = {*LEAVES, "optax"} if package in ("optax", "grad_contrib") else {package, "grad_core"}
    assert package in added
    assert added <= ours
    # jax may import some of these itself, so that the difference would not show them.
    heavy = "distrax tensorflow_probability tensorflow chex grad_testing pytest matplotlib sklearn"
    program = f"import sys, {package}; print(*(set({heavy.split()}) & set(sys.modules)))"
    assert run(program).split() == []


def test_users_calls_mean_what_they_meant():
    """Parameters, defaults and fields of states are the released library's."""
    tool = load_tool("check_api")
    result = tool.compare(json.loads(tool.REFERENCE.read_text(encoding="utf-8")))
    assert not result.differences
    assert len(result.compared) > 150


@pytest.mark.parametrize(
    ("released", "problem"),
    [
        ("(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None, x=1)", "lacks x"),
        ("(learning_rate, momentum=0.9, nesterov=False, accumulator_dtype=None)", "momentum"),
        ("(learning_rate, *, momentum=None, nesterov=False, accumulator_dtype=None)", "momentum"),
        ("(learning_rate, nesterov=False, momentum=None, accumulator_dtype=None)", "order"),
        ("(learning_rate, momentum=None, nesterov=False)", "adds accumulator_dtype"),
        ("(rate, momentum=None, nesterov=False, accumulator_dtype=None)", "lacks rate"),
    ],
)
def test_other_signatures_are_found(released, problem):
    tool = load_tool("check_api")
    result = tool.compare({"names": {"sgd": released}, "states": {}})
    assert any(problem in text for text in result.differences), result.differences


def test_other_fields_and_absent_names_are_found():
    tool = load_tool("check_api")
    names = {
        "ScaleByAdamState": {"fields": "count, nu, mu"},
        "EmptyState": {"fields": "", "is": "MaskedNode"},
        "tree_utils.NamedTupleKey": {"class": "(tuple_name, name)", "members": ["nothing"]},
        "adam": "module",
        "no_such_thing": "(x)",
        "losses.no_such_loss": "(x)",
    }
    result = tool.compare({"names": names, "states": {}})
    assert result.missing == ["losses.no_such_loss", "no_such_thing"]
    wrong = {text.split(":")[0] for text in result.differences}
    assert wrong == {f"optax.{name}" for name in names if name not in result.missing}


def test_what_may_differ_does_not():
    """Keyword-only parameters with defaults may follow, a required parameter may get a default."""
    tool = load_tool("check_api")
    ours = tool.parameters_from_text("(transforms, param_labels=None, *, masks=False, extra=1)")
    released = tool.parameters_from_text("(transforms, param_labels, *, masks=False)")
    assert list(tool.parameter_differences(ours, released)) == []
