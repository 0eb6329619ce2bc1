"""The network as one writes it from the paper with Keras's own layers.

That is `Conv2D(groups=2)`, `tf.nn.local_response_normalization` and `SGD`.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_alexnet.benchmarks.models import check_model, noise, steps_of
from keras_alexnet.benchmarks.networks import (
    DROPOUT,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Network,
    weights_of,
)
from keras_alexnet.benchmarks.operations import tensorflow_lrn
from keras_alexnet.benchmarks.workers import Work


def training_step(
    network: Network, batch_size: int, expected: np.ndarray | None, xla: bool
) -> Work:
    """Makes training steps as Keras's own `fit` takes them; see `torch_peer`."""
    model = textbook(network)
    check_model(model, network, expected, "float32")
    optimizer = keras.optimizers.SGD(
        LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=xla)
    optimizer.build(model.trainable_variables)
    return steps_of(model, noise(network, batch_size), xla)


def inference(network: Network, batch_size: int, expected: np.ndarray | None) -> Work:
    """Makes forward passes by `predict_on_batch`."""
    model = textbook(network)
    check_model(model, network, expected, "float32")
    images, _ = noise(network, batch_size)
    return lambda count: [model.predict_on_batch(images) for _ in range(count)]


def textbook(network: Network) -> keras.Model:
    """Writes the network with Keras's own layers, with the weights that all have."""
    layers = keras.layers
    size = network.image_size
    model = keras.Sequential([keras.Input((size, size, 3))])
    for number, conv in enumerate(network.convolutions, 1):
        if conv.padding and conv.stride > 1:
            model.add(layers.ZeroPadding2D(conv.padding))
        model.add(
            layers.Conv2D(
                conv.filters,
                conv.kernel,
                conv.stride,
                padding="same" if conv.padding and conv.stride == 1 else "valid",
                groups=conv.groups,
                activation="relu",
                name=f"conv{number}",
            )
        )
        if number in network.normalised:
            model.add(layers.Lambda(tensorflow_lrn))
        if number in network.pooled:
            model.add(layers.MaxPooling2D(3, 2))
    model.add(layers.Flatten())
    for name in ("fc6", "fc7", "fc8"):
        if name in network.dropped:
            model.add(layers.Dropout(DROPOUT))
        units = network.classes if name == "fc8" else network.hidden
        activation = "softmax" if name == "fc8" else "relu"
        model.add(layers.Dense(units, activation=activation, name=name))
    for name, values in weights_of(network).items():
        model.get_layer(name).set_weights(values)
    return model
