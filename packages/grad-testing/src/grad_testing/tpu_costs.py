"""What compiled programs need on a TPU, and the table in which that is on record.

The compiler tells it, no TPU is needed, and for one version of it the figures never vary. So they
show what a change costs, or saves, in memory and in bytes that are moved.
"""

import functools
import importlib.metadata
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Costs", "Ledger", "Program", "costs_of", "read_recording", "read_table", "write_table"]

COMPILERS = ("jax", "libtpu")
SLACK = 0.01
SLACK_BYTES = 4096
"""Figures are as on record if they differ by less than both together."""


class Program(NamedTuple):
    """What names a program in the table: no part of it has a blank.

    Attributes:
      name: Of a public function, or of a training step.
      part: Which program of it, such as ``"update"``.
      topology: The TPUs that it is compiled for, such as ``"v5e:2x2"``.
      layout: ``"single"`` for one of them, ``"sharded"`` for all.
    """

    name: str
    part: str
    topology: str
    layout: str


class Costs(NamedTuple):
    """What a program needs on each device, in bytes.

    Attributes:
      arguments: The memory of its arguments.
      outputs: The memory of its outputs; those that take the place of arguments, too.
      temporary: The memory of what it keeps while it runs.
      accessed: What it reads and writes. A loop's body counts once.
    """

    arguments: int
    outputs: int
    temporary: int
    accessed: int


def costs_of(compiled: Any) -> Costs:
    """The costs of what ``jax.jit(...).lower(...).compile()`` returned."""
    memory = compiled.memory_analysis()
    return Costs(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        int(compiled.cost_analysis().get("bytes accessed", 0)),
    )


@functools.cache
def compilers() -> str:
    """The versions that the figures depend on."""

    def version(name: str) -> str:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            return f"no {name}"

    return ", ".join(map(version, COMPILERS))


class Ledger:
    """Compares costs with a table, or writes them down for a new one.

    Args:
      table: The file of the table; None compares with nothing.
      recording: The file to append costs to, instead of comparing them.
    """

    def __init__(self, table: Path | None, recording: Path | None = None) -> None:
        self._table, self._recording = table, recording
        self._compilers, self._rows = read_table(table) if table else ("", {})

    def __str__(self) -> str:
        if self._recording is not None:
            return f"recorded in {self._recording}"
        if self._table is None:
            return "compared with nothing"
        if self._compilers != compilers():
            return (
                f"not compared: {self._table.name} is of {self._compilers}, here is {compilers()}"
            )
        return f"compared with {self._table.name}"

    def enter(self, program: Program, costs: Costs) -> None:
        """Compares, or writes down, what a program costs.

        A program that is not on record is no failure, so that whoever adds a function need not know
        of the table; it is a warning.

        Raises:
          AssertionError: If it costs more than on record, or less.
        """
        if self._recording is not None:
            line = json.dumps([compilers(), program, costs])
            with self._recording.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        elif self._table is not None and self._compilers == compilers():
            if program in self._rows:
                self._compare(program, costs, self._rows[program])
            else:
                warnings.warn(
                    f"{' '.join(program)} is not in {self._table.name}; "
                    f"uv run tools/tpu_costs.py -- -k {_function(program)} records it",
                    stacklevel=2,
                )

    def _compare(self, program: Program, costs: Costs, recorded: Costs) -> None:
        assert self._table is not None
        for what, now, before in zip(Costs._fields, costs, recorded, strict=True):
            if abs(now - before) > SLACK_BYTES + SLACK * before:
                change = "more" if now > before else "less"
                raise AssertionError(
                    f"{' '.join(program)}, {what}: {now:,} bytes, {change} than the "
                    f"{before:,} in {self._table.name}. If it is meant, record it: "
                    f"uv run tools/tpu_costs.py -- -k {_function(program)}"
                )


def _function(program: Program) -> str:
    return program.name.rpartition(".")[2]


_HEADER = """\
# What programs need on each TPU, in bytes; of {compilers}.
# Written by tools/tpu_costs.py, compared by `ci/run tpu`. A loop's body is counted once.
"""


def write_table(path: Path, compilers: str, rows: Mapping[Program, Costs]) -> None:
    """Writes a table, sorted, in columns."""
    titles = (*Program._fields, *Costs._fields)
    lines = [titles, *((*program, *map("{:,}".format, rows[program])) for program in sorted(rows))]
    text = _HEADER.format(compilers=compilers) + "".join(f"{line}\n" for line in _aligned(lines))
    path.write_text(text, encoding="utf-8")


def _aligned(lines: list[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        words = [
            word.ljust(width) if i < len(Program._fields) else word.rjust(width)
            for i, (word, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(words)


def read_table(path: Path) -> tuple[str, dict[Program, Costs]]:
    """The versions of the compilers, and the costs of programs, of a table."""
    if not path.exists():
        return "no version", {}
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in lines:
        words = line.replace(",", "").split()
        if line.startswith("#") or words[-1] == Costs._fields[-1]:
            continue
        split = len(Program._fields)
        found[Program(*words[:split])] = Costs(*map(int, words[split:]))
    return first.rpartition("; of ")[2].removesuffix("."), found


def read_recording(path: Path) -> tuple[str, dict[Program, Costs]]:
    """The same, of a file that a `Ledger` wrote."""
    versions, found = "no version", {}
    for line in path.read_text(encoding="utf-8").splitlines():
        versions, program, costs = json.loads(line)
        found[Program(*program)] = Costs(*costs)
    return versions, found
