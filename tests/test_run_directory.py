"""Run directories: claimed once, continued only as what they are."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from socket import gethostname

import pytest

from keras_alexnet.errors import UserError
from keras_alexnet.files import write_table
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import (
    LENGTH,
    MAY_CHANGE_ON_RESUME,
    RunDirectory,
)


def claim(path, *, resume=False, overwrite=False, **settings):
    run, config = RunDirectory(path), TrainConfig(**{"recipe": "caffe", **settings})
    run.check(config, resume=resume, overwrite=overwrite)
    with run.claimed(config, resume=resume, overwrite=overwrite):
        return run


def contents(path):
    return {
        str(file.relative_to(path)): file.read_bytes() if file.is_file() else None
        for file in path.rglob("*")
    }


# === Claiming ===


def test_a_new_directory_is_made_with_its_configuration(tmp_path):
    run = claim(tmp_path / "runs" / "deep" / "1", epochs=3)
    assert run.path == tmp_path / "runs" / "deep" / "1"
    assert run.config() == TrainConfig(recipe="caffe", epochs=3)


def test_an_empty_directory_may_be_used(tmp_path):
    assert claim(tmp_path).config() == TrainConfig(recipe="caffe")


def test_another_run_is_not_overwritten(tmp_path):
    claim(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match="already holds a run: .*--resume.*--overwrite.*-dir"
    ):
        claim(tmp_path)
    assert contents(tmp_path) == before


def test_the_same_run_is_continued_and_its_configuration_kept(tmp_path):
    claim(tmp_path, epochs=3)
    before = contents(tmp_path)
    run = claim(tmp_path, epochs=3, resume=True)
    assert run.path == tmp_path and contents(tmp_path) == before


def test_a_run_may_be_continued_on_other_devices_and_after_a_move(tmp_path):
    claim(tmp_path / "old", global_batch_size=8)
    (tmp_path / "old").rename(tmp_path / "new")
    claim(tmp_path / "new", global_batch_size=8, replicas=2, resume=True)


DIFFERENT = {
    "recipe": "digits",
    "data": "folder:x",
    "test_fraction": 0.3,
    "architecture": "alexnet_mini",
    "groups": 1,
    "width": 0.5,
    "conv": "x",
    "norm": "x",
    "pool": "x",
    "activation": "x",
    "weights": "x.pth",
    "freeze": ("conv*",),
    "channels": 1,
    "image_size": 64,
    "resize_size": 250,
    "fused_decode": False,
    "mean": "image",
    "augmentation": "modern",
    "augment_on": "device",
    "crop_padding": 1,
    "horizontal_flip": False,
    "color_noise": "0.2",
    "color_noise_form": "program",
    "color_statistics": "published",
    "mixup": 0.2,
    "cutmix": 0.2,
    "label_smoothing": 0.1,
    "adversarial": "8/255",
    "adversarial_steps": 2,
    "rotation": 1.0,
    "zoom": 0.1,
    "minutes": 2.0,
    "keep": "best",
    "ema": 0.99,
    "class_weights": "balanced",
    "validation_fraction": 0.3,
    "global_batch_size": 64,
    "learning_rate": "0.1",
    "bias_multiplier": "3",
    "rate_multipliers": ("fc8=10",),
    "decay_multipliers": ("fc8=2",),
    "optimizer": "adamw",
    "momentum": 0.8,
    "weight_decay": 0.1,
    "dropout": "0.1",
    "dropout_by_layer": ("drop7=0.1",),
    "seed": 1,
    "precision": "bfloat16",
    "clip_norm": 1.0,
    "micro_batches": 2,
    "max_skipped_steps": 5,
    "deterministic": True,
    "xla": "on",
}


def test_every_setting_that_decides_the_result_is_compared():
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(DIFFERENT) == fields - MAY_CHANGE_ON_RESUME - set(LENGTH)


@pytest.mark.parametrize("name", DIFFERENT)
def test_another_run_is_not_continued(tmp_path, name):
    claim(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=f"another run: its {name} is"):
        claim(tmp_path, resume=True, **{name: DIFFERENT[name]})
    assert contents(tmp_path) == before


def test_resuming_nothing_is_a_mistake(tmp_path):
    with pytest.raises(UserError, match="no run to resume in .*typo"):
        claim(tmp_path / "typo", resume=True)
    assert not (tmp_path / "typo").exists()


def test_an_overwritten_run_leaves_nothing_but_the_users_own_files(tmp_path):
    claim(tmp_path)
    for name in ("history.csv", "checkpoints/1.json", "figures/a.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert claim(tmp_path, epochs=3, overwrite=True).config().epochs == 3
    left = {path.name for path in tmp_path.iterdir()} - {".lock"}
    assert left == {"config.json", "notes.txt"}
    with pytest.raises(UserError, match="either resumed or overwritten"):
        claim(tmp_path, resume=True, overwrite=True)


def test_a_setting_that_an_older_version_had_not_is_as_it_was_then(tmp_path):
    run = claim(tmp_path, recipe="digits")
    values = json.loads((tmp_path / "config.json").read_text())
    del values["rotation"]  # Which the recipe sets today.
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert run.config().rotation == 0.0


@pytest.mark.parametrize("resume", [False, True])
def test_a_directory_with_other_files_is_left_alone(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("irreplaceable")
    with pytest.raises(ValueError, match="holds files that are not a run's"):
        claim(tmp_path, resume=resume)
    assert contents(tmp_path) == {"thesis.tex": b"irreplaceable"}


@pytest.mark.parametrize("below", [".", "run", "runs/1", "n" * 300])
def test_a_directory_that_cannot_be_written_is_named(tmp_path, below):
    # Not by its permissions, which do not stop root.
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="directory .* cannot be written: [A-Z]"):
        claim(tmp_path / "file" / below)
    assert contents(tmp_path) == {"file": b""}


def test_a_name_that_is_too_long_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="cannot be written: File name too long"):
        claim(tmp_path / ("n" * 300))


# === Reading ===


def test_a_directory_without_a_configuration_is_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="is not a run directory"):
            RunDirectory.open(path)


def test_a_run_whose_training_has_not_finished_says_so(tmp_path):
    run = claim(tmp_path)
    with pytest.raises(ValueError, match="no result.json: has its training finished"):
        run.read_json("result.json")


def test_what_is_written_is_read_again(tmp_path):
    run = claim(tmp_path)
    preprocessing = Preprocessing(28, 32, 3, (1.5, 2.5, 3.5), 1 / 64)
    names = ["Käse", "猫"]
    values = {
        "class_names": names,
        "preprocessing": dataclasses.asdict(preprocessing),
    }
    run.write_json("data.json", values)
    assert RunDirectory.open(tmp_path).preprocessing() == preprocessing
    assert run.class_names() == names


def test_history_has_a_row_per_epoch(tmp_path):
    run = claim(tmp_path)
    assert run.history() == []
    history = [{"epoch": 1, "loss": 2.25}, {"epoch": 2, "loss": 0.5}]
    write_table(tmp_path / "history.csv", history)
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [{name: float(row[name]) for name in row} for row in rows] == history
    assert run.history() == history and type(run.history()[0]["epoch"]) is int


def test_the_configuration_on_disk_is_plain_json(tmp_path):
    claim(tmp_path, epochs=7)
    assert json.loads((tmp_path / "config.json").read_text())["epochs"] == 7


# === Locking ===


def test_a_second_process_is_refused_with_the_first_ones_host_and_number(tmp_path):
    run = RunDirectory(tmp_path)
    program = f"""
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import RunDirectory
with RunDirectory({str(tmp_path)!r}).claimed(TrainConfig(), resume=True):
    print("claimed")
"""

    def second():
        return subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )

    with run.claimed(TrainConfig()):
        refused = second()
        assert refused.returncode == 1
        message = f"in use by another process: pid {os.getpid()} on {gethostname()}"
        assert message in refused.stderr
    assert second().stdout == "claimed\n"


def test_the_lock_of_a_process_that_was_killed_is_taken_over(tmp_path):
    program = f"""
import os, signal
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.run_directory import RunDirectory
with RunDirectory({str(tmp_path)!r}).claimed(TrainConfig()):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9 and (tmp_path / ".lock-owner.json").exists()
    with RunDirectory(tmp_path).claimed(TrainConfig(), resume=True):
        owner = json.loads((tmp_path / ".lock-owner.json").read_text())
    assert owner["pid"] == os.getpid()
    assert not (tmp_path / ".lock-owner.json").exists()
