"""Runs on a GPU against the same on a CPU, on several devices, and resumed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gpu_runs
import numpy as np
import pytest
import tensorflow as tf

import keras_alexnet
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.training.train import train


def in_process(*arguments, gpu=True):
    """Runs a command of Python in a new process, which sees the GPUs or not."""
    environment = dict(os.environ)
    if not gpu:
        environment["CUDA_VISIBLE_DEVICES"] = "-1"
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def run(what, directory, gpu):
    directory.mkdir(exist_ok=True)
    in_process(Path(gpu_runs.__file__), what, directory, gpu=gpu)
    return directory


def test_losses_over_50_steps_are_those_of_a_cpu(tmp_path):
    ours = np.load(run("losses", tmp_path / "gpu", True) / "losses.npy")
    cpu = np.load(run("losses", tmp_path / "cpu", False) / "losses.npy")
    assert cpu[-1] < 0.8 * cpu[0]
    difference = np.abs(ours / cpu - 1).max()
    print("Largest relative difference of a loss:", difference)
    assert difference < 1e-4


@pytest.mark.parametrize("made_on_gpu", [True, False])
def test_a_saved_model_says_the_same_on_the_other_device(made_on_gpu, tmp_path):
    run("export", tmp_path, made_on_gpu)
    run("serve", tmp_path, not made_on_gpu)
    expected = np.load(tmp_path / "expected.npy")
    np.testing.assert_allclose(np.load(tmp_path / "served.npy"), expected, atol=1e-5)


def test_a_deterministic_run_resumes_to_the_same_bytes(tmp_path):
    whole, stopped = (run("resume", tmp_path, True) / "digests").read_text().split()
    assert whole == stopped


@pytest.fixture(scope="module")
def trained_on_one(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("one") / "run", replicas=1, xla="off")


def trained(run_dir, **changes):
    result = train(gpu_runs.settings(**changes), run_dir)
    return result, keras_alexnet.load_model(run_dir / "model.keras").get_weights()


@pytest.mark.parametrize("replicas, xla", [(1, "on"), (2, "off"), (2, "on")])
def test_replicas_and_xla_train_the_same_weights(
    replicas, xla, trained_on_one, tmp_path
):
    result, weights = trained(tmp_path / "run", replicas=replicas, xla=xla)
    first, expected = trained_on_one
    for ours, theirs in zip(weights, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    for row, other in zip(result.history, first.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    devices = json.loads((result.run_dir / "result.json").read_text())["devices"]
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    assert devices == [f"{kind}:{number}" for number in range(replicas)]


def test_a_run_on_the_digits_is_that_of_a_cpu(trained_on_one, tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import gpu_runs; "
        "gpu_runs.train(gpu_runs.settings(), sys.argv[2])"
    )
    here = Path(gpu_runs.__file__).parent
    in_process("-c", program, here, tmp_path / "run", gpu=False)
    history = (tmp_path / "run" / "history.csv").read_text().splitlines()
    column = history[0].split(",").index("loss")
    losses = [float(row.split(",")[column]) for row in history[1:]]
    ours = [row["loss"] for row in trained_on_one[0].history]
    np.testing.assert_allclose(ours, losses, rtol=1e-4)


def test_augmentation_on_the_device_is_that_of_the_host(tmp_path):
    augmentation = Augmentation(
        24,
        crop_padding=2,
        horizontal_flip=True,
        rotation=10.0,
        zoom=0.1,
        color_noise=0.1,
        color_axes=((9.0, 1.0, 2.0), (0.0, 5.0, 1.0), (1.0, 0.0, 3.0)),
    )
    images = np.random.default_rng(0).uniform(0, 255, (8, 28, 28, 3)).astype("float32")
    draws = augmentation.draw(tf.constant([1, 2], tf.int64), (0,) * 8)
    found = [tf.function(augmentation.batch)(images, draws)]
    with tf.device("CPU:0"):
        found.append(augmentation.batch(tf.constant(images), draws))
    np.testing.assert_allclose(*found, atol=2e-2)

    first = trained(tmp_path / "host", epochs=1)[0].history[0]["loss"]
    second = trained(tmp_path / "device", epochs=1, augment_on="device")
    assert second[0].history[0]["loss"] == pytest.approx(first, rel=1e-3)


def test_a_search_with_two_workers_shares_one_gpu(tmp_path):
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"architecture": "alexnet_mini", "width": 0.25}))
    in_process(
        *("-m", "keras_alexnet", "tune", "--run-dir", tmp_path / "search"),
        *("--trials", 3, "--workers", 2, "--epochs", 1, "--seeds", 0),
        *("--config", settings),
    )
    assert (tmp_path / "search" / "best.json").is_file()


def test_a_process_takes_the_memory_that_it_needs():
    program = (
        "from keras_alexnet.startup import import_tensorflow; import_tensorflow(); "
        "import tensorflow as tf; tf.ones((8, 8)) @ tf.ones((8, 8)); "
        "print(*(tf.config.experimental.get_memory_growth(gpu) "
        "for gpu in tf.config.list_physical_devices('GPU')))"
    )
    assert "False" not in in_process("-c", program).stdout
