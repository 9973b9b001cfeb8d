#!/usr/bin/env python3
"""Records what optimizers of torch and of libraries for it do, for the tests of grad-contrib.

Usage: ``uv run tools/torch_contrib.py`` writes the recording anew; with ``--check`` it compares.
torch lives in an environment of its own (``torch_environment.py``), and the libraries, whose
versions stand here, in a folder beside it; ``--torch-python`` names a Python that has all of them.

To add a case, add a line to ``CASES``. What the arguments mean in ours, the test tells.
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
from unittest import mock

import numpy as np

from torch_environment import torch_python

TESTS = Path(__file__).resolve().parent.parent / "packages" / "grad-contrib" / "tests"
RECORDING = TESTS / "recorded" / "torch-rules.npz"
LIBRARIES = (
    "prodigyopt==1.1.2",
    "dadaptation==3.2",
    "momo-opt==0.1.0",
    "pytorch-optimizer==4.1.0",
    "schedulefree==1.4.1",
)
STEPS = 24
START = ((0.5, -1.0, 2.0), ((1.5, 0.25), (-0.75, -2.0)))
TARGET = ((2.5, 1.0, -1.0), ((-1.5, 4.25), (1.25, 0.5)))

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "prodigy": ("prodigyopt.Prodigy", {"d0": 0.01}),
    "prodigy-options": (
        "prodigyopt.Prodigy",
        {"lr": 0.7, "betas": (0.5, 0.9), "beta3": 0.8, "eps": 0.1, "d0": 0.02, "d_coef": 2.0},
    ),
    "prodigy-decay": (
        "prodigyopt.Prodigy",
        {"d0": 0.01, "weight_decay": 0.1, "safeguard_warmup": True},
    ),
    "dadapt_adamw": ("dadaptation.DAdaptAdam", {"d0": 0.01}),
    "dadapt_adamw-options": (
        "dadaptation.DAdaptAdam",
        {"lr": 0.7, "betas": (0.5, 0.9), "eps": 0.1, "d0": 0.02, "weight_decay": 0.1},
    ),
    "momo": ("momo.Momo", {}),
    "momo-decay": ("momo.Momo", {"lr": 0.5, "beta": 0.5, "lb": 1.0, "weight_decay": 0.1}),
    "momo-bound": ("momo.Momo", {"lr": 5.0, "weight_decay": 0.1, "use_fstar": True}),
    "momo_adam": ("momo.MomoAdam", {}),
    "momo_adam-decay": (
        "momo.MomoAdam",
        {"lr": 0.5, "betas": (0.5, 0.9), "eps": 0.1, "lb": 1.0, "weight_decay": 0.1},
    ),
    "momo_adam-bound": ("momo.MomoAdam", {"lr": 5.0, "weight_decay": 0.1, "use_fstar": True}),
    "ademamix": ("pytorch_optimizer.AdEMAMix", {"lr": 0.1}),
    "ademamix-options": (
        "pytorch_optimizer.AdEMAMix",
        {
            "lr": 0.05,
            "betas": (0.5, 0.9, 0.95),
            "alpha": 2.0,
            "eps": 0.1,
            "weight_decay": 0.1,
            "weight_decouple": True,
        },
    ),
    "adopt": ("pytorch_optimizer.ADOPT", {"lr": 0.1}),
    "adopt-options": ("pytorch_optimizer.ADOPT", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 0.5}),
    "madgrad": ("pytorch_optimizer.MADGRAD", {"lr": 0.1}),
    "madgrad-options": (
        "pytorch_optimizer.MADGRAD",
        {"lr": 0.05, "momentum": 0.5, "eps": 0.01, "weight_decay": 0.1},
    ),
}
# Of these the parameters to evaluate are recorded too, after those that are trained.
SCHEDULE_FREE: dict[str, tuple[str, dict[str, Any]]] = {
    "schedule_free_adamw": ("schedulefree.AdamWScheduleFree", {"lr": 0.1}),
    "schedule_free_adamw-options": (
        "schedulefree.AdamWScheduleFree",
        {
            "lr": 0.1,
            "betas": (0.8, 0.9),
            "eps": 0.1,
            "weight_decay": 0.1,
            "warmup_steps": 5,
            "weight_lr_power": 1.0,
        },
    ),
    "schedule_free_sgd": ("schedulefree.SGDScheduleFree", {"lr": 0.3}),
    "schedule_free_sgd-options": (
        "schedulefree.SGDScheduleFree",
        {"lr": 0.3, "momentum": 0.7, "weight_decay": 0.1, "warmup_steps": 4},
    ),
}
# torch's own Muon forms products in bfloat16. Recorded are that, and the same code in float64.
MUON: dict[str, dict[str, Any]] = {
    "muon": {"lr": 0.1},
    "muon-options": {
        "lr": 0.05,
        "momentum": 0.8,
        "nesterov": False,
        "weight_decay": 0.3,
        "ns_coefficients": (2.0, -1.5, 0.5),
        "ns_steps": 7,
    },
    "muon-no-decay": {"lr": 0.2, "weight_decay": 0.0, "momentum": 0.5},
    "muon-match": {"lr": 0.2, "adjust_lr_fn": "match_rms_adamw"},
}
IN_BFLOAT16 = "-bfloat16"
MUON_STEPS = 8
SHAPES = ((3, 5), (5, 3), (4, 4), (2, 8))
# What makes them the algorithms of ours, whose arguments they are not.
ALWAYS: dict[str, dict[str, Any]] = {
    "prodigyopt.Prodigy": {"use_bias_correction": True},
    "dadaptation.DAdaptAdam": {"use_bias_correction": True, "decouple": True},
}


def run_torch(
    optimizer: str,
    arguments: dict[str, Any],
    start: Any = START,
    target: Any = TARGET,
    steps: int = STEPS,
) -> Any:
    """The parameters after each step, on a quadratic whose curvature rises and falls."""
    torch: Any = importlib.import_module("torch")
    torch.set_default_dtype(torch.float64)
    module, _, name = optimizer.rpartition(".")
    params = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in start]
    targets = [torch.tensor(leaf) for leaf in target]
    made = getattr(importlib.import_module(module), name)
    tx = made(params, **arguments, **ALWAYS.get(optimizer, {}))
    is_free = module == "schedulefree"
    kept = []
    for t in range(1, steps + 1):
        if is_free:
            tx.train()
        tx.zero_grad()
        curvature = 1 + 0.5 * np.sin(t)
        terms = [torch.sum((p - x) ** 2) for p, x in zip(params, targets, strict=True)]
        loss = 3 + curvature / 2 * sum(terms)
        loss.backward()
        tx.step(**({"loss": loss.detach()} if module == "momo" else {}))
        kept.append(flat(params))
        if is_free:
            tx.eval()
            kept[-1] = np.concatenate([kept[-1], flat(params)])
    return np.stack(kept)


def run_muon() -> tuple[dict[str, Any], dict[str, Any]]:
    """What Muon does, by case, and what the test needs to know."""
    tensor: Any = importlib.import_module("torch").Tensor
    rng = np.random.default_rng(0)
    start, target = (
        [rng.normal(size=shape).round(2).tolist() for shape in SHAPES] for _ in range(2)
    )
    results: dict[str, Any] = {}
    for name, arguments in MUON.items():
        case = ("torch.optim.Muon", arguments, start, target, MUON_STEPS)
        results[name + IN_BFLOAT16] = run_torch(*case)
        with mock.patch.object(tensor, "bfloat16", tensor.clone):
            results[name] = run_torch(*case)
    return results, {"muon": MUON, "muon_start": start, "muon_target": target}


def flat(params: Any) -> Any:
    """All numbers of torch's parameters."""
    return np.concatenate([np.ravel(p.detach().numpy()) for p in params])


def record(path: Path) -> None:
    """Runs every case and writes all that the test needs to know."""
    muon, about_muon = run_muon()
    results = muon | {name: run_torch(*case) for name, case in (CASES | SCHEDULE_FREE).items()}
    cases = {name: arguments for name, (_, arguments) in CASES.items()}
    free = {name: arguments for name, (_, arguments) in SCHEDULE_FREE.items()}
    about: dict[str, Any] = {"libraries": LIBRARIES, "start": START, "target": TARGET}
    about |= {"cases": cases, "schedule_free": free, **about_muon}
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, allow_pickle=False, about=np.array(json.dumps(about)), **results)


def is_close(name: str, old: Any, new: Any) -> bool:
    """Whether results are the same; processors round to bfloat16 at different places."""
    return np.allclose(old, new, rtol=1e-12, atol=0.1 if name.endswith(IN_BFLOAT16) else 1e-8)


def libraries(python: Path) -> Path:
    """A folder with the libraries, installed beside a Python that has torch."""
    folder = python.parent.parent / "+".join(LIBRARIES)
    done = folder / "installed"  # an installation that broke off has none
    if not done.exists():
        into = ["--no-deps", "--target", str(folder)]
        subprocess.run([python, "-m", "pip", "install", *into, *LIBRARIES], check=True)
        done.touch()
    return folder


def main() -> int:
    """Writes the recording, or checks it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("--torch-python", type=Path, help="one that has torch and the libraries")
    parser.add_argument("--with-torch", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.with_torch:
        record(args.with_torch)
        return 0
    python = args.torch_python or torch_python()
    path = [] if args.torch_python else [str(libraries(python))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / RECORDING.name if args.check else RECORDING
        subprocess.run([python, __file__, "--with-torch", made], check=True, env=environment)
        if not args.check:
            count = len(CASES | SCHEDULE_FREE | MUON)
            print(f"{count} cases, {RECORDING.stat().st_size / 1000:.0f} kB")
            return 0
        old, new = np.load(RECORDING), np.load(made)
        apart = [
            name
            for name in sorted({*old.files} & {*new.files} - {"about"})
            if not is_close(name, old[name], new[name])
        ]
        print("\n".join(apart) or "torch does what was recorded")
        return int(bool(apart) or str(old["about"]) != str(new["about"]))


if __name__ == "__main__":
    sys.exit(main())
