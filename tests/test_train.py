"""Training runs: what they leave behind, how they continue, how they stop."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_alexnet
from keras_alexnet.training import precision
from keras_alexnet.training.checkpoint import CheckpointStore
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted, epoch_ends
from keras_alexnet.training.train import train

PNG = b"\x89PNG\r\n"


TINY = {
    **{"recipe": "digits", "epochs": 2, "global_batch_size": 256},
    **{"rotation": 0.0, "zoom": 0.0},
}


def train_tiny(run_dir, *callbacks, resume=False, until_epoch=None, **changes):
    """Trains the recipe of the digits, shortened."""
    return train(
        TrainConfig(**{**TINY, **changes}),
        run_dir,
        resume=resume,
        callbacks=list(callbacks),
        until_epoch=until_epoch,
    )


def command(*arguments):
    program = "from keras_alexnet.cli import main; main()"
    return [sys.executable, "-c", program, *map(str, arguments)]


def weights(run_dir):
    model = keras_alexnet.load_model(run_dir / "model.keras")
    return {variable.path: variable.numpy() for variable in model.weights}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    return train_tiny(run_dir)


def test_a_run_leaves_its_configuration_history_result_model_and_figures(finished):
    run = finished.run_dir
    assert json.loads((run / "config.json").read_text())["architecture"]
    rows = list(csv.DictReader((run / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "accuracy", "val_top1_error", "learning_rate"} <= set(rows[0])
    result = json.loads((run / "result.json").read_text())
    assert result["metrics"] == finished.metrics
    assert result["parameters"] == 285_322
    assert result["devices"] == ["CPU:0"] and result["xla"] is False
    assert {"keras", "tensorflow", "numpy"} <= set(result["versions"])
    for name in ("learning_curves", "filters", "predictions"):
        assert (run / "figures" / f"{name}.png").read_bytes().startswith(PNG)
    assert list((run / "logs").rglob("events.out.*"))
    assert isinstance(
        keras_alexnet.load_model(run / "model.keras"), keras_alexnet.AlexNet
    )


def test_a_run_learns(finished):
    losses = [row["loss"] for row in finished.history]
    assert losses[-1] < losses[0]


def test_a_finished_run_is_not_trained_again(finished):
    again = train_tiny(finished.run_dir, resume=True)
    assert again.finished_before and again.metrics == finished.metrics


def test_the_same_configuration_gives_the_same_weights(finished, tmp_path):
    train_tiny(tmp_path / "again")
    ours, theirs = weights(tmp_path / "again"), weights(finished.run_dir)
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)


class KilledAtEpoch(keras.callbacks.Callback):
    """Dies in the middle of an epoch, as a crash would."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.current == self.epoch and batch == 2:
            raise RuntimeError("killed")


def test_a_run_that_crashed_ends_as_one_that_did_not(finished, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        train_tiny(tmp_path / "run", KilledAtEpoch(1))
    keras.utils.set_random_seed(123)  # What a new process would have is something else.
    train_tiny(tmp_path / "run", resume=True)
    ours, theirs = weights(tmp_path / "run"), weights(finished.run_dir)
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    assert (tmp_path / "run" / "history.csv").read_text() == (
        finished.run_dir / "history.csv"
    ).read_text()


def test_adversarial_training_resumes_where_it_stopped(tmp_path):
    settings = {"adversarial": "8/255", "width": 0.25, "image_size": 16}
    settings |= {"resize_size": 16, "replicas": 2}
    whole = train_tiny(tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError, match="killed"):
        train_tiny(tmp_path / "run", KilledAtEpoch(1), **settings)
    result = train_tiny(tmp_path / "run", resume=True, **settings)
    assert result.history == whole.history
    with pytest.raises(ValueError, match="such as 8/255 or 0.03. Received: 8"):
        train_tiny(tmp_path / "other", adversarial="8")


def test_a_run_of_before_there_were_steps_goes_on(finished, tmp_path):
    train_tiny(tmp_path / "run", until_epoch=1)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    saved = store.load()
    record = {**saved.record, "config": {**saved.record["config"]}}
    for name in ("steps", "optimizer"):
        del record["config"][name]
    values = {name: tf.constant(array) for name, array in saved.arrays.items()}
    store.save(saved.step, values, record)
    assert train_tiny(tmp_path / "run", resume=True).history == finished.history


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(finished, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        train_tiny(tmp_path / "run", KilledAtEpoch(3), epochs=4)
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        result = train_tiny(tmp_path / "run", epochs=4, resume=True)
    assert [row["epoch"] for row in result.history] == [1, 2, 3, 4]


def test_bfloat16_keeps_float32_weights(tmp_path):
    result = train_tiny(tmp_path / "run", epochs=1, precision="bfloat16")
    assert np.isfinite(result.metrics["loss"])
    model = keras_alexnet.load_model(result.run_dir / "model.keras")
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    velocities = [x for x in model.optimizer.variables if "velocity" in x.path]
    assert len(velocities) == len(model.trainable_variables)
    assert {variable.dtype for variable in velocities} == {"float32"}
    assert model.get_layer("conv1").compute_dtype == "bfloat16"


def test_auto_precision_stays_what_it_was_when_the_run_began(
    tmp_path, monkeypatch, capsys
):
    def on_a_machine(*, native):
        support = native, "invented"
        monkeypatch.setattr(precision, "bfloat16_support", lambda: support)

    on_a_machine(native=True)
    train_tiny(tmp_path / "run", precision="auto", until_epoch=1)
    assert "; bfloat16: bfloat16 is native here" in capsys.readouterr().out
    on_a_machine(native=False)
    result = train_tiny(tmp_path / "run", precision="auto", resume=True)
    assert "; bfloat16: as when the run began" in capsys.readouterr().out
    written = json.loads((result.run_dir / "result.json").read_text())
    assert written["precision"] == "bfloat16"
    config = json.loads((result.run_dir / "config.json").read_text())
    assert config["precision"] == "bfloat16"


def test_every_epoch_ends_when_its_images_have_been_seen():
    # 10 images in batches of 4: steps 0-2 see the first epoch's last image.
    assert epoch_ends(examples=10, batch_size=4, epochs=4) == [3, 5, 8, 10]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_stops_a_run_after_saving(tmp_path, number, code):
    run_dir = tmp_path / "run"
    arguments = ("--run-dir", run_dir, "--global-batch-size", 128)
    process = subprocess.Popen(
        command("train", *arguments, "--epochs", 200),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (run_dir / "history.csv").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.2)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output and "--resume" in output
    records = sorted((run_dir / "checkpoints").glob("*.json"))
    assert json.loads(records[-1].read_text())["step"] > 0
    assert not (run_dir / "result.json").exists()


class Interrupt(keras.callbacks.Callback):
    """Presses Ctrl-C after a given step."""

    def __init__(self, after_step):
        super().__init__()
        self.after_step = after_step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.after_step:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("after_step", [3, 6, 8, 12])
def test_an_interrupted_run_ends_as_one_that_was_not(finished, tmp_path, after_step):
    # Within either epoch, at the end of the first, and at the end of the run.
    with pytest.raises(Interrupted):
        train_tiny(tmp_path / "run", Interrupt(after_step))
    keras.utils.set_random_seed(123)
    train_tiny(tmp_path / "run", resume=True)
    ours, theirs = weights(tmp_path / "run"), weights(finished.run_dir)
    for path, array in theirs.items():
        np.testing.assert_array_equal(ours[path], array, err_msg=path)
    assert (tmp_path / "run" / "history.csv").read_text() == (
        finished.run_dir / "history.csv"
    ).read_text()


def test_a_run_goes_on_only_with_the_images_that_it_began_with(tmp_path):
    folder = tmp_path / "photos"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for number in range(6):
            image = np.full((30, 30, 3), 20 * number, "uint8")
            Image.fromarray(image).save(folder / name / f"{number}.png")
    settings = {"data": f"folder:{folder}", "global_batch_size": 4, "replicas": 2}
    with pytest.raises(Interrupted):
        train_tiny(tmp_path / "run", Interrupt(1), **settings)
    (folder / "a" / "new.png").write_bytes((folder / "a" / "0.png").read_bytes())
    with pytest.raises(ValueError, match="images have changed"):
        train_tiny(tmp_path / "run", resume=True, **settings)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    class DiskFills(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                while not list((tmp_path / "run" / "checkpoints").glob("*.json")):
                    time.sleep(0.01)  # It is written meanwhile.
                monkeypatch.setattr(os, "fsync", full)

    result = train_tiny(tmp_path / "run", DiskFills())
    monkeypatch.undo()
    # The training went on; nothing of it could be kept.
    assert np.isfinite(result.metrics["loss"]) and len(result.history) == 2
    failures = "\n".join(result.failures)
    for what in ("the checkpoint of step 12", "history.csv", "model.keras"):
        assert f"{what} could not be written: No space left" in failures
    assert not (tmp_path / "run" / "result.json").exists()
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("*.json")
    assert json.loads(checkpoint.read_text())["step"] == 6
    result = train_tiny(tmp_path / "run", resume=True)
    assert [row["epoch"] for row in result.history] == [1, 2]


# === Images ===


def colored_folder(path):
    """Two classes of small images in colour."""
    rng = np.random.default_rng(0)
    for name, light in (("dark", 60), ("light", 180)):
        for number in range(10):
            pixels = rng.normal(light, 20, (36, 40, 3)).clip(0, 255).astype(np.uint8)
            (path / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path / name / f"{number}.png")


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": "modern", "mixup": 0.2, "cutmix": 1.0},
        {
            "color_noise": 0.1,
            "color_noise_form": "program",
            "color_statistics": "published",
            "mean": "image",
        },
    ],
    ids=["modern", "program"],
)
def test_a_run_trains_on_colours_in_every_way(tmp_path, changes):
    colored_folder(tmp_path / "photos")
    result = train_tiny(
        tmp_path / "run",
        data=f"folder:{tmp_path / 'photos'}",
        global_batch_size=8,
        horizontal_flip=True,
        crop_padding=0,
        **{"image_size": 28, "resize_size": 32, "epochs": 1, **changes},
    )
    assert np.isfinite(result.history[0]["loss"])
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    has_image = data["preprocessing"]["mean_image"] is not None
    assert has_image == (changes.get("mean") == "image")
    assert data["preprocessing"]["fused_decode"] is True
    published = abs(data["color_axes"][0][0]) == pytest.approx(68.6, abs=0.1)
    assert published == (changes.get("color_statistics") == "published")


def test_a_run_that_augments_on_the_device_is_the_same_run(finished, tmp_path):
    on_device = train_tiny(tmp_path / "run", augment_on="device")
    # The host does not round what it has resized.
    for row, expected in zip(on_device.history, finished.history, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=0.01)


def test_a_run_in_rounds_ends_as_one_without(finished, tmp_path):
    first = train_tiny(tmp_path / "run", until_epoch=1)
    assert [row["epoch"] for row in first.history] == [1]
    assert first.metrics["top1_error"] == first.history[-1]["val_top1_error"]
    assert not (tmp_path / "run" / "result.json").exists()
    again = train_tiny(tmp_path / "run", resume=True, until_epoch=1)
    assert again.history == first.history  # That far it has come already.
    result = train_tiny(tmp_path / "run", resume=True, until_epoch=5)
    assert result.history == finished.history
    for ours, theirs in zip(
        weights(result.run_dir).values(),
        weights(finished.run_dir).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_fine_tuning_starts_from_weights_and_leaves_frozen_layers_alone(
    finished, tmp_path
):
    start = weights(finished.run_dir)
    result = train_tiny(
        tmp_path / "run",
        epochs=1,
        weights=str(finished.run_dir / "model.keras"),
        freeze=("conv*",),
        rate_multipliers=("fc6=0", "fc8=10"),
        bias_multiplier="2",
        learning_rate="0.001",
    )
    tuned = weights(result.run_dir)
    for path, array in start.items():
        still = path.startswith(("conv", "fc6"))
        assert np.array_equal(tuned[path], array) == still, path
    assert result.history[0]["loss"] < finished.history[0]["loss"]


def test_what_a_killed_run_had_finished_is_finished_alike(tmp_path):
    # Killed after the last checkpoint: no step is left to set the rate of dropout, on
    # which this network's outputs depend.
    settings = {
        "architecture": "alexnet_2012_half",
        "image_size": 67,
        "resize_size": 67,
        "crop_padding": 0,
        "dropout": "linear(0.5, end=0.1)",
        "epochs": 1,
        "global_batch_size": 512,
        "test_fraction": 0.9,
    }
    whole = train_tiny(tmp_path / "run", **settings)
    (tmp_path / "run" / "result.json").unlink()
    again = train_tiny(tmp_path / "run", **settings, resume=True)
    assert again.metrics == whole.metrics


def test_a_longer_run_is_the_one_that_was_longer_from_the_start(tmp_path):
    whole = train_tiny(tmp_path / "whole", learning_rate="0.01")
    train_tiny(tmp_path / "run", learning_rate="0.01", epochs=1)
    result = train_tiny(tmp_path / "run", learning_rate="0.01", resume=True)
    assert result.history == whole.history and not result.finished_before
    for path, expected in weights(whole.run_dir).items():
        np.testing.assert_array_equal(weights(result.run_dir)[path], expected)


def test_a_run_can_be_finished_early(tmp_path):
    train_tiny(tmp_path / "run", epochs=4, until_epoch=1)
    result = train_tiny(tmp_path / "run", epochs=1, resume=True)
    assert len(result.history) == 1
    assert (result.run_dir / "result.json").is_file()
    written = json.loads((result.run_dir / "config.json").read_text())
    assert written["epochs"] == 1


def test_a_run_that_a_callback_ended_is_not_continued(tmp_path):
    stop = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True)
    )
    ended = train_tiny(tmp_path / "run", stop)
    assert len(ended.history) == 1
    (tmp_path / "run" / "result.json").unlink()
    again = train_tiny(tmp_path / "run", resume=True)
    assert again.history == ended.history and again.metrics == ended.metrics


def test_micro_batches_change_nothing_but_memory(finished, tmp_path):
    result = train_tiny(tmp_path / "run", micro_batches=4)
    for row, expected in zip(result.history, finished.history, strict=True):
        # Dropout draws other masks for parts.
        assert row["loss"] == pytest.approx(expected["loss"], rel=0.1)


@pytest.mark.parametrize("name", ["config.json", ".lock-owner.json"])
def test_a_kill_in_the_first_writes_keeps_nobody_out(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".partial-{name}").write_text("half")
    train_tiny(tmp_path / "run", epochs=1)
    assert not list((tmp_path / "run").glob(".partial-*"))
