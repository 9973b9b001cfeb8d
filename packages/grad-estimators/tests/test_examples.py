"""The examples in docs: what they find on real data, and their pictures."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"


def example(name):
    path = EXAMPLES / f"{name}.py"
    if not path.exists():
        pytest.skip("the examples belong to the workspace, and this is not one")
    for package in ("sklearn", "matplotlib", "optax"):
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(f"{name}_example", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check_picture(module, path):
    colours = module.plt.imread(path)[..., :3].reshape(-1, 3)
    assert len(set(map(tuple, (colours * 15).astype(int)))) > 10
    assert 0.01 < (colours.min(axis=-1) < 0.9).mean() < 0.5


@pytest.mark.full
def test_bayesian_logistic_regression(tmp_path, capsys):
    module = example("bayesian_logistic_regression")
    picture = tmp_path / "pictures" / "tumours.png"
    accuracy, variances = module.main(["--steps", "300", "--out", str(picture)])
    assert accuracy >= 0.95
    assert f"test accuracy: {accuracy:.4f}" in capsys.readouterr().out
    plain = variances["score function"]
    for better in ("score function, leave-one-out baseline", "score function, delta method"):
        assert np.all(variances[better] < 0.5 * plain)
        for best in ("pathwise", "measure-valued"):
            assert np.all(variances[best] < 0.5 * variances[better])
    check_picture(module, picture)


@pytest.mark.full
def test_discrete_latents(tmp_path, capsys):
    module = example("discrete_latents")
    picture = tmp_path / "pictures" / "coins.png"
    found = module.main(["--steps", "200", "--places", "4", "--out", str(picture)])
    printed = capsys.readouterr().out
    for name, (bounds, _) in found.items():
        assert f"{name}: ELBO {bounds[-1]:.2f}" in printed
        assert bounds[-1] > bounds[0] + 1
    variances = {name: variance for name, (_, variance) in found.items()}
    for better in ("leave-one-out baseline", "ARM", "DisARM", "REBAR"):
        assert np.all(variances[better] < 0.5 * variances["score function"])
    assert np.all(variances["DisARM"] < variances["ARM"])
    check_picture(module, picture)
