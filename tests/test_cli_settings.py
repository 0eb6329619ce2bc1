"""Settings on their way from recipes, files and flags to training and to a picture."""

import json

import numpy as np
import pytest
from PIL import Image

from keras_alexnet import cli
from keras_alexnet.cli.train import Train
from keras_alexnet.training.config import get_recipe


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty directory to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def resolved(monkeypatch):
    """Returns the configuration that a command line trains with."""

    def resolve(*arguments):
        received = []
        monkeypatch.setattr(
            Train, "run", lambda command: received.append(command.settings()) or 0
        )
        with pytest.raises(SystemExit) as stop:
            cli.main(["train", *arguments])
        assert not stop.value.code
        return received[0]

    return resolve


def write(path, **settings):
    path.write_text(json.dumps(settings))
    return str(path)


# === Order ===


def test_without_a_file_settings_are_the_recipes_and_flags(resolved):
    assert resolved() == get_recipe("digits")
    config = resolved("--recipe", "caffe", "--epochs", "7")
    assert config == get_recipe("caffe").updated({"epochs": 7})


def test_a_file_outranks_the_recipe_and_flags_outrank_the_file(resolved, here):
    file = write(here / "my.json", epochs=7, dropout=0.25, seed=3)
    changes = {"epochs": 7, "dropout": "0.25", "seed": 3}
    assert resolved("--config", file) == get_recipe("digits").updated(changes)
    config = resolved("--epochs", "9", "--config", file, "--dropout", "linear(0.5)")
    assert (config.epochs, config.dropout, config.seed) == (9, "linear(0.5)", 3)


@pytest.mark.parametrize(
    "settings, flags, recipe",
    [
        ({}, [], "digits"),
        ({"recipe": "caffe"}, [], "caffe"),
        ({"data": "folder:x"}, [], "images"),
        ({}, ["--data", "folder:x"], "images"),
        ({"recipe": "caffe"}, ["--recipe", "alexnet-2012-source"], None),
        ({"data": "folder:x"}, ["--data", "digits"], "digits"),
        ({"recipe": "auto"}, ["--data", "folder:x"], "images"),
    ],
)
def test_the_recipe_may_be_that_of_the_file_or_of_a_flag(
    resolved, here, settings, flags, recipe
):
    config = resolved("--config", write(here / "my.json", **settings), *flags)
    expected = get_recipe(recipe or "alexnet-2012-source")
    assert config.recipe == expected.recipe
    assert config.learning_rate == expected.learning_rate
    assert config.architecture == expected.architecture


def test_a_runs_configuration_reproduces_it_elsewhere(resolved, here):
    flags = ("--rate-multipliers", "conv1=0", "fc8=linear(10, end=1)")
    config = resolved(*flags, "--freeze", "conv*", "--bias-multiplier", "2")
    assert config.rate_multipliers == ("conv1=0", "fc8=linear(10, end=1)")
    assert config.freeze == ("conv*",)
    (here / "x").mkdir()
    (here / "x" / "config.json").write_text(config.to_json())
    assert resolved("--config", "x/config.json", "--run-dir", "y") == config


def test_a_resumed_run_starts_from_its_own_settings(resolved, here):
    run = get_recipe("digits").updated({"epochs": 3, "seed": 5})
    (here / "x").mkdir()
    (here / "x" / "config.json").write_text(run.to_json())
    assert resolved("--run-dir", "x", "--resume") == run
    file = write(here / "my.json", seed=6)
    resumed = resolved("--config", file, "--run-dir", "x", "--resume")
    assert resumed == run.updated({"seed": 6})


# === Pictures ===


def colors(path):
    """The colours of curves: more of them than of grey in the picture."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return int((np.ptp(pixels, axis=-1) > 60).sum())


def test_schedules_are_drawn_and_tabulated(here, command):
    schedules = ("cosine(0.02, warmup=0.05)", "dexp(0.01)", "plateau(0.01)")
    code, printed, _ = command(
        "inspect", "--schedule", *schedules, "--out", "new/s.png"
    )
    lines = printed.splitlines()[1:4]
    assert all(map(str.startswith, lines, schedules))
    rows = dict(zip(schedules, lines, strict=True))
    values = rows["dexp(0.01)"].split()[1:]
    # A level lasts up to its edge, and 0.01 / 250^(1/3) = 0.001587.
    assert values == ["0.01", "0.01", "0.001587", "0.000252", "4e-05"]
    assert "1e-05 to 0.01" in rows["plateau(0.01)"]
    assert colors(here / "new" / "s.png") > 1000


def test_the_schedules_of_a_recipe_are_drawn(here, command):
    code, printed, _ = command("inspect", "--recipe", "alexnet-2012-source")
    for title in (
        "Learning rate",
        "Dropout rate",
        "Multiplier of biases",
        "Multiplier of conv1",
        "Colour noise",
    ):
        assert title in printed
    assert colors(here / "schedules.png") > 1000


def test_the_schedules_of_a_file_are_drawn(here, command):
    file = write(here / "my.json", learning_rate="plateau(0.01)", color_noise=0)
    code, printed, _ = command("inspect", "--config", file, "--out", "s.svg")
    assert "plateau(0.01)" in printed and "Colour noise" not in printed
    drawn = (here / "s.svg").read_text()
    assert drawn.startswith("<?xml") and "epoch" in drawn
