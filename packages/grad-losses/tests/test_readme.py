"""The README lists every public name; packages/optax runs its examples."""

import re
from pathlib import Path

import grad_losses

README = Path(__file__).resolve().parents[1] / "README.md"


def test_every_public_name_is_in_the_table() -> None:
    table = [line for line in README.read_text(encoding="utf-8").splitlines() if line[:1] == "|"]
    assert set(re.findall(r"`(\w+)`", "\n".join(table))) - {"jit", "vmap"} == set(
        grad_losses.__all__
    )
