"""The ablation grid: what is run, what is not and why, and what is said about it."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

import keras_alexnet
from keras_alexnet.errors import UserError
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Diverged, Interrupted
from keras_alexnet.tuning import ablation
from keras_alexnet.tuning.ablation import ABLATIONS, ablate, table_of
from keras_alexnet.tuning.trial_process import (
    Outcome,
    check,
    failure,
    train_in_process,
)

DIGITS = keras_alexnet.get_recipe("digits")
PAPER = keras_alexnet.get_recipe("alexnet-2012", "folder:photos")
SOURCE = keras_alexnet.get_recipe("alexnet-2012-source", "folder:photos")


def changes(config, channels=3):
    """What each ablation changes, or the reason why it does not apply."""
    return {one.key: one.change(config, channels) for one in ABLATIONS}


class FakeTraining:
    """Returns errors that tell the runs apart, and remembers the configurations."""

    def __init__(self, failing=()):
        self.configs = {}
        self.failing = dict(failing)

    def __call__(self, config, run_dir):
        key = run_dir.name
        self.configs[key] = config
        if isinstance(self.failing.get(key), Interrupted):
            raise self.failing[key]
        if key in self.failing:
            return failure(self.failing[key])
        error = 0.02 + 0.001 * config.seed
        error += 0.01 * (config.norm == "none") * (1 + config.seed)
        return Outcome({"top1_error": error, "top5_error": error / 2, "loss": error})


@pytest.fixture(autouse=True)
def checked_here(monkeypatch):
    """Looks at the data in this process, which is sooner than in another."""
    monkeypatch.setattr(ablation, "check_in_process", check)


def test_the_recipe_of_the_paper_loses_one_thing_at_a_time():
    assert changes(PAPER) == {
        "no-lrn": {"norm": "none"},
        "no-overlap": {"pool": "non_overlapping_max_pooling"},
        "one-tower": {"groups": 1},
        "half-net": "it is half of alexnet_2012_source",
        "no-dropout": {"dropout": "0"},
        "no-color-noise": {"color_noise": "0"},
        "no-augmentation": {
            "horizontal_flip": False,
            "color_noise": "0",
            "resize_size": 227,
            "crop_padding": 0,
        },
        "no-crop": {"resize_size": 227, "crop_padding": 0},
    }


def test_the_paper_compares_two_towers_with_the_half_net_of_its_program():
    assert changes(SOURCE)["half-net"] == {"architecture": "alexnet_2012_half"}


@pytest.mark.parametrize("recipe", ["alexnet-2012", "alexnet-2012-source", "caffe"])
def test_every_change_makes_a_valid_configuration(recipe):
    config = keras_alexnet.get_recipe(recipe)
    for change in changes(config).values():
        if isinstance(change, dict):
            assert dataclasses.replace(config, **change) != config


def test_what_makes_no_sense_is_said_not_run():
    digits = changes(DIGITS, channels=1)
    assert digits["no-color-noise"] == "the images are grey"
    assert "color_noise" not in digits["no-augmentation"]
    assert digits["no-crop"] == {"resize_size": 28, "crop_padding": 0}

    owt = changes(dataclasses.replace(PAPER, architecture="alexnet_owt"))
    assert owt["no-lrn"] == "alexnet_owt does not normalise"
    assert owt["one-tower"] == "the network has one tower"

    bare = TrainConfig(
        recipe="caffe",
        **{"norm": "none", "pool": "max_pooling2d", "groups": 1, "dropout": "0"},
        **{"color_noise": "0", "horizontal_flip": False, "resize_size": 227},
    )
    reasons = changes(bare)
    assert all(isinstance(reason, str) for reason in reasons.values()), reasons
    assert reasons["no-augmentation"] == "images are not augmented"
    assert reasons["no-lrn"] == "norm is none, not the network's own"


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three seeds of the digits: what was trained, what came of it, and where it is."""
    training, directory = FakeTraining(), tmp_path_factory.mktemp("grid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "check_in_process", check)
        return training, ablate(DIGITS, directory, (0, 1, 2), training), directory


def row(result, key):
    return next(one for one in result.rows if one.ablation.key == key)


def printed(result, width=160):
    console = Console(width=width, file=io.StringIO())
    console.print(table_of(result))
    return console.file.getvalue()


def test_all_rows_have_the_same_seeds_and_their_own_directories(grid):
    training, result, _ = grid
    run = [row for row in result.rows if not row.not_applicable]
    assert [list(row.runs.metrics) for row in run] == [[0, 1, 2]] * len(run)
    # Seed by seed, so that what an interrupted grid has is comparable.
    seeds = [config.seed for config in training.configs.values()]
    assert seeds == sorted(seeds) and len(seeds) == 3 * len(run)
    assert training.configs["no-lrn-1"].norm == "none"
    assert training.configs["base-0"].norm == "default"


def test_differences_are_those_of_equal_seeds(grid):
    _, result, directory = grid
    paired = result.paired(row(result, "no-lrn"), "top1_error")
    np.testing.assert_allclose(paired.differences, (0.01, 0.02, 0.03))
    assert paired.is_clear
    assert not result.paired(row(result, "no-dropout"), "top1_error").is_clear
    rows = list(csv.DictReader((directory / "ablation.csv").open()))
    by_key = {row["key"]: row for row in rows}
    assert float(by_key["no-lrn"]["top1_error_difference"]) == pytest.approx(0.02)
    assert by_key["no-lrn"]["paper_top1"] == "+1.4"
    assert by_key["half-net"]["not_applicable"] and not by_key["half-net"]["top1_error"]


def test_the_table_stands_beside_the_papers_numbers(grid):
    text = printed(grid[1])
    (line,) = (line for line in text.splitlines() if "no normalisation" in line)
    for part in ("+2.00 ± 1.00 *", "+1.4", "+1.2", "section 3.3"):
        assert part in line
    assert "not applicable: the images are grey" in text
    assert "over +1" in text and "digits" in text


def test_one_seed_has_no_spread(tmp_path):
    text = printed(ablate(DIGITS, tmp_path, (0,), FakeTraining()))
    (line,) = (line for line in text.splitlines() if "no normalisation" in line)
    assert "+1.00" in line and "±" not in line and "*" not in line


def test_a_failure_is_recorded_and_the_grid_goes_on(tmp_path):
    failing = {"no-lrn-0": Diverged("not finite\nfor long"), "base-1": MemoryError()}
    result = ablate(DIGITS, tmp_path, (0, 1), FakeTraining(failing.items()))
    failed = row(result, "no-lrn")
    assert failed.runs.failures == {0: "not finite for long"}
    assert list(failed.runs.metrics) == [1]
    # At seed 1 there is no base to compare with, at seed 0 nothing to compare.
    assert result.paired(failed, "loss").mean is None
    text = printed(result, 220)
    assert "seed 0 failed: not finite for long" in text and "Out of memory" in text


def test_an_interruption_leaves_what_there_is(tmp_path):
    failing = {"no-overlap-0": Interrupted(2)}
    with pytest.raises(Interrupted):
        ablate(DIGITS, tmp_path, (0, 1), FakeTraining(failing.items()))
    rows = list(csv.DictReader((tmp_path / "ablation.csv").open()))
    assert [row["key"] for row in rows if row["top1_error"]] == ["base", "no-lrn"]


@pytest.mark.parametrize(
    "config, seeds, message",
    [
        (DIGITS, (), "needs seeds"),
        (DIGITS, (1, 1), "each of them once"),
        (dataclasses.replace(DIGITS, data="folder:nowhere"), (0,), "No such folder"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(
    tmp_path, config, seeds, message
):
    training = FakeTraining()
    with pytest.raises(ValueError, match=message):
        ablate(config, tmp_path, seeds, training)
    assert not training.configs and not list(tmp_path.iterdir())


def test_a_mistake_in_the_base_is_one_line_not_a_grid_of_failures(tmp_path):
    training = FakeTraining({"base-0": UserError("Unknown layer 'lrm'.")}.items())
    with pytest.raises(ValueError, match="Unknown layer"):
        ablate(DIGITS, tmp_path, (0, 1), training)
    assert list(training.configs) == ["base-0"]


def test_the_directory_of_a_run_is_not_touched(tmp_path):
    (tmp_path / "config.json").write_text(DIGITS.to_json())
    with pytest.raises(ValueError, match="holds a run of its own"):
        ablate(DIGITS, tmp_path, (0,), FakeTraining())


@pytest.mark.slow
def test_all_rows_train_and_a_second_call_trains_none(tmp_path):
    tiny = dataclasses.replace(DIGITS, epochs=1, global_batch_size=256)
    first = ablate(tiny, tmp_path, (0,), train_in_process)
    assert not any(row.runs.failures for row in first.rows)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("result.json")}
    again = ablate(tiny, tmp_path, (0,), train_in_process)
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())
    assert [row.runs for row in again.rows] == [row.runs for row in first.rows]
