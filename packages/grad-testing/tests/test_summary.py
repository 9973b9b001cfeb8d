"""`--run-summary`: what ran, and what did not and why, with and without parallel workers."""

import importlib.metadata

import pytest

pytest_plugins = ["pytester"]

TESTS = """
import pytest


@pytest.mark.parametrize("number", range(5))
def test_skips(number):
    pytest.skip("it is odd" if number % 2 else "it is even")


def test_passes():
    pass


def test_fails():
    assert False


@pytest.mark.xfail(reason="it ascends")
def test_is_expected_to_fail():
    assert False


@pytest.mark.full
@pytest.mark.parametrize("number", range(3))
def test_is_full(number):
    pass


@pytest.mark.tpu
@pytest.mark.skip(reason="there is none")
def test_for_tpus():
    pass
"""


def summary(pytester: pytest.Pytester, *options: str) -> list[str]:
    """What the run says of itself, the same at its end as in the file."""
    installed = importlib.metadata.entry_points(group="pytest11", name="grad_testing")
    load = () if installed else ("-p", "grad_testing.plugin")
    pytester.makepyfile(TESTS)
    file = pytester.path / "summary.txt"
    file.write_text("before\n")
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-q", *load, "--run-summary", str(file), *options
    )
    before, *lines = file.read_text().splitlines()
    assert before == "before"
    assert "\n".join(lines) in result.stdout.str()
    return [" ".join(line.split()) for line in lines]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_groups_reasons(pytester: pytest.Pytester, workers: str) -> None:
    if workers != "0":
        pytest.importorskip("xdist")
    parallel = ("-n", workers) if workers != "0" else ()
    assert summary(pytester, "-m", "not full", *parallel) == [
        "1 passed, 1 failed, 6 skipped, 1 xfailed, 3 left out",
        "skipped 3 x it is even",
        "skipped 2 x it is odd",
        "skipped 1 x there is none",
        "xfailed 1 x it ascends",
        "left out 3 x marked full",
    ]


def test_says_what_is_left_out(pytester: pytest.Pytester) -> None:
    assert summary(pytester, "-m", "tpu and not full") == [
        "1 skipped, 11 left out",
        "skipped 1 x there is none",
        "left out 11 x not marked tpu",
    ]
    assert summary(pytester, "-k", "passes or is_full", "-m", "not full") == [
        "1 passed, 11 left out",
        "left out 8 x not chosen by -k or -m",
        "left out 3 x marked full",
    ]


def test_says_that_nothing_ran(pytester: pytest.Pytester) -> None:
    assert summary(pytester, "--ignore-glob=*") == ["no tests"]
