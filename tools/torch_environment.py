"""torch, in an environment of its own in the user's cache.

It is large, and on Linux pip brings CUDA with it unless its configuration names CPU builds.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

TORCH = "2.13.0"


def torch_python() -> Path:
    """The Python of an environment with torch and this environment's NumPy."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = ".".join(map(str, sys.version_info[:3]))
    home = cache / "optax-parity" / f"torch-{TORCH}-python-{version}"
    found = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = home / "installed"  # an installation that broke off has none
    if not done.exists():
        print(f"installing torch {TORCH} into {home}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        packages = [f"torch=={TORCH}", f"numpy=={np.__version__}"]
        subprocess.run([found, "-m", "pip", "install", *packages], check=True)
        done.touch()
    return found
