"""Results of the released library, kept for tests that run without it.

Of every family there is one file, ``<family>.npz``: the names of its recorded cases, and for each
dtype their numbers in one row. ``released.json`` says where they come from, and which parameters
the released functions have.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parity.cases import Values
from parity.coverage import Parameters

FOLDER = Path(__file__).resolve().parents[2] / "packages" / "optax" / "tests" / "parity"
ORIGINS = FOLDER / "released.json"
Results = Mapping[str, Values]
"""The arrays of cases, by id."""


class Recording:
    """A family's recording."""

    def __init__(self, family: str, folder: Path = FOLDER) -> None:
        self.path = folder / f"{family}.npz"

    def write(self, results: Mapping[str, Results]) -> None:
        """Writes the released library's results, by dtype."""
        ids = list(next(iter(results.values())))
        content: dict[str, Any] = {"ids": np.array(ids)}
        for dtype, by_id in results.items():
            rows = [_flat(by_id[each], dtype) for each in ids]
            content[f"{dtype} sizes"] = np.array([row.size for row in rows], np.int32)
            content[dtype] = np.concatenate(rows)
        self.path.parent.mkdir(exist_ok=True)
        np.savez_compressed(self.path, **content)

    def read(self) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        """By dtype and case, the numbers in one row."""
        with np.load(self.path) as content:
            ids = content["ids"].tolist()
            return {
                dtype: dict(
                    zip(
                        ids,
                        np.split(content[dtype], np.cumsum(content[f"{dtype} sizes"])[:-1]),
                        strict=True,
                    )
                )
                for dtype in content.files
                if f"{dtype} sizes" in content.files
            }


def _flat(values: Values, dtype: str) -> np.ndarray[Any, Any]:
    return np.concatenate([np.ravel(values[name]).astype(dtype) for name in sorted(values)])


def like(row: np.ndarray[Any, Any], values: Values) -> Values:
    """The numbers of a row in arrays of the names and shapes of `values`."""
    names = sorted(values)
    sizes = [np.size(values[name]) for name in names]
    if sum(sizes) != row.size:
        raise ValueError(f"{row.size} numbers are recorded, and {sum(sizes)} are compared")
    parts = np.split(row, np.cumsum(sizes)[:-1])
    return {
        name: part.reshape(np.shape(values[name])) for name, part in zip(names, parts, strict=True)
    }


def write_origin(family: str, origin: Mapping[str, str], parameters: Parameters) -> None:
    """Writes where a family's recording comes from, and the released functions' parameters."""
    content = _origins() if ORIGINS.exists() else {}
    found = {name: " ".join(each) for name, each in sorted(parameters.items())}
    content[family] = {**origin, "parameters": found}
    text = json.dumps(dict(sorted(content.items())), indent=1)
    ORIGINS.write_text(text + "\n", encoding="utf-8")


def released_parameters(family: str) -> Parameters:
    """The parameters of the released functions that a family should cover, as recorded."""
    found: dict[str, str] = _origins()[family]["parameters"]
    return {name: each.split() for name, each in found.items()}


def _origins() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(ORIGINS.read_text(encoding="utf-8"))
    return content
