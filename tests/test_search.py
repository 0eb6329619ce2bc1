"""A search: what it finds, what it keeps, what it survives."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import plugin_data_pb2

import keras_alexnet
from keras_alexnet import files
from keras_alexnet.errors import TrainingFailed
from keras_alexnet.training.config import TrainConfig
from keras_alexnet.training.loop import Interrupted
from keras_alexnet.tuning import Choice, Range, SearchSpace, oracles, search
from keras_alexnet.tuning.oracles import make_oracle
from keras_alexnet.tuning.trial_process import failure
from keras_alexnet.tuning.trials import Trial, ranked, repeated_error

TINY = TrainConfig(
    architecture="alexnet_mini",
    image_size=16,
    resize_size=16,
    horizontal_flip=False,
    epochs=2,
    global_batch_size=256,
    learning_rate="cosine(0.02, warmup=0.1)",
)
RATES = SearchSpace({"learning_rate.value": Range(0.005, 0.05, log=True)})


@keras_alexnet.register_layer("refusing_norm", package="test_search")
class RefusingNorm(keras.layers.Layer):
    """A plugin's layer that does not work."""

    def build(self, input_shape):
        raise ZeroDivisionError("the window has no size")


def weights_of(run_dir):
    digest = hashlib.sha256()
    for array in keras_alexnet.load_model(run_dir / "model.keras").get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def train_from(file, run_dir):
    """Trains in a new process, as a user would."""
    program = "import sys; from keras_alexnet.cli import main; main()"
    arguments = ["train", "--config", str(file), "--run-dir", str(run_dir)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads((run_dir / "result.json").read_text())


# === A search ===


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("search") / "run"
    return search(TINY, RATES, trials=3, run_dir=run_dir, keep=1)


def test_every_trial_is_a_run_of_which_only_the_best_keep_their_weights(searched):
    objectives = [trial.objective for trial in searched.trials]
    assert searched.best.objective == min(objectives)
    for trial in searched.trials:
        run_dir = searched.run_dir / "trials" / trial.name
        result = json.loads((run_dir / "result.json").read_text())
        last = result["history"][-1]
        assert trial.status == "completed"
        # Chosen by validation images; the test images are another matter.
        assert trial.metrics == {name: last[f"val_{name}"] for name in trial.metrics}
        assert result["metrics"]["loss"] != trial.metrics["loss"]
        assert list(trial.history) == result["history"] and len(trial.history) == 2
        assert trial.objective == result["history"][-1]["val_top1_error"]
        assert 0.005 <= trial.values["learning_rate.value"] <= 0.05
        begun = TrainConfig.from_file(run_dir / "config.json")
        assert begun == trial.config
        kept = trial is searched.best
        assert (run_dir / "model.keras").exists() == kept
        assert (run_dir / "checkpoints").exists() == kept


def test_the_best_configuration_trained_again_gives_the_same_numbers(
    searched, tmp_path
):
    result = train_from(searched.run_dir / "best.json", tmp_path / "again")
    assert result["history"] == list(searched.best.history)
    best = searched.run_dir / "trials" / searched.best.name
    assert weights_of(tmp_path / "again") == weights_of(best)


def test_keras_tuner_reads_the_directory(searched):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=keras_tuner.Objective("val_top1_error", "min"), max_trials=3
    )
    oracle._set_project_dir(searched.run_dir.parent, searched.run_dir.name)
    oracle.reload()
    (best,) = oracle.get_best_trials()
    # Of equal ones it takes the first that the directory lists.
    scores = {trial.name: trial.objective for trial in searched.trials}
    assert best.score == scores[best.trial_id] == searched.best.objective


def test_tensorboard_finds_the_hyperparameters(searched):
    for trial in searched.trials:
        logs = searched.run_dir / "trials" / trial.name / "logs"
        (file,) = logs.glob("*.hparams")
        values = {}
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "hparams":
                    data = plugin_data_pb2.HParamsPluginData.FromString(
                        value.metadata.plugin_data.content
                    )
                    for name, one in data.session_start_info.hparams.items():
                        values[name] = one.number_value
        assert values == dict(trial.values)


def test_a_finished_search_is_not_searched_again(searched):
    again = search(TINY, RATES, trials=3, run_dir=searched.run_dir, keep=1)
    assert again == searched


@pytest.mark.parametrize(
    "change, message",
    [
        ({"tuner": "bayesian"}, "its tuner is 'random', not 'bayesian'"),
        ({"config": dataclasses.replace(TINY, epochs=3)}, "its epochs is 2, not 3"),
        ({"space": "recipe"}, "its space is"),
    ],
)
def test_the_directory_of_another_search_is_refused(searched, change, message):
    arguments = {"config": TINY, "space": RATES, "trials": 3, **change}
    with pytest.raises(ValueError, match=f"holds another search: {message}"):
        search(**arguments, run_dir=searched.run_dir)


# === Hyperband ===


def test_a_trial_in_rounds_is_a_run_that_never_paused(tmp_path):
    config = dataclasses.replace(TINY, epochs=3, dropout="linear(0.5, end=0.1)")
    result = search(
        config, RATES, trials=4, tuner="hyperband", run_dir=tmp_path / "s", keep=5
    )
    # Three begin with one epoch; the best goes on to the third.
    others = [trial for trial in result.trials if trial != result.best]
    assert [trial.status for trial in others] == ["stopped"] * 2
    assert [len(trial.history) for trial in others] == [1, 1]
    log = tmp_path / "s" / f"trial_{result.best.name}" / "output.txt"
    assert "Continuing" in log.read_text()
    whole = train_from(tmp_path / "s" / "best.json", tmp_path / "whole")
    assert whole["history"] == list(result.best.history)
    continued = tmp_path / "s" / "trials" / result.best.name
    assert weights_of(tmp_path / "whole") == weights_of(continued)


# === Failures ===


def test_trials_that_fail_are_recorded_and_do_not_end_a_search(tmp_path):
    # The rate of some leads to infinity, the layer of others does not work.
    space = SearchSpace(
        {
            "learning_rate": Choice(("0.01", "1e30")),
            "norm": Choice(("default", "refusing_norm")),
        }
    )
    config = dataclasses.replace(TINY, max_skipped_steps=1, epochs=1)
    result = search(config, space, trials=4, run_dir=tmp_path / "s", workers=2)
    statuses = {
        (trial.values["learning_rate"], trial.values["norm"]): trial
        for trial in result.trials
    }
    assert result.best is statuses["0.01", "default"]
    assert [one.status for one in statuses.values()].count("failed") == 3
    assert "not finite" in statuses["1e30", "default"].error
    refused = statuses["0.01", "refusing_norm"].error
    assert "ZeroDivisionError" in refused and "the window has no size" in refused
    assert "\n" not in refused


def test_the_same_error_three_times_ends_a_search(tmp_path):
    space = SearchSpace({"momentum": Range(0.8, 0.9), "norm": "refusing_norm"})
    with pytest.raises(TrainingFailed, match="same error:.*the window has no size"):
        search(TINY, space, trials=9, run_dir=tmp_path / "s")
    assert len(list((tmp_path / "s").glob("trial_*/error.json"))) == 3


def test_no_successful_trial_is_one_clear_line(tmp_path):
    space = SearchSpace({"momentum": Range(0.8, 0.9), "norm": "refusing_norm"})
    with pytest.raises(TrainingFailed, match="None of 2 trials succeeded, the last"):
        search(TINY, space, trials=2, run_dir=tmp_path / "s")


@pytest.mark.parametrize(
    "errors, repeated",
    [
        (["step 3: nan", "step 4: nan", "step 55: nan"], True),
        (["step 3: nan", "step 4: nan"], False),
        (["a", None, "a", "a"], False),
        (["a", "a", "b"], False),
        ([None, None, None], False),
        # Large networks do not fit, but another did; or none does.
        ([None, *["Out of memory: 3 GiB"] * 3], False),
        (["Out of memory: 3 GiB"] * 3, True),
    ],
)
def test_errors_are_the_same_though_their_numbers_differ(errors, repeated):
    records = [
        one and {"error": one, "out_of_memory": one.startswith("Out")} for one in errors
    ]
    assert bool(repeated_error(records)) == repeated


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("no room"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
        tf.errors.InternalError(None, None, "CUDA_ERROR_OUT_OF_MEMORY: failed"),
        RuntimeError("XLA: RESOURCE_EXHAUSTED: while trying to allocate\n8 GiB"),
    ],
)
def test_running_out_of_memory_ends_the_trial_and_not_the_search(error):
    outcome = failure(error)
    assert outcome.out_of_memory and not outcome.ends_search and not outcome.by_user
    assert outcome.error.startswith("Out of memory: ") and "\n" not in outcome.error


# === Killed ===


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_search_goes_on_and_loses_nothing(tmp_path, kills):
    program = Path(__file__).with_name("killed_searches.py")
    done = subprocess.run(
        [sys.executable, program, tmp_path, str(kills)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome == {"lost": [], "trials": 2, "same": True}


def test_a_trial_whose_process_is_killed_is_given_again(tmp_path):
    killed = []

    def kill_one():
        owner = tmp_path / "s" / "trials" / "1" / ".lock-owner.json"
        while not list(owner.parent.glob("checkpoints/step-*.json")):
            time.sleep(0.02)
        killed.append(json.loads(owner.read_text())["pid"])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill_one, daemon=True).start()
    config = dataclasses.replace(TINY, epochs=4)
    result = search(config, RATES, trials=2, run_dir=tmp_path / "s", workers=2)
    assert killed
    assert [trial.status for trial in result.trials] == ["completed", "completed"]
    log = (tmp_path / "s" / "trial_1" / "output.txt").read_text()
    assert "Continuing" in log


def oracle_in(directory):
    hp = keras_tuner.HyperParameters()
    RATES.declare(hp, TINY)
    objective = keras_tuner.Objective("val_loss", "min")
    one = make_oracle("random", hp, objective, trials=5, epochs=2, seed=0)
    one._set_project_dir(directory, "s")
    return one


def test_a_trial_that_the_state_does_not_know_yet_is_given_again(tmp_path):
    first = oracle_in(tmp_path)
    first.save()
    before = (tmp_path / "s" / "oracle.json").read_bytes()
    values = first.create_trial("tuner0").hyperparameters.values
    # Killed after trial.json was written, before oracle.json was.
    (tmp_path / "s" / "oracle.json").write_bytes(before)
    second = oracle_in(tmp_path)
    second.reload()
    assert second.trials == {}
    again = second.create_trial("tuner0")
    assert (again.trial_id, again.hyperparameters.values) == ("0", values)
    # Killed in the middle of it: given again, under the same name.
    third = oracle_in(tmp_path)
    third.reload()
    assert third.create_trial("tuner0").hyperparameters.values == values
    assert third.create_trial("tuner1").trial_id == "1"


def test_a_silent_worker_gives_its_trial_back(tmp_path, monkeypatch):
    oracle = oracle_in(tmp_path)
    name = oracle.create_trial("far").trial_id
    assert oracle.take_back_from_silent() == []
    monkeypatch.setattr("keras_alexnet.tuning.oracles.SILENCE_SECONDS", -1.0)
    assert oracle.take_back_from_silent() == ["far"]
    assert oracle.create_trial("near").trial_id == name


def test_a_full_disk_ends_a_search_that_goes_on_later(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, epochs=1)
    written = []

    def write_whole(path, content):
        written.append(path)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        files.write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(oracles, "write_whole", write_whole)
        with pytest.raises(OSError, match="No space left"):
            search(config, RATES, trials=2, run_dir=tmp_path / "s", workers=2)
    result = search(config, RATES, trials=2, run_dir=tmp_path / "s", workers=2)
    assert [trial.status for trial in result.trials] == ["completed", "completed"]


def test_a_search_that_is_asked_to_stop_saves_and_goes_on(tmp_path):
    def ask():
        history = tmp_path / "s" / "trials" / "0" / "history.csv"
        while not history.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    config = dataclasses.replace(TINY, epochs=6)
    threading.Thread(target=ask, daemon=True).start()
    with pytest.raises(Interrupted, match="SIGTERM"):
        search(config, RATES, trials=1, run_dir=tmp_path / "s")
    assert not (tmp_path / "s" / "trials" / "0" / "result.json").exists()
    result = search(config, RATES, trials=1, run_dir=tmp_path / "s")
    assert len(result.best.history) == 6
    assert "Continuing" in (tmp_path / "s" / "trial_0" / "output.txt").read_text()


# === Several hosts ===


@pytest.mark.slow
def test_hosts_search_together(tmp_path):
    with open(tmp_path / "config.json", "w") as file:
        file.write(TINY.to_json())
    program = "import sys; from keras_alexnet.cli import main; main()"
    arguments = ["tune", "--config", tmp_path / "config.json", "--trials", 3]
    arguments += ["--run-dir", tmp_path / "s", "--seeds", 1]
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "18761"}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            env={**os.environ, **address, "KERASTUNER_TUNER_ID": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("chief", "worker0")
    ]
    outputs = [host.communicate(timeout=900)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], outputs
    assert any("3 of 3" in output for output in outputs), outputs
    assert all("Best of 3 trials" in output for output in outputs), outputs
    assert len(list((tmp_path / "s" / "trials").glob("*/result.json"))) == 3
    # One of them compares: a run that both train would fail for one.
    assert [output.count("seed 1000: top-1 error") for output in outputs] == [2, 0]


# === Reading ===


def test_trials_that_ran_to_their_end_come_first():
    def trial(name, status, objective):
        return Trial(name, {}, TINY, status, objective)

    trials = [
        trial("a", "stopped", 0.1),
        trial("b", "completed", 0.3),
        trial("c", "completed", 0.2),
        trial("d", "failed", None),
        trial("e", "running", None),
    ]
    assert [one.name for one in ranked(trials)] == ["c", "b", "a"]


# === Mistakes ===


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"objective": "val_accuracy"},
            "Unknown objective 'val_accuracy'.*val_loss, val_top1_error, val_top5",
        ),
        ({"tuner": "randm"}, "Did you mean 'random'"),
        ({"trials": 0}, "trials must be at least 1. Received: 0"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"keep": -1}, "keep must not be negative"),
        ({"space": SearchSpace()}, "The search space is empty"),
        ({"space": "nothing"}, "Unknown search space 'nothing'"),
        (
            {"config": dataclasses.replace(TINY, data="folder:nowhere")},
            "No such folder: nowhere",
        ),
        (
            {"config": dataclasses.replace(TINY, architecture="alexnet")},
            "Unknown architecture 'alexnet'",
        ),
    ],
)
def test_mistakes_are_found_before_anything_begins(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        search(**{"config": TINY, **arguments}, run_dir=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="holds files that are not a search's"):
        search(TINY, run_dir=tmp_path)
