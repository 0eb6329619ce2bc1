"""The same training on any number of devices, compiled by XLA or not."""

import json

import numpy as np
import pytest

import keras_alexnet
from keras_alexnet.training.train import train


def trained(run_dir, replicas, xla):
    """Trains for 50 steps and more; returns the result and the weights."""
    config = keras_alexnet.TrainConfig(
        architecture="alexnet_mini",
        # XLA's convolutions are slow on CPUs.
        width=0.25,
        image_size=16,
        resize_size=16,
        crop_padding=2,
        rotation=10.0,
        # 1,437 images, 24 batches an epoch.
        epochs=3,
        global_batch_size=60,
        learning_rate="0.01",
        dropout="0",
        # Where rounding crosses a kink of ReLU or max pooling, a gradient changes.
        activation="softplus",
        pool="average_pooling2d",
        replicas=replicas,
        xla=xla,
    )
    result = train(config, run_dir)
    return result, keras_alexnet.load_model(run_dir / "model.keras").get_weights()


@pytest.fixture(scope="module")
def on_one(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("replicas") / "one", 1, "off")


@pytest.mark.parametrize(
    ("replicas", "xla"),
    [
        (2, "on"),
        pytest.param(4, "off", marks=pytest.mark.slow),
        pytest.param(1, "on", marks=pytest.mark.slow),
        pytest.param(2, "off", marks=pytest.mark.slow),
        pytest.param(4, "on", marks=pytest.mark.slow),
    ],
)
def test_72_steps_give_the_same_weights(on_one, replicas, xla, tmp_path):
    result, weights = trained(tmp_path / "run", replicas, xla)
    result_of_one, weights_of_one = on_one
    for ours, theirs in zip(weights, weights_of_one, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
    for row, row_of_one in zip(result.history, result_of_one.history, strict=True):
        assert row["loss"] == pytest.approx(row_of_one["loss"], rel=1e-5)
    written = json.loads((result.run_dir / "result.json").read_text())
    assert written["devices"] == [f"CPU:{number}" for number in range(replicas)]
    assert written["xla"] is (xla == "on")
