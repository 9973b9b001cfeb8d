"""The released library, in an environment of its own, as two named optax cannot share one."""

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

RELEASED = "0.2.8"


def log(text: str) -> None:
    """Says what happens, beside the results."""
    print(text, file=sys.stderr, flush=True)


def upstream_python() -> Path:
    """The Python of an environment with the released library and this environment's jax."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax, python = version("jax"), platform.python_version()
    home = cache / "optax-bench" / f"optax-{RELEASED}-jax-{jax}-python-{python}"
    found = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = home / "installed"  # an installation that broke off has none
    if not done.exists():
        uv = os.environ.get("UV") or shutil.which("uv")
        command = [uv] if uv else [sys.executable, "-m", "uv"]
        log(f"installing optax {RELEASED} with jax {jax} into {home}")
        subprocess.run([*command, "venv", "--clear", "--python", sys.executable, home], check=True)
        packages = [f"optax=={RELEASED}", f"jax=={jax}", f"jaxlib=={version('jaxlib')}"]
        subprocess.run([*command, "pip", "install", "--python", found, *packages], check=True)
        done.touch()
    return found


def environment_of(python: Path) -> dict[str, str]:
    """Variables for a process of this Python: on the CPU, with the packages of its side only."""
    env = {name: x for name, x in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    env |= {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    if python == Path(sys.executable):
        env["PYTHONPATH"] = os.pathsep.join(sys.path[1:])  # ours may be on it
    return env
