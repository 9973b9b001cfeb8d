"""Runs cases in a process of its own: ``python -m parity.worker OUT < REQUEST``.

The request is a JSON object: the dtype, the ids of cases by family, and names by family whose
parameters are wanted. To OUT goes a pickle of an `Answer`. Progress goes to stderr.
"""

import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any, TypedDict

from parity.cases import Values
from parity.coverage import parameters
from parity.families import load
from parity.running import run_case

SECONDS = 10  # between two lines of progress


class Request(TypedDict):
    """What a worker is to do.

    Attributes:
      side: How progress calls it.
      dtype: The dtype to run in.
      cases: The ids of the cases to run, by family.
      names: Names to look up, by family.
    """

    side: str
    dtype: str
    cases: dict[str, list[str]]
    names: dict[str, list[str]]


class Answer(TypedDict):
    """What a worker found.

    Attributes:
      results: By family and case, the arrays, or what went wrong.
      parameters: By family and name, the parameters.
    """

    results: dict[str, dict[str, Values | str]]
    parameters: dict[str, dict[str, list[str]]]


def work(request: Request) -> Answer:
    """Runs what is asked for."""
    total = sum(map(len, request["cases"].values()))
    shown, done = time.monotonic(), 0
    results: dict[str, dict[str, Values | str]] = {}
    for name, ids in request["cases"].items():
        family = load(name)
        cases = {case.id: case for case in family.cases}
        results[name] = {}
        for each in ids:
            try:
                results[name][each] = run_case(family, cases[each], request["dtype"])
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                results[name][each] = text.splitlines()[0]
            done += 1
            if time.monotonic() - shown > SECONDS or done == total:
                shown = time.monotonic()
                print(f"{request['side']}, {request['dtype']}: {done}/{total}", file=sys.stderr)
    found = {name: parameters(names) for name, names in request["names"].items()}
    return {"results": results, "parameters": found}


def main(argv: list[str]) -> int:
    """Reads the request and writes the answer."""
    request: Any = json.load(sys.stdin)
    Path(argv[0]).write_bytes(pickle.dumps(work(request)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
