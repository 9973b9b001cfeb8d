"""The example that trains a transformer learns, on one device as on many."""

from pathlib import Path

import jax
import numpy as np
import pytest


@pytest.fixture
def transformer(example):
    return example("transformer")


@pytest.fixture
def text(tmp_path):
    """Forty thousand characters: numbers, and their remainders by 7."""
    path = tmp_path / "numbers.txt"
    path.write_text("\n".join(f"{i} leaves {i % 7} of 7" for i in range(2000)))
    return path


def test_it_learns_more_than_pairs_of_characters(
    transformer, text, tmp_path, capsys, check_picture
):
    picture = tmp_path / "pictures" / "transformer.png"
    arguments = ["--text", str(text), "--steps", "25", "--no-progress", "--out", str(picture)]

    reached, by_pairs = transformer.main(arguments)

    assert reached < 0.75 * by_pairs
    printed = capsys.readouterr().out
    assert f"{reached:.3f} bits per character" in printed
    assert "leaves" in printed  # it has learnt to write, too
    assert str(picture) in printed
    check_picture(picture)


def test_no_place_sees_what_follows(transformer):
    params = transformer.init_params(jax.random.key(0), layers=2, width=16, heads=2)
    text = np.arange(24).reshape(2, 12)
    changed = text.copy()
    changed[:, 8:] += 100
    predict = jax.jit(transformer.predict)
    before, after = predict(params, text), predict(params, changed)
    np.testing.assert_array_equal(before[:, :8], after[:, :8])
    assert np.all(np.any(before[:, 8:] != after[:, 8:], axis=-1))


@pytest.mark.full
@pytest.mark.parametrize("kind", [(), ("--explicit",)], ids=["automatic", "explicit"])
def test_devices_change_nothing(transformer, text, tmp_path, devices, kind, capsys):
    count = max(n for n in (2, 4, 8) if n <= len(devices))
    arguments = ["--text", str(text), "--steps", "10", "--out", str(tmp_path / "picture.png")]
    alone = transformer.main(arguments)
    together = transformer.main([*arguments, "--devices", str(count), *kind])
    assert together == pytest.approx(alone, rel=1e-4)
    assert "training" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--steps", "9"], "--steps must be at least 10; got 9"),
        (["--devices", "3"], "--devices must be a power of two, 64 at most; got 3"),
        (["--devices", "64"], "--devices 64 are more than the"),
        (["--text", "none.txt"], "--text cannot be read"),
        (["--text", "short.txt"], "--text must have at least 1920 characters; got 5"),
    ],
    ids=["steps", "devices", "too_many_devices", "no_text", "short_text"],
)
def test_bad_arguments_are_refused(
    transformer, tmp_path, monkeypatch, backend, capsys, arguments, complaint
):
    assert backend  # JAX runs, with its devices
    monkeypatch.chdir(tmp_path)
    Path("short.txt").write_text("short")
    picture = Path("picture.png")
    with pytest.raises(SystemExit) as stopped:
        transformer.main([*arguments, "--no-progress", "--out", str(picture)])
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err
    assert not picture.exists()
