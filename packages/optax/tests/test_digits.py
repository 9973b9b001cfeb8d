"""The main job: the example that trains on handwritten digits reaches its accuracy."""

import pytest


@pytest.fixture
def digits(example):
    return example("digits")


def test_it_reaches_its_accuracy(digits, tmp_path, capsys, check_picture):
    picture = tmp_path / "pictures" / "digits.png"

    accuracy = digits.main(["--no-progress", "--out", str(picture)])

    assert accuracy >= 0.97
    printed = capsys.readouterr().out
    assert f"test accuracy: {accuracy:.4f}" in printed
    assert str(picture) in printed
    check_picture(picture)


def test_it_shows_progress(digits, tmp_path, capsys):
    digits.main(["--steps", "60", "--out", str(tmp_path / "digits.png")])
    captured = capsys.readouterr()
    assert "training" in captured.out + captured.err


@pytest.mark.parametrize("steps", ["0", "-5", "49", "many"])
def test_bad_steps_are_refused(digits, tmp_path, capsys, steps):
    picture = tmp_path / "digits.png"
    with pytest.raises(SystemExit) as stopped:
        digits.main(["--steps", steps, "--no-progress", "--out", str(picture)])
    assert stopped.value.code == 2
    assert "--steps" in capsys.readouterr().err
    assert not picture.exists()
