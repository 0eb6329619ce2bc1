"""The same training on any number of devices, compiled by XLA or not."""

import numpy as np
import pytest

import keras_alexnet
from keras_alexnet.training.train import train


def trained(run_dir, replicas, xla):
    """Weights after 50 steps and more."""
    config = keras_alexnet.TrainConfig(
        run_dir=str(run_dir),
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
    train(config)
    return keras_alexnet.load_model(run_dir / "model.keras").get_weights()


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
    weights = trained(tmp_path / "run", replicas, xla)
    for ours, theirs in zip(weights, on_one, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
