#!/usr/bin/env python3
"""Records what every program of the tests needs on TPUs, in ``ci/tpu-costs.txt``.

The tests that compile for TPUs compare with that table; run this where a change is meant, and let
the reviewer read what it says and the table's lines that changed.

    uv run tools/tpu_costs.py                       # everything anew: about half an hour
    uv run tools/tpu_costs.py grad-contrib          # the lines of one package
    uv run tools/tpu_costs.py -- -k adam            # of some functions
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from grad_testing.tpu_costs import Costs, Program, read_recording, read_table, write_table

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "ci" / "tpu-costs.txt"


def measured(packages: list[str], options: list[str]) -> tuple[str, dict[Program, Costs]]:
    """Runs the tests; returns the versions of the compilers, and costs."""
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "costs"
        recording.touch()
        command = ["ci/run", "tpu", "--full", *packages, "--", *options]
        done = subprocess.run([*command, f"--record-tpu-costs={recording}"], cwd=ROOT, check=False)
        if done.returncode:
            print("some tests failed: what they did not compile is not recorded", file=sys.stderr)
        return read_recording(recording)


def change(before: Costs | None, after: Costs | None) -> str:
    """What there is to say of a line that changed."""
    if before is None or after is None:
        return "new" if before is None else "gone"
    return ", ".join(
        f"{what} {old:,} -> {new:,} ({new / old - 1:+.1%})" if old else f"{what} 0 -> {new:,}"
        for what, old, new in zip(Costs._fields, before, after, strict=True)
        if old != new
    )


def main(arguments: list[str]) -> int:
    """Measures, writes the table, and prints every line that changed."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return 0
    split = arguments.index("--") if "--" in arguments else len(arguments)
    packages, options = arguments[:split], arguments[split + 1 :]
    old_versions, old = read_table(TABLE)
    versions, new = measured(packages, options)
    if not new:
        print("nothing was compiled; is libtpu installed?", file=sys.stderr)
        return 1
    if packages or options:
        if old and versions != old_versions:
            print(f"the table is of {old_versions}; record everything", file=sys.stderr)
            return 1
        new = {**old, **new}
    write_table(TABLE, versions, new)
    changed = [p for p in sorted({*old, *new}) if old.get(p) != new.get(p)]
    for program in changed:
        print(f"{' '.join(program)}: {change(old.get(program), new.get(program))}")
    print(f"{TABLE.relative_to(ROOT)}: {len(new)} programs, {len(changed)} lines changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
