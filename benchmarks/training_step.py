"""How fast is a training step of alexnet_2012, against textbook Keras?

Textbook Keras is what one writes from the paper with Keras's own layers:
`Conv2D(groups=2)`, `tf.nn.local_response_normalization`, SGD with momentum. Both nets
have the same layers, batch and loss, and both are driven by `train_on_batch`.

    python -m benchmarks training_step
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
from benchmarks.timing import in_turn, report
from keras_alexnet.training.optimizer import DecayedMomentum

BATCH_SIZE = 128
REPETITIONS = 5


def textbook() -> keras.Model:
    """Writes the network of the paper with Keras's own layers."""
    layers = keras.layers

    def lrn():
        return layers.Lambda(
            lambda x: tf.nn.local_response_normalization(x, 2, 2.0, 1e-4, 0.75)
        )

    model = keras.Sequential(
        [
            keras.Input((227, 227, 3)),
            layers.Conv2D(96, 11, 4, activation="relu"),
            lrn(),
            layers.MaxPooling2D(3, 2),
            layers.Conv2D(256, 5, padding="same", groups=2, activation="relu"),
            lrn(),
            layers.MaxPooling2D(3, 2),
            layers.Conv2D(384, 3, padding="same", activation="relu"),
            layers.Conv2D(384, 3, padding="same", groups=2, activation="relu"),
            layers.Conv2D(256, 3, padding="same", groups=2, activation="relu"),
            layers.MaxPooling2D(3, 2),
            layers.Flatten(),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(4096, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(1000, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9, weight_decay=5e-4)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=False)
    return model


def ours(dtype: str) -> keras.Model:
    """Builds the same network with this package."""
    model = keras_alexnet.build(dtype=dtype)
    model.compile(
        DecayedMomentum(1e-3), "sparse_categorical_crossentropy", jit_compile=False
    )
    return model


def main() -> None:
    """Measures and reports."""
    random = np.random.default_rng(0)
    images = tf.constant(random.normal(0, 60, (BATCH_SIZE, 227, 227, 3)), tf.float32)
    labels = tf.constant(random.integers(0, 1000, BATCH_SIZE))
    models = {
        "textbook float32": textbook(),
        "keras_alexnet float32": ours("float32"),
        "keras_alexnet bfloat16": ours("mixed_bfloat16"),
    }
    candidates = {
        name: lambda model=model: model.train_on_batch(images, labels)
        for name, model in models.items()
    }
    seconds = in_turn(candidates, REPETITIONS)
    report("training_step", seconds, BATCH_SIZE, baseline="textbook float32")


if __name__ == "__main__":
    main()
