"""The typed samples run, too; ci/lint holds them to the strictest rules of two type checkers."""

import runpy
from pathlib import Path

import pytest

SAMPLES = sorted(Path(__file__).with_name("typing").glob("*.py"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_run(path):
    runpy.run_path(str(path))
