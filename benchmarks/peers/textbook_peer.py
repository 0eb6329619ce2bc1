"""The network as one writes it from the paper with Keras's own layers, or in ONNX.

That is `Conv2D(groups=2)`, `tf.nn.local_response_normalization` and `SGD`.
"""

from __future__ import annotations

import keras
import numpy as np

import keras_alexnet
from keras_alexnet.architectures import get_architecture
from keras_alexnet.benchmarks.comparison import Work
from keras_alexnet.benchmarks.models import (
    check_model,
    noise,
    ours,
    steps_of,
    with_weights,
)
from keras_alexnet.benchmarks.networks import (
    LEARNING_RATE,
    MEAN,
    MOMENTUM,
    WEIGHT_DECAY,
)
from keras_alexnet.benchmarks.operations import tensorflow_lrn
from keras_alexnet.images.preprocessing import Preprocessing


def training_step(
    network: str, batch_size: int, expected: np.ndarray | None, xla: bool
) -> Work:
    """Makes training steps as Keras's own `fit` takes them; see `torch_peer`."""
    model = textbook(network)
    check_model(model, expected, "float32")
    optimizer = keras.optimizers.SGD(
        LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=xla)
    optimizer.build(model.trainable_variables)
    return steps_of(model, noise(network, batch_size), xla)


def inference(network: str, batch_size: int, expected: np.ndarray | None) -> Work:
    """Makes forward passes by `predict_on_batch`."""
    model = textbook(network)
    check_model(model, expected, "float32")
    images, _ = noise(network, batch_size)
    return lambda count: [model.predict_on_batch(images) for _ in range(count)]


def textbook(network: str) -> keras.Model:
    """Builds the network with Keras's own layers, with the weights that all have."""

    def norm(name: str, dtype: keras.DTypePolicy) -> keras.Layer:
        return keras.layers.Lambda(tensorflow_lrn, name=name, dtype=dtype)

    specs = get_architecture(network).features
    normalises = any(spec.role == "norm" and spec.layer for spec in specs)
    built = keras_alexnet.build(
        network,
        conv=keras.layers.Conv2D,
        norm=norm if normalises else "default",
        pool=keras.layers.MaxPooling2D,
        dropout=keras.layers.Dropout,
    )
    return with_weights(keras.Model(built.input, built.output, name=network))


def onnx_graph(network: str) -> bytes:
    """Writes the network in ONNX's own operations; it takes bytes, channels last."""
    from keras_alexnet.export.onnx import onnx_model  # Where onnx is installed.

    model = ours(network)
    size = model.input_shape[1]
    centred = Preprocessing(size, size, 3, (float(MEAN),) * 3, scale=1.0)
    return onnx_model(model, centred, any_size=False).SerializeToString()
