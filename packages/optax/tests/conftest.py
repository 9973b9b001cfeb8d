"""What several tests of this folder use."""

import functools
import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


@pytest.fixture(scope="session")
def example():
    """The function from the name of an example in the documentation to its module."""

    @functools.cache
    def load(name):
        path = EXAMPLES / f"{name}.py"
        if not path.exists():
            pytest.skip("the examples belong to the workspace, and this is not one")
        pytest.importorskip("sklearn")
        pytest.importorskip("matplotlib")
        spec = importlib.util.spec_from_file_location(f"{name}_example", path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
