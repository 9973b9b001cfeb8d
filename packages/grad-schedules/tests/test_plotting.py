"""Curves of schedules."""

import sys
from typing import Any

import numpy as np
import pytest

import grad_schedules as gs

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib comes with grad-schedules[plot]")
matplotlib.use("agg")

WSD = gs.warmup_stable_decay_schedule(0.0, 1.0, 10, 100, 20)
JOINED = gs.join_schedules(
    [gs.linear_schedule(0.0, 1.0, 10), gs.cosine_decay_schedule(1.0, 50)], [30]
)


def drawn(ax: Any) -> tuple[list[Any], list[float]]:
    """The curves, and the steps that are marked."""
    lines = ax.get_lines()
    curves = [line for line in lines if not line.get_label().startswith("_")]
    return curves, [float(line.get_xdata()[0]) for line in lines if line not in curves]


def test_curves_labels_and_boundaries() -> None:
    ax = gs.plot(WSD, JOINED, steps=120)
    curves, marks = drawn(ax)
    assert [line.get_label() for line in curves] == [repr(WSD), repr(JOINED)]
    assert marks == [10, 80, 100, 10, 30, 80]
    for line, schedule in zip(curves, (WSD, JOINED), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(121))
        np.testing.assert_allclose(line.get_ydata(), schedule(np.arange(121)))
    assert len(ax.get_legend().get_texts()) == 2


def test_boundaries_of_nested_schedules_are_where_they_are() -> None:
    nested = gs.scaled(gs.shifted(JOINED, 5), gs.linear_schedule(1.0, 0.0, 60))
    assert sorted(drawn(gs.plot(nested, steps=200))[1]) == [5, 15, 35, 60, 85]
    cycle = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10}
    restarts = gs.sgdr_schedule([cycle, cycle])
    assert drawn(gs.plot(restarts, steps=50))[1] == [2, 10, 12, 20]
    assert drawn(gs.plot(gs.piecewise_constant_schedule(1.0, {9: 0.5}), steps=20))[1] == [9]
    assert drawn(gs.plot(WSD, steps=50))[1] == [10]
    assert drawn(gs.plot(WSD, steps=120, boundaries=False))[1] == []


def test_long_schedules_show_both_sides_of_each_jump() -> None:
    schedule = gs.piecewise_constant_schedule(1.0, {1_234_567: 0.5})
    curve = drawn(gs.plot(schedule, steps=10**7))[0][0]
    x, y = curve.get_xdata(), curve.get_ydata()
    assert len(x) < 3000
    assert [y[x == step].item() for step in (1_234_566, 1_234_567)] == [1.0, 0.5]


def test_users_schedules_labels_and_axes() -> None:
    def branching(count: int) -> float:
        return 0.1 if count < 5 else 0.2

    ax = gs.plot(WSD, steps=10)
    assert gs.plot(branching, gs.scaled(branching, 2.0), steps=10, ax=ax, labels=["a", "b"]) is ax
    curves, _ = drawn(ax)
    assert [line.get_label() for line in curves] == [repr(WSD), "a", "b"]
    np.testing.assert_allclose(curves[1].get_ydata(), [0.1] * 5 + [0.2] * 6)
    np.testing.assert_allclose(curves[2].get_ydata(), [0.2] * 5 + [0.4] * 6, rtol=1e-6)
    assert drawn(gs.plot(branching, steps=3))[0][0].get_label() == "branching"


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"plot: .* `pip install 'grad-schedules\[plot\]'`"):
        gs.plot(WSD, steps=10)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="plot: give at least one schedule"):
        gs.plot(steps=10)
    with pytest.raises(ValueError, match="plot: steps, the last step, must be >= 1; got 0"):
        gs.plot(WSD, steps=0)
    with pytest.raises(TypeError, match=r"plot: schedules\[1\] must be a schedule; got 0.1"):
        gs.plot(WSD, 0.1, steps=10)
    with pytest.raises(ValueError, match=r"plot: labels must be as many as the schedules, 1; got"):
        gs.plot(WSD, steps=10, labels=["a", "b"])


@pytest.fixture(autouse=True)
def _close() -> Any:
    yield
    matplotlib.pyplot.close("all")
