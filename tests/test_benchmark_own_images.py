"""`keras-alexnet benchmark own_images`: what it runs, reads and reports."""

import json
import subprocess

import pytest

from keras_alexnet import benchmarks
from keras_alexnet.benchmarks import own_images
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import ask
from keras_alexnet.errors import UserError


@pytest.fixture
def programs(monkeypatch):
    """Lets programs print, in turn; what they were is in the list."""
    asked = []
    printed = iter(
        ["accuracy: 0.1\nTest images: (accuracy 82.50%).", "accuracy 0.75"] * 9
    )

    def run(command, **_):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, next(printed), "")

    monkeypatch.setattr(own_images.subprocess, "run", run)
    return asked


def test_both_programs_train_in_turn_on_the_same_folder(programs, tmp_path, capsys):
    ask("own_images", Options(out=tmp_path, data="digits:20", minutes=1.5, seeds=2))
    ours, plain, *again = programs
    folder = ours[ours.index("--data") + 1].removeprefix("folder:")
    assert plain[1].endswith("plain_keras.py") and plain[2] == folder
    for command, seed in zip(programs, "0011", strict=True):
        assert command[-2:] == ["--seed", seed]
        assert command[command.index("--minutes") + 1] == "1.5"
    assert [command[:-1] for command in again] == [ours[:-1], plain[:-1]]
    results = json.loads((tmp_path / "own_images.json").read_text())["results"]
    assert [row["accuracy"] for row in results["keras_alexnet"]] == [0.825] * 2
    assert [row["accuracy"] for row in results["plain Keras"]] == [0.75] * 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("seed 0 | keras_alexnet | 82.50 % | ")
    assert lines[-3].startswith("all | plain Keras | 75.00 ± 0.00 % | ")
    assert "against plain Keras | +7.50 ± 0.00 points | " in lines[-2]


def test_digits_are_written_as_a_folder_with_so_many_training_images(tmp_path):
    own_images.write_digits(tmp_path, 20)
    assert len(list(tmp_path.glob("train/?/*.png"))) == 20
    assert len(list(tmp_path.glob("test/?/*.png"))) == 360


def test_outside_a_checkout_only_ours_trains(programs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmarks, "find_peers", lambda: None)
    ask("own_images", Options(out=tmp_path, quick=True))
    assert len(programs) == 1 and "all | keras_alexnet | 82.50 % | " in (
        capsys.readouterr().out
    )


def test_a_folder_without_both_splits_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no train/ and test/ with a folder"):
        ask("own_images", Options(out=tmp_path, data=str(tmp_path)))


def test_a_program_that_fails_is_shown(tmp_path):
    with pytest.raises(RuntimeError, match="(?s)python.*failed:.*no such thing"):
        own_images.measure(["python", "-c", "raise SystemExit('no such thing')"])
