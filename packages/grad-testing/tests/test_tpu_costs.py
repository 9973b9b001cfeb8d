"""What programs need on TPUs is on record, and what costs more or less than that is caught."""

from pathlib import Path

import jax
import pytest

from grad_testing.tpu_costs import (
    Costs,
    Ledger,
    Program,
    compilers,
    read_recording,
    read_table,
    write_table,
)
from grad_testing.tpu_targets import Target, abstract

ADAM = Program("grad_optimizers.adam", "update", "v5e:2x2", "sharded")
COSTS = Costs(37_755_392, 37_748_736, 0, 260_105_728)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "costs.txt"
    write_table(path, compilers(), {ADAM: COSTS, ADAM._replace(part="init"): Costs(1, 2, 3, 4)})
    return path


def test_tables_are_read_as_they_were_written(table: Path) -> None:
    versions, rows = read_table(table)
    assert versions == compilers()
    assert rows == {ADAM: COSTS, ADAM._replace(part="init"): Costs(1, 2, 3, 4)}
    assert "  260,105,728\n" in table.read_text()
    assert len({len(line) for line in table.read_text().splitlines()[2:]}) == 1
    assert read_table(table.parent / "nowhere.txt")[1] == {}


def test_small_changes_pass(table: Path) -> None:
    ledger = Ledger(table)
    assert str(ledger) == "compared with costs.txt"
    ledger.enter(ADAM, COSTS)
    ledger.enter(ADAM, COSTS._replace(temporary=4096, accessed=262_000_000))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arguments", 150_000_000, ", arguments: 150,000,000 bytes, more than the 37,755,392"),
        ("temporary", 8192, ", temporary: 8,192 bytes, more than the 0 in costs.txt"),
        ("accessed", 250_000_000, ", accessed: 250,000,000 bytes, less than the 260,105,728"),
    ],
)
def test_other_costs_are_caught(table: Path, field: str, value: int, message: str) -> None:
    with pytest.raises(AssertionError, match=message) as caught:
        Ledger(table).enter(ADAM, COSTS._replace(**{field: value}))
    assert "uv run tools/tpu_costs.py -- -k adam" in str(caught.value)


def test_what_is_not_on_record_is_a_warning(table: Path) -> None:
    with pytest.warns(UserWarning, match=r"grad_optimizers.lion .* is not in costs.txt"):
        Ledger(table).enter(ADAM._replace(name="grad_optimizers.lion"), COSTS)


def test_other_compilers_are_not_compared_with(tmp_path: Path) -> None:
    write_table(tmp_path / "old.txt", "jax 0.1.0, libtpu 0.0.1", {ADAM: COSTS})
    ledger = Ledger(tmp_path / "old.txt")
    ledger.enter(ADAM, Costs(1, 1, 1, 1))
    assert "not compared: old.txt is of jax 0.1.0, libtpu 0.0.1, here is jax" in str(ledger)


def test_recordings_take_the_last_of_each(table: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recording"
    for costs in (Costs(1, 1, 1, 1), COSTS):
        Ledger(table, recording).enter(ADAM, costs)
    assert read_recording(recording) == (compilers(), {ADAM: COSTS})


@pytest.mark.tpu
def test_a_program_that_costs_more_than_on_record_is_caught(tpu: Target, tmp_path: Path) -> None:
    def twice(x: jax.Array) -> jax.Array:
        return jax.lax.optimization_barrier(x + x) + x

    x = tpu.placed({"x": abstract((1024, 1024), "float32")}, {"x": ("data", "model")})["x"]
    recording, table = tmp_path / "recording", tmp_path / "costs.txt"
    _, costs = tpu.compile(lambda x: x + x, x)
    tpu._replace(ledger=Ledger(None, recording)).enter("a.sum", "value", costs)
    write_table(table, *read_recording(recording))
    compared = tpu._replace(ledger=Ledger(table))
    compared.enter("a.sum", "value", costs)
    _, costs = tpu.compile(twice, x)
    with pytest.raises(AssertionError, match=r"a\.sum value .*, more than the"):
        compared.enter("a.sum", "value", costs)
    compared.enter(None, "value", costs)
