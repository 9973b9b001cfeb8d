#!/usr/bin/env python3
"""Records what torch.optim does, for grad-optimizers' ``tests/test_torch.py`` to compare with.

Usage: ``uv run tools/torch_parity.py`` writes the recording anew; with ``--check`` torch runs too,
but its results are compared with the recording, and then ours with its results. torch lives in an
environment of its own (``torch_environment.py``); ``--torch-python`` names a Python that has it.

To add a case, add a line to ``CASES``. What the arguments mean in ours, the test tells.
"""

import argparse
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from torch_environment import torch_python

TESTS = Path(__file__).resolve().parent.parent / "packages" / "grad-optimizers" / "tests"
RECORDING = TESTS / "recorded" / "torch.npz"
DTYPES = ("float64", "float32")
SHAPES = ((), (3,), (3, 2), (2, 3, 4))
STEPS = 24
RECORDED = (1, 2, 7, STEPS)  # the steps after which parameters are kept
IMPLEMENTATION = {"foreach", "fused", "capturable", "differentiable"}  # not of the algorithm


class Case(NamedTuple):
    """A torch optimizer, its arguments, and what an ``ExponentialLR`` multiplies its rate by."""

    optimizer: str
    arguments: dict[str, Any]
    gamma: float = 1.0


CASES = {
    "sgd": Case("SGD", {"lr": 0.1}),
    "sgd-decay": Case("SGD", {"lr": 0.1, "weight_decay": 0.3}),
    "sgd-momentum": Case("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd-nesterov": Case("SGD", {"lr": 0.1, "momentum": 0.8, "nesterov": True}),
    "sgd-dampening": Case("SGD", {"lr": 0.1, "momentum": 0.8, "dampening": 0.3}),
    "sgd-scheduled": Case("SGD", {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.3}, 0.9),
    "sgd-maximize": Case(
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.3, "maximize": True},
    ),
    "adam": Case("Adam", {"lr": 0.2}),
    "adam-eps": Case("Adam", {"lr": 0.2, "betas": (0.5, 0.9), "eps": 0.1}),
    "adam-decay": Case("Adam", {"lr": 0.2, "weight_decay": 0.3}),
    "adam-scheduled": Case("Adam", {"lr": 0.2}, 0.9),
    "adam-maximize": Case("Adam", {"lr": 0.2, "weight_decay": 0.3, "maximize": True}),
    "adam-amsgrad": Case("Adam", {"lr": 0.2, "betas": (0.9, 0.8), "amsgrad": True}),
    "adam-amsgrad-eps": Case(
        "Adam",
        {"lr": 0.2, "betas": (0.9, 0.8), "eps": 0.1, "amsgrad": True, "weight_decay": 0.3},
    ),
    "adamw": Case("AdamW", {"lr": 0.2}),
    "adamw-decay": Case("AdamW", {"lr": 0.2, "betas": (0.5, 0.9), "weight_decay": 0.3}),
    "adamw-scheduled": Case("AdamW", {"lr": 0.2, "weight_decay": 0.3}, 0.9),
    "adamw-maximize": Case("AdamW", {"lr": 0.2, "weight_decay": 0.3, "maximize": True}),
    "adamw-amsgrad": Case(
        "AdamW", {"lr": 0.2, "betas": (0.9, 0.8), "weight_decay": 0.3, "amsgrad": True}
    ),
    "rmsprop": Case("RMSprop", {"lr": 0.1}),
    "rmsprop-eps": Case("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 0.1}),
    "rmsprop-decay": Case("RMSprop", {"lr": 0.1, "alpha": 0.9, "weight_decay": 0.3}),
    "rmsprop-centered": Case("RMSprop", {"lr": 0.05, "alpha": 0.9, "centered": True}),
    "rmsprop-momentum": Case("RMSprop", {"lr": 0.1, "alpha": 0.9, "eps": 0.1, "momentum": 0.8}),
    "rmsprop-scheduled": Case("RMSprop", {"lr": 0.1, "eps": 0.1, "momentum": 0.8}, 0.9),
    "rmsprop-maximize": Case(
        "RMSprop",
        {
            "lr": 0.05,
            "eps": 0.1,
            "momentum": 0.8,
            "centered": True,
            "weight_decay": 0.3,
            "maximize": True,
        },
    ),
    "adagrad": Case("Adagrad", {"lr": 0.3}),
    "adagrad-start": Case("Adagrad", {"lr": 0.3, "initial_accumulator_value": 0.5, "eps": 0.0}),
    "adagrad-eps": Case("Adagrad", {"lr": 0.3, "eps": 0.2}),
    "adagrad-lr-decay": Case("Adagrad", {"lr": 0.3, "lr_decay": 0.1}),
    "adagrad-maximize": Case("Adagrad", {"lr": 0.3, "weight_decay": 0.3, "maximize": True}),
    "adadelta": Case("Adadelta", {}),
    "adadelta-eps": Case("Adadelta", {"lr": 0.5, "rho": 0.7, "eps": 0.1}),
    "adadelta-decay": Case("Adadelta", {"rho": 0.7, "eps": 0.1, "weight_decay": 0.3}),
    "adadelta-maximize": Case("Adadelta", {"eps": 0.1, "weight_decay": 0.3, "maximize": True}),
    "adamax": Case("Adamax", {"lr": 0.2}),
    "adamax-eps": Case("Adamax", {"lr": 0.2, "betas": (0.5, 0.8), "eps": 0.1}),
    "adamax-decay": Case("Adamax", {"lr": 0.2, "weight_decay": 0.3}),
    "adamax-maximize": Case("Adamax", {"lr": 0.2, "weight_decay": 0.3, "maximize": True}),
    "nadam": Case("NAdam", {"lr": 0.2}),
    # 0.96^1e5 = 0: the momentum is b1 from the first step on.
    "nadam-constant": Case("NAdam", {"lr": 0.2, "momentum_decay": 1e5}),
    "nadam-eps": Case("NAdam", {"lr": 0.2, "betas": (0.5, 0.9), "eps": 0.1, "momentum_decay": 1.0}),
    "nadam-decay": Case("NAdam", {"lr": 0.2, "weight_decay": 0.3}),
    "nadam-decoupled": Case(
        "NAdam", {"lr": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True}
    ),
    "nadam-constant-decoupled": Case(
        "NAdam",
        {"lr": 0.2, "momentum_decay": 1e5, "weight_decay": 0.3, "decoupled_weight_decay": True},
    ),
    "nadam-maximize": Case("NAdam", {"lr": 0.2, "weight_decay": 0.3, "maximize": True}),
    "radam": Case("RAdam", {"lr": 0.2}),
    "radam-eps": Case("RAdam", {"lr": 0.2, "betas": (0.5, 0.9), "eps": 0.1}),
    "radam-decay": Case("RAdam", {"lr": 0.2, "weight_decay": 0.3}),
    "radam-decoupled": Case(
        "RAdam", {"lr": 0.2, "weight_decay": 0.3, "decoupled_weight_decay": True}
    ),
    "radam-maximize": Case("RAdam", {"lr": 0.2, "weight_decay": 0.3, "maximize": True}),
    "rprop": Case("Rprop", {"lr": 0.1}),
    "rprop-limits": Case("Rprop", {"lr": 0.1, "etas": (0.4, 1.5), "step_sizes": (0.03, 0.15)}),
    "rprop-out-of-limits": Case("Rprop", {"lr": 0.5, "step_sizes": (0.03, 0.2)}),
    "rprop-maximize": Case("Rprop", {"lr": 0.1, "maximize": True}),
    "adafactor": Case("Adafactor", {}),
    "adafactor-relative": Case("Adafactor", {"lr": 0.3}),
    "adafactor-decay-rate": Case("Adafactor", {"lr": 0.1, "beta2_decay": -0.5, "d": 2.0}),
    "adafactor-decay": Case("Adafactor", {"lr": 0.1, "weight_decay": 0.3}),
    "adafactor-eps": Case("Adafactor", {"lr": 0.1, "eps": (1e-20, 0.5)}),
    "adafactor-maximize": Case("Adafactor", {"lr": 0.1, "weight_decay": 0.3, "maximize": True}),
}


def problem() -> tuple[list[Any], list[list[Any]]]:
    """The first parameters, and the gradients of each step, of a leaf for each of the shapes.

    Multiples of a power of two, so that they are the same in float32; each leaf's gradients are
    four times smaller than those of the one before, so that an eps meets large ones and small.
    """
    rng = random.Random(0)

    def leaf(shape: tuple[int, ...], unit: float) -> Any:
        numbers = [round(128 * rng.random() - 64) * unit for _ in range(np.prod(shape, dtype=int))]
        return np.reshape(numbers, shape)

    params = [leaf(shape, 1 / 64) for shape in SHAPES]
    return params, [
        [leaf(shape, 4.0**-i / 16) for i, shape in enumerate(SHAPES)] for _ in range(STEPS)
    ]


def flat(leaves: list[Any]) -> Any:
    """All numbers of some leaves."""
    return np.concatenate([np.ravel(leaf) for leaf in leaves])


def run_torch(case: Case, dtype: str) -> tuple[dict[str, Any], Any]:
    """A case's arguments, with torch's defaults among them, and the parameters at some steps."""
    torch: Any = importlib.import_module("torch")
    torch.set_default_dtype(getattr(torch, dtype))  # of the scalars that its states hold too
    first, gradients = problem()
    params = [torch.nn.Parameter(torch.tensor(leaf.astype(dtype))) for leaf in first]
    optimizer = getattr(torch.optim, case.optimizer)(params, **case.arguments)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, case.gamma)
    arguments = {k: x for k, x in optimizer.defaults.items() if k not in IMPLEMENTATION}
    kept = []
    for t, leaves in enumerate(gradients, start=1):
        for param, leaf in zip(params, leaves, strict=True):
            param.grad = torch.tensor(leaf.astype(dtype))
        optimizer.step()
        scheduler.step()
        if t in RECORDED:
            kept.append(flat([param.detach().numpy() for param in params]))
    return arguments, np.stack(kept)


def record(path: Path) -> None:
    """Runs every case and writes all that the test needs to know."""
    first, gradients = problem()
    cases: dict[str, Any] = {}
    arrays: dict[str, list[Any]] = {dtype: [] for dtype in DTYPES}
    for name, case in CASES.items():
        for dtype in DTYPES:
            arguments, kept = run_torch(case, dtype)
            arrays[dtype].append(kept)
        cases[name] = {"optimizer": case.optimizer, "gamma": case.gamma, "arguments": arguments}
    version = importlib.import_module("torch").__version__.partition("+")[0]
    about = {"torch": version, "shapes": SHAPES, "steps": RECORDED, "cases": cases}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        about=np.array(json.dumps(about)),
        params=flat(first),
        gradients=np.stack([flat(leaves) for leaves in gradients]),
        float64=np.stack(arrays["float64"]),
        float32=np.stack(arrays["float32"]),
    )


def differences(path: Path) -> list[str]:
    """Where the recording differs from another one, by more than another machine may."""
    old, new = np.load(RECORDING), np.load(path)
    found = [] if old["about"] == new["about"] else ["the cases differ: write the recording anew"]
    for name, tolerance in {"params": 0, "gradients": 0, "float64": 1e-13, "float32": 1e-6}.items():
        if not found and not np.allclose(old[name], new[name], rtol=tolerance, atol=tolerance):
            found.append(f"{name}: {np.abs(old[name] - new[name]).max():.1e} apart")
    return found


def check(python: Path) -> int:
    """Compares what torch does now with the recording, and ours with what torch does now."""
    with tempfile.TemporaryDirectory() as folder:
        live = Path(folder) / RECORDING.name
        subprocess.run([python, __file__, "--with-torch", live], check=True)
        found = differences(live)
        print("\n".join(found) or "torch does what was recorded")
        tests = [sys.executable, "-m", "pytest", "-q", str(TESTS / "test_torch.py")]
        ours = subprocess.run(tests, env=os.environ | {"TORCH_RECORDING": str(live)})
    return int(bool(found) or ours.returncode != 0)


def main() -> int:
    """Writes the recording, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--torch-python", type=Path, help="one that has torch and numpy")
    parser.add_argument("--with-torch", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.with_torch:
        record(args.with_torch)
        return 0
    python = args.torch_python or torch_python()
    if args.check:
        return check(python)
    subprocess.run([python, __file__, "--with-torch", RECORDING], check=True)
    print(f"{len(CASES)} cases, {RECORDING.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
