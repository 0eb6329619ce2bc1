"""Several hosts, as processes that talk over loopback."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import keras_alexnet
from keras_alexnet.training.hosts import place_in_cluster
from keras_alexnet.training.launch import _free_addresses, launch

# Smooth, so that rounding stays rounding; small, so that starting takes longest.
SETTINGS = {
    "architecture": "alexnet_mini",
    "image_size": 16,
    "resize_size": 16,
    "crop_padding": 2,
    "activation": "softplus",
    "pool": "average_pooling2d",
    "dropout": "0",
    "global_batch_size": 64,
    "epochs": 3,
}


def arguments(run_dir, *more, **changes):
    settings = {**SETTINGS, **changes, "run_dir": run_dir}
    flags = [(f"--{key.replace('_', '-')}", str(v)) for key, v in settings.items()]
    return ["train", *[word for flag in flags for word in flag], *more]


def host(index, addresses, *command):
    """Starts one host's process by hand, as on a cluster."""
    task = {"type": "worker", "index": index}
    config = {"cluster": {"worker": addresses}, "task": task}
    return subprocess.Popen(
        [sys.executable, "-m", "keras_alexnet", *command],
        env={**os.environ, "TF_CONFIG": json.dumps(config)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, processes):
    deadline = time.monotonic() + 180
    while not path.exists():
        assert time.monotonic() < deadline
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def weights(run_dir):
    return keras_alexnet.load_model(run_dir / "model.keras").get_weights()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("hosts") / "two"
    assert launch(2, arguments(run_dir)) == 0
    return run_dir


def test_two_hosts_train_as_one_does(finished, tmp_path):
    one = subprocess.run(
        [sys.executable, "-m", "keras_alexnet", *arguments(tmp_path / "one")],
        check=False,
    )
    assert one.returncode == 0
    for ours, theirs in zip(weights(finished), weights(tmp_path / "one"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    result, of_one = (
        json.loads((run / "result.json").read_text())
        for run in (finished, tmp_path / "one")
    )
    assert (result["hosts"], result["replicas"]) == (2, 2)
    for ours, theirs in zip(result["history"], of_one["history"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_when_a_host_dies_the_others_stop_and_the_same_command_resumes(
    finished, tmp_path
):
    command = arguments(tmp_path / "run", "--checkpoint-steps", "1")
    addresses = _free_addresses(2)
    chief, other = (host(index, addresses, *command) for index in range(2))
    wait_for(tmp_path / "run" / "history.csv", [chief, other])
    other.kill()
    output, _ = chief.communicate(timeout=60)
    assert chief.returncode == 1
    assert "another host no longer answers" in output and "Traceback" not in output
    assert launch(2, [*command, "--resume"]) == 0
    for ours, theirs in zip(weights(tmp_path / "run"), weights(finished), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_signal_to_one_host_stops_all_after_saving(tmp_path):
    command = arguments(tmp_path / "run", epochs=200)
    addresses = _free_addresses(2)
    processes = [host(index, addresses, *command) for index in range(2)]
    wait_for(tmp_path / "run" / "history.csv", processes)
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 143, output
        assert "--resume" in output and "Traceback" not in output
    assert list((tmp_path / "run" / "checkpoints").glob("*.json"))


def test_a_failure_of_one_process_is_the_launchers():
    assert launch(2, ["train", "--data", "nonsense"]) == 2


@pytest.mark.parametrize(
    ("hosts", "command", "message"),
    [(0, ["list"], "--hosts must be at least 1"), (2, [], "no command to launch")],
)
def test_what_cannot_be_launched_is_refused(hosts, command, message):
    with pytest.raises(ValueError, match=message):
        launch(hosts, command)


# === TF_CONFIG ===


def test_the_chief_comes_first(monkeypatch):
    cluster = {"worker": ["a:1", "b:1"], "chief": ["c:1"], "evaluator": ["d:1"]}
    for place, (kind, index) in enumerate([("chief", 0), ("worker", 0), ("worker", 1)]):
        task = {"type": kind, "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        monkeypatch.setenv("TF_CONFIG", config)
        assert place_in_cluster() == (place, 3)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"evaluator": ["a:1"]}, "task": {"type": "evaluator", "index": 0}'
        "}",
    ],
)
def test_a_wrong_tf_config_is_explained(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="TF_CONFIG must hold"):
        place_in_cluster()


def test_without_tf_config_there_is_no_cluster(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert place_in_cluster() == (0, 1)
