#!/usr/bin/env python3
"""Records losses of torch.nn.functional, for grad-losses' ``tests/test_torch.py`` to compare with.

Usage: ``uv run tools/torch_losses.py`` writes the recordings anew, ``--only ctc`` those of one
family; with ``--check`` torch runs too, but its results are compared with the recordings, and then
ours with its results. torch lives in an environment of its own (``torch_environment.py``);
``--torch-python`` names a Python that has it.

To add cases, write a module in ``torch_cases/``, which says how, record it, and add the functions
that it calls to the test: there, each calls ours with torch's arguments.

A recording holds inputs, values and the gradients of ``sum(values * weights(values))``, in float64.
The inputs are multiples of 1/128, which cost little. One array of each kind keeps files small.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from torch_cases import Array, Case, families
from torch_environment import torch_python

TESTS = Path(__file__).resolve().parent.parent / "packages" / "grad-losses" / "tests"
RECORDED = TESTS / "recorded"


def weights(size: int) -> Array:
    """What values are weighted with before they are summed: otherwise errors could cancel."""
    return 1 + np.arange(size) / size


def run_torch(case: Case) -> list[Array]:
    """The value, and its gradients with respect to what the case names."""
    torch: Any = importlib.import_module("torch")
    inputs = {name: torch.tensor(array) for name, array in case.inputs.items()}
    for name in case.differentiated:
        inputs[name].requires_grad_()
    function = case.function
    if isinstance(function, str):
        function = getattr(torch.nn.functional, function)
    value = function(*inputs.values(), **{"reduction": "none", **case.arguments})
    (value.ravel() * torch.tensor(weights(value.numel()))).sum().backward()
    found = [value.detach(), *(inputs[name].grad for name in case.differentiated)]
    return [each.numpy() for each in found]


def record(cases: dict[str, Case], path: Path) -> None:
    """Runs the cases of a family, and writes all that the test needs to know."""
    about, inputs, results = [], [np.zeros(0)], [np.zeros(0)]
    for name, case in cases.items():
        found = run_torch(case)
        about.append(
            {
                "name": name,
                "function": case.name,
                "inputs": [[key, str(x.dtype), x.shape] for key, x in case.inputs.items()],
                "arguments": dict(case.arguments),
                "wrt": case.differentiated,
                "shape": found[0].shape,
            }
        )
        inputs += [np.ravel(x).astype(float) for x in case.inputs.values()]
        results += [np.ravel(x) for x in found]
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        about=np.array(json.dumps(about)),
        inputs=np.concatenate(inputs),
        results=np.concatenate(results),
    )


def differences(path: Path) -> list[str]:
    """Where a recording differs from one made just now, by more than another machine may."""
    if not (RECORDED / path.name).exists():
        return [f"{path.name}: not recorded yet"]
    old, new = np.load(RECORDED / path.name), np.load(path)
    if old["about"] != new["about"] or not np.array_equal(old["inputs"], new["inputs"]):
        return [f"{path.name}: the cases differ, record them anew"]
    if not np.allclose(old["results"], new["results"], rtol=1e-12, atol=1e-12, equal_nan=True):
        return [f"{path.name}: {np.abs(old['results'] - new['results']).max():.1e} apart"]
    return []


def check(python: Path, options: list[str]) -> int:
    """Compares what torch does now with the recordings, and ours with what torch does now."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, __file__, "--with-torch", folder, *options], check=True)
        found = [line for path in Path(folder).iterdir() for line in differences(path)]
        print("\n".join(found) or "torch does what was recorded")
        tests = [sys.executable, "-m", "pytest", "-q", str(TESTS / "test_torch.py")]
        ours = subprocess.run(tests, env=os.environ | {"TORCH_RECORDINGS": folder})
    return int(bool(found) or ours.returncode != 0)


def main() -> int:
    """Writes the recordings, or checks them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--only", metavar="FAMILY", choices=families(), help="one family")
    parser.add_argument("--torch-python", type=Path, help="one that has torch and numpy")
    parser.add_argument("--with-torch", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    chosen = {args.only: families()[args.only]} if args.only else families()
    if args.with_torch:
        for name, cases in chosen.items():
            record(cases, args.with_torch / f"torch-{name}.npz")
        return 0
    python = args.torch_python or torch_python()
    options = ["--only", args.only] if args.only else []
    if args.check:
        return check(python, options)
    subprocess.run([python, __file__, "--with-torch", RECORDED, *options], check=True)
    for name, cases in chosen.items():
        size = (RECORDED / f"torch-{name}.npz").stat().st_size
        print(f"{name}: {len(cases)} cases, {size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
