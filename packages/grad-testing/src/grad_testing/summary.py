"""A summary of a run: what ran, and what did not and why, in groups with their counts.

The plugin registers it where ``--run-summary`` asks for it. Of skipped tests, pytest itself says a
line each; of tests that it leaves out, only how many; and under pytest-xdist not even that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

__all__ = ["Summary"]

_OUTCOMES = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_LEFT_OUT = "grad_testing_left_out"  # where workers put their counts


class Summary:
    """Counts what is left out, and tells everything at the end.

    Args:
      config: The configuration of pytest.
      file: Where the summary is appended, besides being printed.
    """

    def __init__(self, config: pytest.Config, file: str) -> None:
        self._config = config
        self._file = file
        self._is_worker = hasattr(config, "workeroutput")
        self._left_out: Counter[str] = Counter()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Counts what ``-m`` and ``-k`` leave out, by reason."""
        wanted = [part for part in self._config.option.markexpr.split(" and ") if part]
        self._left_out.update(_why_left_out(item, wanted) for item in items)

    def pytest_sessionfinish(self) -> None:
        """Gives the counts of a worker to its controller."""
        if self._is_worker:
            self._config.workeroutput[_LEFT_OUT] = dict(self._left_out)  # type: ignore[attr-defined]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Takes the counts of a worker; each collects everything, so all have the same."""
        counts: dict[str, int] = getattr(node, "workeroutput", {}).get(_LEFT_OUT, {})
        self._left_out |= Counter(counts)

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Prints the summary, and appends it to the file."""
        if self._is_worker:
            return
        lines = [*_lines(terminalreporter.stats, self._left_out)]
        terminalreporter.section("summary")
        for line in lines:
            terminalreporter.line(line)
        with open(self._file, "a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


def _why_left_out(item: pytest.Item, wanted: Sequence[str]) -> str:
    """The first part of ``-m "this and not that"`` that a test does not meet."""
    for part in wanted:
        mark = part.removeprefix("not ")
        is_marked = item.get_closest_marker(mark) is not None
        if is_marked == part.startswith("not "):
            return f"marked {mark}" if is_marked else f"not marked {mark}"
    return "not chosen by -k or -m"


def _lines(stats: dict[str, list[Any]], left_out: Counter[str]) -> Iterator[str]:
    counts = {outcome: len(stats.get(outcome, ())) for outcome in _OUTCOMES}
    counts["left out"] = left_out.total()
    yield ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no tests"
    for outcome in ("skipped", "xfailed"):
        yield from _grouped(outcome, Counter(map(_reason, stats.get(outcome, ()))))
    yield from _grouped("left out", left_out)


def _grouped(name: str, reasons: Counter[str]) -> Iterator[str]:
    for reason, count in reasons.most_common():
        yield f"  {name} {count:5d} x {reason}"


def _reason(report: Any) -> str:
    """Why a test was skipped or expected to fail."""
    reason: str = getattr(report, "wasxfail", "")
    if not reason and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
    first_line, _, _ = reason.partition("\n")
    return first_line.removeprefix("Skipped: ").removeprefix("reason: ") or "no reason is given"
