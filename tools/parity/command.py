"""Compares our numbers with the released library's, each in an environment of its own.

Every case runs on both sides; the table gives max|ours - released| / max|released|, the largest
over all its arrays. A case is ok within its family's bound for the dtype; beyond it,
docs/differences.md must tell of it, or our float32 result be the one that is within the bound of
the float64 result. Functions without cases and arguments that no case uses fail too.
"""

import argparse
import fnmatch
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from parity import families
from parity.cases import DTYPES, EXACT, Case, Family
from parity.comparing import ROUNDING, Difference, Verdict, judge, missing_rows, rows
from parity.coverage import gaps
from parity.recording import Recording, write_origin
from parity.worker import Answer, Request
from released import RELEASED, environment_of, log, upstream_python

TOOLS = Path(__file__).resolve().parents[1]
OURS, UPSTREAM = "ours", "released"
Run = tuple[str, str]
"""A side and a dtype."""


class Row(NamedTuple):
    """One line of the table."""

    family: str
    case: str
    dtype: str
    verdict: Verdict


class Chosen(NamedTuple):
    """What is to be compared: cases and names by family."""

    families: dict[str, Family]
    cases: dict[str, list[Case]]
    names: dict[str, list[str]]


def choose(patterns: list[str]) -> Chosen:
    """The cases and names that match: of a family or a function, with * and ?; all without any."""

    def wanted(*names: str) -> bool:
        return not patterns or any(fnmatch.filter(names, pattern) for pattern in patterns)

    chosen = Chosen({}, {}, {})
    for name in families.names():
        family = families.load(name)
        cases = [each for each in family.cases if wanted(name, each.call.name)]
        names = [each for each in family.names() if wanted(name, each)]
        if cases or names:
            chosen.families[name], chosen.cases[name], chosen.names[name] = family, cases, names
    return chosen


def run_worker(python: Path, run: Run, chosen: Chosen) -> Answer:
    """Runs all chosen cases on one side in one dtype."""
    side, dtype = run
    ids = {name: [each.id for each in cases] for name, cases in chosen.cases.items()}
    request = Request(side=side, dtype=dtype, cases=ids, names=chosen.names)
    env = environment_of(python) | {"JAX_ENABLE_X64": str(int(dtype == "float64"))}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "answer"
        command = [str(python), "-W", "ignore", "-m", "parity.worker", str(out)]
        subprocess.run(
            command, env=env, cwd=TOOLS, input=json.dumps(request), text=True, check=True
        )
        answer: Answer = pickle.loads(out.read_bytes())
    return answer


def compare(chosen: Chosen, answers: dict[Run, Answer], dtypes: list[str]) -> Iterator[Row]:
    """A row for each case and dtype."""
    for name, family in chosen.families.items():
        for case in chosen.cases[name]:
            for dtype in dtypes:
                runs = [(OURS, dtype), (UPSTREAM, dtype), (UPSTREAM, EXACT)]
                found = [answers[run]["results"][name][case.id] for run in runs]
                broken = [
                    f"{' '.join(run)}: {each}"
                    for run, each in zip(runs, found, strict=True)
                    if isinstance(each, str)
                ]
                if broken:
                    verdict = Verdict(False, "FAIL", broken[0], Difference(float("nan"), ""))
                else:
                    verdict = judge(case, dtype, family.bounds, *found)  # type: ignore[arg-type]
                yield Row(name, case.id, dtype, verdict)


def problems(chosen: Chosen, answers: dict[Run, Answer]) -> Iterator[str]:
    """What no case covers, and rows of docs/differences.md that are not there."""
    ours, upstream = (
        next(answer for run, answer in answers.items() if run[0] == side)["parameters"]
        for side in (OURS, UPSTREAM)
    )
    for name, family in chosen.families.items():
        yield from (f"{name}: {gap}" for gap in gaps(family, ours[name], upstream[name]))
    yield from missing_rows((each for cases in chosen.cases.values() for each in cases), rows())


def table(found: list[Row]) -> str:
    """The rows as text."""
    lines = []
    for row in found:
        size, where = row.verdict.difference
        lines.append((row.case, row.dtype, f"{size:.1e}", where, row.verdict.text))
    lines.insert(0, ("case", "dtype", "largest", "where", "verdict"))
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    return "\n".join(
        "  ".join([*(cell.ljust(n) for cell, n in zip(line, widths, strict=False)), line[4]])
        for line in lines
    )


def summary(found: list[Row]) -> str:
    """One line on all rows, and one for each dtype on the largest difference that is ok."""
    kinds = Counter(row.verdict.kind for row in found)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    lines = [f"{len({(row.family, row.case) for row in found})} cases: {counted}"]
    for dtype in dict.fromkeys(row.dtype for row in found):
        fine = [row for row in found if row.dtype == dtype and row.verdict.kind == "ok"]
        if fine:
            worst = max(fine, key=lambda row: row.verdict.difference.size)
            lines.append(
                f"  largest ok in {dtype}: {worst.verdict.difference.size:.1e} {worst.case}"
            )
    if kinds["rounding"]:
        lines.append(f"  rounding: docs/differences.md, {ROUNDING!r}")
    return "\n".join(lines)


def record(chosen: Chosen, answers: dict[Run, Answer]) -> None:
    """Writes the released library's results of each family's recorded cases."""
    origin = {
        "optax": RELEASED,
        "jax": version("jax"),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    for name, family in chosen.families.items():
        results = {
            dtype: {
                each.id: answers[UPSTREAM, dtype]["results"][name][each.id]
                for each in family.recorded()
            }
            for dtype in DTYPES
        }
        for each in results[EXACT].values():
            if isinstance(each, str):
                raise SystemExit(f"nothing to record: {each}")
        Recording(name).write(results)  # type: ignore[arg-type]
        write_origin(name, origin, answers[UPSTREAM, EXACT]["parameters"][name])
        log(f"recorded {len(results[EXACT])} cases in {Recording(name).path}")


def main(argv: list[str] | None = None) -> int:
    """Runs the chosen cases and prints a table; the exit status is 1 when anything fails."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="functions or families, with commas between")
    parser.add_argument("--dtype", choices=DTYPES, help="both, if it is not given")
    parser.add_argument("--upstream-python", type=Path, help="one that has the released library")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes")
    parser.add_argument(
        "--record", action="store_true", help="keep the released results for tests without it"
    )
    args = parser.parse_args(argv)
    patterns = [each for each in args.only.split(",") if each]
    if args.record and (args.dtype or not set(patterns) <= set(families.names())):
        parser.error("--record takes whole families in both dtypes")
    for each in patterns:
        if not choose([each]).families:
            parser.error(f"--only: nothing is called {each!r}")
    chosen = choose(patterns)

    dtypes = [args.dtype] if args.dtype else list(DTYPES)
    runs = [(side, dtype) for dtype in dtypes for side in (OURS, UPSTREAM)]
    if (UPSTREAM, EXACT) not in runs:
        runs.append((UPSTREAM, EXACT))
    pythons = {OURS: Path(sys.executable), UPSTREAM: args.upstream_python or upstream_python()}
    with ThreadPoolExecutor(args.jobs) as pool:
        found = pool.map(lambda run: run_worker(pythons[run[0]], run, chosen), runs)
        answers = dict(zip(runs, found, strict=True))

    compared = list(compare(chosen, answers, dtypes))
    print(table(compared))
    wrong = list(problems(chosen, answers))
    for text in wrong:
        print(f"FAIL: {text}")
    print(summary(compared) + (f"\n  {len(wrong)} gaps" if wrong else ""))
    failed = bool(wrong) or not all(row.verdict.passed for row in compared)
    if args.record:
        record(chosen, answers)
    return int(failed)
