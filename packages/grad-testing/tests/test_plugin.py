"""The plugin and the suite, as an outside project meets them."""

import importlib.metadata
import subprocess
import sys

import pytest

from grad_testing.devices import current_backend, has_tpu

pytest_plugins = ["pytester"]

OUTSIDE = """
import grad_core
from grad_core import GradientTransformation, LeafRule, NonNegative, example, exempt, rule, scale

__all__ = ["Helper", "halve", "soften"]


class Helper:
    pass


@rule
def halve() -> LeafRule:
    return LeafRule(lambda g: 0.5 * g)


@example(0.5)
@rule
def soften(strength: NonNegative) -> LeafRule:
    return LeafRule(lambda g: strength * g)


@rule
def not_public() -> LeafRule:
    return LeafRule(lambda g: 0.5 * g)
"""

TESTS = """
import outside
from grad_testing import TransformationSuite


class TestOutside(TransformationSuite):
    package = outside
"""


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Runs pytest as a project does that has grad-testing installed."""
    installed = importlib.metadata.entry_points(group="pytest11", name="grad_testing")
    load = () if installed else ("-p", "grad_testing.plugin")
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", *load, *args)


def write(pytester: pytest.Pytester, package: str, tests: str = TESTS) -> None:
    pytester.makepyfile(outside=package, test_outside=tests)


def test_a_subclass_with_a_package_tests_all_its_factories(pytester: pytest.Pytester) -> None:
    write(pytester, OUTSIDE)
    result = run(pytester, "--collect-only", "-q")
    ids = [line.partition("::")[2] for line in result.outlines if "::" in line]
    factories = {test.partition("[")[2].rstrip("]").partition("-")[0] for test in ids}
    assert factories == {"halve", "soften"}
    assert "TestOutside::test_pickles[soften]" in ids
    assert "TestOutside::test_takes_trees[soften-containers]" in ids
    assert "TestOutside::test_sharding_changes_nothing[soften-explicit]" in ids


def test_some_tests_of_chains_of_what_is_public_are_full(pytester: pytest.Pytester) -> None:
    """Not so where a chain has a link that is tested nowhere else, or is of what users pass."""
    chains = """
@grad_core.transformation
def softer() -> GradientTransformation:
    return grad_core.chain(soften(0.5), scale(0.5))


@grad_core.transformation
def hidden() -> GradientTransformation:
    return grad_core.chain(not_public(), scale(0.5))


@example(scale(0.5))
@grad_core.transformation
def twice(inner: GradientTransformation) -> GradientTransformation:
    return grad_core.chain(inner, inner)
"""
    public = OUTSIDE.replace('"halve",', '"halve", "hidden", "softer", "twice",')
    write(pytester, public + chains)
    result = run(pytester, "--collect-only", "-q", "-m", "full and not tpu")
    ids = [line.partition("::")[2] for line in result.outlines if "::" in line]
    assert "TestOutside::test_sharding_changes_nothing[softer-automatic]" in ids
    assert {test.partition("[")[2].rstrip("]").partition("-")[0] for test in ids} == {"softer"}
    assert not any("works_in_dtype" in test for test in ids)


def test_a_sound_package_passes(pytester: pytest.Pytester) -> None:
    write(pytester, OUTSIDE)
    result = run(
        pytester, "-q", "-k", "soften and (equal or pickles or sharding or extra or trees)"
    )
    outcomes = result.parseoutcomes()
    assert result.ret == 0
    assert outcomes["passed"] > 15
    assert "failed" not in outcomes


def test_one_fixture_is_enough(pytester: pytest.Pytester) -> None:
    tests = """
    import outside
    import pytest
    from grad_testing import TransformationSuite


    class TestSoften(TransformationSuite):
        @pytest.fixture
        def factory(self):
            return outside.soften
    """
    write(pytester, OUTSIDE, tests)
    result = run(pytester, "-q", "-k", "pickles or test_repr_is_the_call")
    result.assert_outcomes(passed=2, deselected=result.parseoutcomes()["deselected"])


def test_without_package_or_fixture_it_says_what_to_do(pytester: pytest.Pytester) -> None:
    tests = """
    from grad_testing import TransformationSuite


    class TestNothing(TransformationSuite):
        pass
    """
    write(pytester, OUTSIDE, tests)
    result = run(pytester, "-q", "-k", "test_pickles")
    result.stdout.fnmatch_lines(["*TestNothing: say `package = my_package`*"])


def test_a_factory_without_an_example_fails_once(pytester: pytest.Pytester) -> None:
    write(pytester, OUTSIDE.replace("@example(0.5)\n", ""))
    result = run(pytester, "-q", "-k", "soften and (can_be_called or pickles or works_in_dtype)")
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["skipped"]) == (1, 6)
    result.stdout.fnmatch_lines(["*Say how to call it, with @grad_core.example(...)*"])


def test_an_undecorated_factory_is_found(pytester: pytest.Pytester) -> None:
    undecorated = """
from grad_core import GradientTransformation, scale

__all__ = ["plain"]


def plain() -> GradientTransformation:
    return scale(0.5)
"""
    write(pytester, undecorated)
    result = run(pytester, "-q", "-k", "test_repr_is_the_call")
    result.stdout.fnmatch_lines(["*the repr should read plain(...), but is scale(step_size=0.5)*"])


def test_exemptions(pytester: pytest.Pytester) -> None:
    """A property that is broken may be excused; not one that holds, nor one that does not exist."""
    exempt = """
@exempt("decreases_convex_loss", reason="it ascends")
@exempt("works_in_dtype[float16]", reason="it does not care")
@exempt("pickles", reason="no reason")
@exempt("is_pure", reason="it takes an hour", run=False)
@exempt("is_lovely", reason="it is not")
@rule
def ascend() -> LeafRule:
    return LeafRule(lambda g: -g)


__all__.append("ascend")
"""
    write(pytester, OUTSIDE + exempt)
    chosen = (
        "decreases_convex or works and float16 and not bfloat16 or pickles or pure or exemptions"
    )
    result = run(pytester, "-q", "-rfxs", "-k", f"ascend and ({chosen})")
    left_out = result.parseoutcomes()["deselected"]
    result.assert_outcomes(failed=3, xfailed=1, skipped=1, deselected=left_out)
    result.stdout.fnmatch_lines_random(
        [
            "*ascend is exempt from is_lovely, which is no test here*",
            "*ascend is exempt from pickles (no reason), but the property holds; remove*",
            "XFAIL *test_decreases_convex_loss*exempt: it ascends*",
            "SKIPPED*exempt: it takes an hour",
        ]
    )


def test_a_missing_backend_is_a_reason_to_skip(pytester: pytest.Pytester) -> None:
    if has_tpu():
        pytest.skip("there is a TPU here")
    write(pytester, OUTSIDE)
    result = run(pytester, "-q", "-rs", "--backend=tpu", "-k", "test_pickles")
    result.assert_outcomes(skipped=2, deselected=result.parseoutcomes()["deselected"])
    result.stdout.fnmatch_lines(["*there is no TPU here*"])


def test_eight_devices_are_made_when_they_are_needed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import jax

        def test_devices(devices, mesh, backend, tolerance):
            assert mesh.axis_names == ("data", "model")
            assert backend != "cpu" or len(devices) == 8
            assert 0 < tolerance("float32").rtol < tolerance("float16").rtol
        """
    )
    run(pytester, "-q").assert_outcomes(passed=2)


def test_devices_are_made_before_modules_that_use_jax(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import jax
        import jax.numpy as jnp

        ZERO = jnp.zeros(())

        def test_devices(devices, backend):
            assert backend != "cpu" or len(devices) == 8
        """
    )
    if current_backend() == "cpu":
        result = run(pytester, "-q")
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*grad_virtual_devices = true*"])
    run(pytester, "-q", "-o", "grad_virtual_devices=true").assert_outcomes(passed=1)
    run(pytester, "-q", "--backend=cpu").assert_outcomes(passed=1)


def test_other_projects_are_left_alone(pytester: pytest.Pytester) -> None:
    """Installed but not used, the plugin neither imports JAX nor makes devices."""
    pytester.makepyfile(
        """
        import sys

        def test_jax_is_not_imported():
            assert "jax" not in sys.modules

        def test_one_device():
            import jax
            assert jax.device_count("cpu") == 1
        """
    )
    run(pytester, "-q", "-p", "no:randomly").assert_outcomes(passed=2)


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, grad_testing.plugin; print({'jax', 'numpy', 'chex'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
