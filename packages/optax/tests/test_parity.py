"""Our numbers against recorded ones of the released library; `tools/parity.py` runs all of them."""

import functools
import importlib
import importlib.util
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

PARITY = Path(__file__).resolve().parents[3] / "tools" / "parity"
if not PARITY.exists():
    pytest.skip("the cases belong to the workspace, and this is not one", allow_module_level=True)


def _load(name, folder):
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


_load("parity", PARITY)
cases, comparing, coverage, families, recording, running = (
    importlib.import_module(f"parity.{name}")
    for name in ("cases", "comparing", "coverage", "families", "recording", "running")
)

FAMILIES = families.names()
CASES = [
    pytest.param(family, case, dtype, id=f"{case.call.name}-{dtype}")
    for family in FAMILIES
    for case in families.load(family).recorded()
    for dtype in cases.DTYPES
]


@functools.cache
def recorded(family):
    return recording.Recording(family).read()


@pytest.mark.filterwarnings("ignore:.*seed is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("family", "case", "dtype"), CASES)
def test_numbers_are_the_released_ones(family, case, dtype):
    with jax.enable_x64(dtype == "float64"):
        ours = running.run_case(families.load(family), case, dtype)
    released, exact = (
        recording.like(recorded(family)[each][case.id], ours) for each in (dtype, cases.EXACT)
    )
    verdict = comparing.judge(case, dtype, families.load(family).bounds, ours, released, exact)
    assert verdict.passed, f"{case.id}: {verdict.difference}, {verdict.text}"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_function_and_argument_has_a_case(family):
    loaded = families.load(family)
    ours = coverage.parameters(loaded.names())
    assert ours
    assert not list(coverage.gaps(loaded, ours, recording.released_parameters(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_recordings_are_complete(family):
    wanted = {case.id for case in families.load(family).recorded()}
    for dtype in cases.DTYPES:
        assert recorded(family)[dtype].keys() == wanted, f"tools/parity.py --only {family} --record"


def test_recordings_are_small():
    assert sum(file.stat().st_size for file in recording.FOLDER.iterdir()) < 300_000


def test_known_differences_are_written_down():
    every = [case for family in FAMILIES for case in families.load(family).cases]
    assert not comparing.missing_rows(every, comparing.rows())


# The tool itself.

BOUNDS = {"float32": 1e-5, "float64": 1e-10}
ADAM = cases.case("adam", 0.1)


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([0.0, -3.0], [0.0, -4.0], 0.25),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf, 1.0], [np.inf, 2.0], 0.5),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [np.nan, 1.0], np.inf),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([0.0], [0.0], 0.0),
        ([1e-30], [0.0], np.inf),
        ([1.0], [[1.0]], np.inf),
        ([], [], 0.0),
    ],
)
def test_the_measure(a, b, wanted):
    assert comparing.difference(np.array(a), np.array(b)) == wanted


def judge(case, dtype, ours, released, exact):
    of = ({"x": np.array([1.0]), "y": np.array([1.0 + each])} for each in (ours, released, exact))
    return comparing.judge(case, dtype, BOUNDS, *of)


def test_the_verdicts():
    agrees = judge(ADAM, "float32", 5e-6, 0.0, 0.0)
    assert agrees.passed
    assert agrees.kind == "ok"
    assert agrees.difference.where == "y"
    # The released library is off, ours is not.
    assert judge(ADAM, "float32", 0.0, 5e-5, 0.0).kind == "rounding"
    # Ours is off, or both are.
    assert not judge(ADAM, "float32", 5e-5, 0.0, 0.0).passed
    assert not judge(ADAM, "float32", -5e-5, 5e-5, 0.0).passed
    # In float64 there is nothing to appeal to.
    assert not judge(ADAM, "float64", 0.0, 5e-5, 0.0).passed


def test_known_differences_have_a_size_and_an_end():
    known = ADAM.differs("a row", float64=1e-6)
    assert judge(known, "float64", 1e-7, 0.0, 0.0).kind == "known difference"
    assert not judge(known, "float64", 1e-5, 0.0, 0.0).passed
    gone = judge(known, "float64", 0.0, 0.0, 0.0)
    assert not gone.passed
    assert "out of date" in gone.text
    assert judge(known, "float32", 0.0, 0.0, 0.0).kind == "ok"


def test_a_leaf_of_one_side_is_a_difference():
    verdict = comparing.judge(ADAM, "float64", BOUNDS, {"x": np.ones(1)}, {}, {})
    assert not verdict.passed


def test_missing_rows_are_told():
    found = comparing.missing_rows([ADAM.differs("a row", float64=1e-6)], {comparing.ROUNDING})
    assert found == ["docs/differences.md has no row 'a row'"]


def family_of(*found, names=("scale_by_lion",), **options):
    return cases.Family(lambda: names, found, probe=None, **options)


def gaps(family):
    ours = coverage.parameters(family.names())
    return list(coverage.gaps(family, ours, ours))


def test_coverage_sees_what_is_missing():
    assert gaps(family_of(cases.case("scale_by_lion", 0.5))) == ["scale_by_lion: has 1 of 3 cases"]
    unused = gaps(family_of(cases.case("scale_by_lion", 0.5, mu_dtype=None), settings=1))
    assert unused == ["scale_by_lion: no case uses b2, mode, mu_dtype, smooth_beta"]
    nested = cases.call("scale_by_lion", 0.5, 0.6, "float32", mode="smooth", smooth_beta=2.0)
    inside = family_of(cases.case("chain", nested, cases.call("scale", 2.0)), settings=1)
    assert gaps(inside) == []
    assert gaps(family_of(left_out={"scale_by_lion": "a reason"})) == []
    assert gaps(family_of(left_out={"lion_tamer": "a reason"}, settings=0))


def test_cases_say_themselves():
    schedule = cases.call("linear_schedule", 1.0, 0.1, 40)
    case = cases.case("partition", {"a": cases.call("sgd", schedule)}, labels := dict, axis=(1,))
    assert labels is dict
    assert case.id == "partition({'a': sgd(linear_schedule(1.0, 0.1, 40))}, dict, axis=(1,))"
    with pytest.raises(ValueError, match="there twice"):
        family_of(ADAM, ADAM)


def test_a_recording_is_read_as_it_was_written(tmp_path):
    values = {"b": np.arange(3.0), "a": np.array(7.0)}
    kept = recording.Recording("family", tmp_path)
    kept.write({"float64": {"f(1)": values, "f(2)": {"a": np.ones((2, 3))}}})
    back = kept.read()["float64"]
    np.testing.assert_equal(recording.like(back["f(1)"], values), values)
    assert back["f(2)"].shape == (6,)
    with pytest.raises(ValueError, match="6 numbers are recorded"):
        recording.like(back["f(2)"], values)
