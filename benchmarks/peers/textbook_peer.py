"""The network as one writes it from the paper with Keras's own layers.

That is `Conv2D(groups=2)`, `tf.nn.local_response_normalization` and `SGD`.
"""

from __future__ import annotations

import keras
import numpy as np

from keras_alexnet.benchmarks.comparison import Work
from keras_alexnet.benchmarks.models import check_model, noise, steps_of
from keras_alexnet.benchmarks.networks import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Network,
    weights_of,
)
from keras_alexnet.benchmarks.operations import tensorflow_lrn


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
    for role, name, options in network.layers:
        if role == "conv":
            padding, stride = options["padding"], options["strides"]
            if padding and stride > 1:
                model.add(layers.ZeroPadding2D(padding))
            same = "same" if padding and stride == 1 else "valid"
            arguments = {"padding": same, "groups": options["groups"], "name": name}
            window = options["kernel_size"], stride
            model.add(layers.Conv2D(options["filters"], *window, **arguments))
        elif role == "activation":
            model.add(layers.ReLU())
        elif role == "norm":
            model.add(layers.Lambda(tensorflow_lrn))
        elif role == "pool":
            model.add(layers.MaxPooling2D(options["pool_size"], options["strides"]))
        elif role == "flatten":
            model.add(layers.Flatten())
        elif role == "dropout":
            model.add(layers.Dropout(options["rate"]))
        elif role == "dense":
            model.add(layers.Dense(options["units"], name=name))
    model.add(layers.Softmax())
    for name, values in weights_of(network).items():
        model.get_layer(name).set_weights(values)
    return model
