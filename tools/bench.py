#!/usr/bin/env python3
"""Measures ours against the released library, each in processes and an environment of its own.

Usage: ``uv run tools/bench.py [--only eager,lower,...] [--json FILE]``. The two sides take turns,
round by round, so that a busy machine disturbs both. The released library is installed, with the
jax of this environment, into an environment that is kept in the user's cache; or name the Python of
one that exists with ``--upstream-python``. For what is compiled for a TPU, libtpu must be in this
environment: ``uv run --group tpu``.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from released import RELEASED, environment_of, log, upstream_python

WORKER = Path(__file__).with_name("bench_work.py")
OURS, UPSTREAM = "ours", "released"
Samples = dict[str, list[float]]


class Bench(NamedTuple):
    """A benchmark: its works on each side, and how often its processes run."""

    ours: tuple[str, ...]
    upstream: tuple[str, ...]
    rounds: int


BENCHES = {
    "eager": Bench(("eager",), ("eager",), rounds=5),
    "lower": Bench(("lower",), ("lower",), rounds=3),
    "step": Bench(("step",), ("step",), rounds=3),
    "import": Bench(("import-optax", "import-losses"), ("import-optax",), rounds=9),
    "tpu": Bench(("tpu",), (), rounds=1),
    "optimizers": Bench(("optimizers",), ("released-optimizers",), rounds=3),
    "tpu-optimizers": Bench(("tpu-optimizers",), (), rounds=1),
    "grouping": Bench(("grouped", "large-leaves"), ("ungrouped",), rounds=3),
    "losses": Bench(
        ("losses", "linear-heads"), ("released-losses", "released-linear-heads"), rounds=2
    ),
    "large-heads": Bench(("large-heads",), ("released-large-heads",), rounds=1),
    "estimators": Bench(("estimators",), ("first-estimators",), rounds=2),
    "muon": Bench(("muon",), ("released-muon",), rounds=3),
    "second-order": Bench(("hessian-diag",), ("released-hessian-diag",), rounds=3),
}


class Row(NamedTuple):
    """One line of the table: the least and the median of all samples, on either side.

    Attributes:
      metric: What was measured, and its unit.
      ours: Minimum and median here, or None.
      released: Minimum and median there, or None.
      ratios: The released minimum and median over ours, or None.
    """

    metric: str
    ours: tuple[float, float] | None
    released: tuple[float, float] | None
    ratios: tuple[float, float] | None


def run_work(python: Path, work: str) -> Samples:
    """Runs one work in a process of its own."""
    command: list[str | Path] = [python, WORKER, work]
    done = subprocess.run(command, env=environment_of(python), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{python} {WORKER} {work} failed:\n{done.stderr}")
    samples: Samples = json.loads(done.stdout.splitlines()[-1])
    return samples


def measure(name: str, pythons: dict[str, Path], rounds: int | None) -> dict[str, Samples]:
    """All samples of a benchmark, by side."""
    bench = BENCHES[name]
    works = {OURS: bench.ours, UPSTREAM: bench.upstream}
    gathered: dict[str, Samples] = {side: defaultdict(list) for side in pythons}
    total = rounds or bench.rounds
    warm_up = int(name == "import")  # it writes the bytecode
    for i in range(-warm_up, total):
        sides = list(pythons) if i % 2 else list(pythons)[::-1]
        for side in sides:
            for work in works[side]:
                start = time.perf_counter()
                samples = run_work(pythons[side], work)
                log(f"{work}, {side}, {i + 1}/{total}: {time.perf_counter() - start:.1f} s")
                for metric, values in samples.items():
                    if i >= 0:
                        gathered[side][metric] += values
    return gathered


def summarize(gathered: dict[str, Samples]) -> Iterator[Row]:
    """A row for each metric."""
    metrics = list(dict.fromkeys(metric for samples in gathered.values() for metric in samples))
    for metric in metrics:
        sides: dict[str, tuple[float, float] | None] = dict.fromkeys((OURS, UPSTREAM))
        for side, samples in gathered.items():
            if values := samples.get(metric):
                sides[side] = (min(values), statistics.median(values))
        ours, released = sides[OURS], sides[UPSTREAM]
        if metric == "import grad_losses ms":  # what a user of the released losses has to import
            values = gathered.get(UPSTREAM, {}).get("import optax ms")
            released = (min(values), statistics.median(values)) if values else None
        ratios = None
        if ours and released and all(ours):
            ratios = (released[0] / ours[0], released[1] / ours[1])
        yield Row(metric, ours, released, ratios)


def table(rows: list[Row]) -> str:
    """The rows as text."""

    def pair(values: tuple[float, float] | None) -> str:
        return "" if values is None else "{:>10.4g} {:>10.4g}".format(*values)

    width = max(len(row.metric) for row in rows)
    names = f"{'':{width}} | {OURS:^21} | {UPSTREAM:^21} | {UPSTREAM + '/' + OURS:^21}"
    lines = [names, f"{'':{width}}" + f" | {'minimum':>10} {'median':>10}" * 3]
    for row in rows:
        columns = map(pair, (row.ours, row.released, row.ratios))
        lines.append(f"{row.metric:{width}}" + "".join(f" | {column:21}" for column in columns))
    return "\n".join(line.rstrip() for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Runs the chosen benchmarks and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(BENCHES), help="names, with commas between")
    parser.add_argument("--rounds", type=int, help="processes a side; the default depends")
    parser.add_argument("--upstream-python", type=Path, help="one that has the released library")
    parser.add_argument("--json", type=Path, help="write all samples here")
    args = parser.parse_args(argv)
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(BENCHES):
        parser.error(f"--only knows {', '.join(BENCHES)}; got {', '.join(sorted(unknown))}")
    for name in [name for name in chosen if name.startswith("tpu")]:
        if importlib.util.find_spec("libtpu") is None:
            log(f"{name}: left out, libtpu is not installed (uv run --group tpu)")
            chosen.remove(name)

    pythons = {OURS: Path(sys.executable)}
    if any(BENCHES[name].upstream for name in chosen):
        pythons[UPSTREAM] = args.upstream_python or upstream_python()
    gathered = {name: measure(name, pythons, args.rounds) for name in chosen}
    where = {
        "python": platform.python_version(),
        "jax": version("jax"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    if args.json:
        args.json.write_text(json.dumps({**where, "benchmarks": gathered}, indent=1))
    rows = [row for name in chosen for row in summarize(gathered[name])]
    print(", ".join(f"{name} {x}" for name, x in where.items()), f"released: optax {RELEASED}")
    print(table(rows) if rows else "nothing measured")
    return 0


if __name__ == "__main__":
    sys.exit(main())
