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


@pytest.fixture(scope="session")
def check_picture():
    """The function that requires a file to be a picture of curves, and no blank page."""

    def check(path):
        import matplotlib.pyplot as plt

        assert path.read_bytes().startswith(b"\x89PNG\r\n")
        image = plt.imread(path)
        height, width, _ = image.shape
        assert height >= 400
        assert width >= 600
        # Curves, axes and labels: several colours, some ink.
        colours = image[..., :3].reshape(-1, 3)
        assert len(set(map(tuple, (colours * 15).astype(int)))) > 10
        assert 0.01 < (colours.min(axis=-1) < 0.9).mean() < 0.5

    return check
