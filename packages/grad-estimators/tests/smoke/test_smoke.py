"""grad_estimators, installed alone, can be imported; only it and pytest may be imported here."""

import subprocess
import sys

import grad_estimators


def test_exports_exactly_what_it_says() -> None:
    assert all(hasattr(grad_estimators, name) for name in grad_estimators.__all__)


def test_importing_it_does_not_import_distrax() -> None:
    code = "import sys, grad_estimators; sys.exit('distrax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
