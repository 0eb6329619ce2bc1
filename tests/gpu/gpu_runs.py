"""What the tests on a GPU compare, computed in a process of its own.

    python tests/gpu/gpu_runs.py losses|export|serve|resume DIRECTORY

`CUDA_VISIBLE_DEVICES=-1` makes the process one of a machine without GPUs.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

import keras_alexnet
from keras_alexnet.export.saved_model import export_saved_model
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.startup import prepare_gpus
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.train import train

IMAGES = np.random.default_rng(0).normal(0, 1, (32, 28, 28, 3)).astype("float32")


def settings(**changes):
    """A run on the digits without kinks, at which rounding would decide gradients."""
    return keras_alexnet.TrainConfig(
        **{
            "architecture": "alexnet_mini",
            "width": 0.25,
            "image_size": 16,
            "resize_size": 16,
            "crop_padding": 2,
            "rotation": 10.0,
            "epochs": 3,
            "global_batch_size": 60,
            "learning_rate": "0.01",
            "dropout": "0",
            "activation": "softplus",
            "pool": "average_pooling2d",
            "precision": "float32",
            **changes,
        }
    )


def network():
    model = keras_alexnet.build(
        "alexnet_mini",
        input_shape=IMAGES.shape[1:],
        classes=10,
        activation="softplus",
        pool="average_pooling2d",
        dropout=0.0,
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        inputs = np.prod(weight.shape[:-1])
        deviation = np.sqrt(2 / inputs) if len(weight.shape) > 1 else 0
        weight.assign(rng.normal(0, deviation, weight.shape))
    return model


def losses(directory, steps=50):
    """The losses of so many steps on random images, one by one."""
    model = network()
    labels = np.arange(len(IMAGES)) % 10
    model.compile(
        DecayedMomentum(0.01), "sparse_categorical_crossentropy", jit_compile=False
    )
    values = [float(model.train_on_batch(IMAGES, labels)) for _ in range(steps)]
    np.save(directory / "losses.npy", values)


def export(directory):
    """A SavedModel, and what the network says of the images."""
    model = network()
    unchanged = Preprocessing(28, 28, 3, (0.0, 0.0, 0.0), 1.0)
    export_saved_model(model, directory / "export", unchanged, tuple("0123456789"))
    np.save(directory / "expected.npy", model(IMAGES))


def serve(directory):
    """What a SavedModel says here; it may come from another kind of device."""
    # Kept, because its functions do not keep its variables.
    program = tf.saved_model.load(str(directory / "export"))
    served = program.serve(IMAGES)
    np.save(directory / "served.npy", served["probabilities"])


def resume(directory):
    """Digests of a run's weights: never stopped, and stopped after an epoch."""
    # With maxima and dropout, whose gradients and masks must repeat, too.
    config = settings(
        deterministic=True,
        activation="relu",
        pool="overlapping_max_pooling",
        dropout="0.5",
        epochs=2,
    )
    train(config, directory / "whole")
    train(config, directory / "stopped", until_epoch=1)
    train(config, directory / "stopped", resume=True)
    digests = []
    for run in ("whole", "stopped"):
        model = keras_alexnet.load_model(directory / run / "model.keras")
        weights = b"".join(weight.tobytes() for weight in model.get_weights())
        digests.append(hashlib.sha256(weights).hexdigest())
    (directory / "digests").write_text("\n".join(digests))


if __name__ == "__main__":
    prepare_gpus()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    what, directory = sys.argv[1:]
    {"losses": losses, "export": export, "serve": serve, "resume": resume}[what](
        Path(directory)
    )
