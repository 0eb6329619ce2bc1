"""The network that is compared, as data; ours and textbook Keras with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.precision import POLICIES

# Large steps on images of noise would end in NaN, and a step without them is as long.
LEARNING_RATE = 1e-8
MOMENTUM, WEIGHT_DECAY, DROPOUT = 0.9, 5e-4, 0.5
LRN = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0}

# Kernel and bias of each layer, in our layout: (height, width, in / groups, out) or
# (in, out).
Weights = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Convolution:
    """A convolution with ReLU.

    Attributes:
        filters: Output channels.
        kernel: Height and width of the window.
        stride: Of the window.
        padding: Zeros on each side.
        groups: Towers.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class Network:
    """What all peers build: convolutions, LRN and pooling, three dense layers.

    Normalisation follows the first two convolutions, overlapping pooling the first two
    (after normalisation) and the last.

    Attributes:
        architecture: Ours of the same form.
        convolutions: conv1 to conv5.
        hidden: Width of fc6 and fc7.
        image_size: Height and width of the images.
        classes: Width of fc8.
    """

    architecture: str
    convolutions: tuple[Convolution, ...]
    hidden: int
    image_size: int
    classes: int

    # Numbers of the convolutions that something follows.
    normalised = (1, 2)
    pooled = (1, 2, 5)


ALEXNET_2012 = Network(
    "alexnet_2012",
    (
        Convolution(96, 11, stride=4),
        Convolution(256, 5, padding=2, groups=2),
        Convolution(384, 3, padding=1),
        Convolution(384, 3, padding=1, groups=2),
        Convolution(256, 3, padding=1, groups=2),
    ),
    hidden=4096,
    image_size=227,
    classes=1000,
)
ALEXNET_MINI = Network(
    "alexnet_mini",
    (
        Convolution(32, 5, padding=2),
        Convolution(64, 5, padding=2, groups=2),
        Convolution(96, 3, padding=1),
        Convolution(96, 3, padding=1, groups=2),
        Convolution(64, 3, padding=1, groups=2),
    ),
    hidden=256,
    image_size=28,
    classes=10,
)


def network_for(quick: bool) -> Network:
    """Returns the network of the paper, or a tiny one of the same form."""
    return ALEXNET_MINI if quick else ALEXNET_2012


def images_and_labels(network: Network, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes mean-free noise, float32 `(count, size, size, 3)`, and int32 labels."""
    random = np.random.default_rng(0)
    shape = (count, network.image_size, network.image_size, 3)
    images = random.standard_normal(shape, np.float32) * np.float32(60)
    return images, random.integers(0, network.classes, count).astype(np.int32)


def ours(network: Network, precision: str = "float32") -> keras.Model:
    """Builds the network with this package, with weights that keep signals' size.

    They are the same every time, so that `weights_of` one model are those of all.

    Args:
        network: What to build.
        precision: Of the computations, such as `"bfloat16"`.
    """
    size = network.image_size
    model = keras_alexnet.build(
        network.architecture,
        input_shape=(size, size, 3),
        classes=network.classes,
        dtype=POLICIES[precision],
    )
    random = np.random.default_rng(0)
    for layer in model.layers:
        if layer.weights:
            kernel, bias = layer.weights
            deviation = np.sqrt(2 / np.prod(kernel.shape[:-1]), dtype="float32")
            # With larger logits one probability would be 1 and all others 0.
            deviation *= np.float32(0.02) if layer.name == "fc8" else 1
            kernel.assign(random.standard_normal(kernel.shape, np.float32) * deviation)
            bias.assign(random.standard_normal(bias.shape, np.float32))
    return model


def weights_of(model: keras.Model) -> Weights:
    """Returns the weights of `ours`."""
    return {x.name: tuple(x.get_weights()) for x in model.layers if x.weights}


def textbook(network: Network, weights: Weights) -> keras.Model:
    """Writes the network of the paper with Keras's own layers.

    That is `Conv2D(groups=2)` and `tf.nn.local_response_normalization`.
    """
    layers = keras.layers
    size = network.image_size
    model = keras.Sequential([keras.Input((size, size, 3))])
    for number, conv in enumerate(network.convolutions, 1):
        model.add(
            layers.Conv2D(
                conv.filters,
                conv.kernel,
                conv.stride,
                padding="same" if conv.padding else "valid",
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
    for name in ("fc6", "fc7"):
        model.add(layers.Dense(network.hidden, activation="relu", name=name))
        model.add(layers.Dropout(DROPOUT))
    model.add(layers.Dense(network.classes, activation="softmax", name="fc8"))
    for name, values in weights.items():
        model.get_layer(name).set_weights(values)
    return model


def tensorflow_lrn(x: tf.Tensor) -> tf.Tensor:
    """Normalises by TensorFlow's own operation, which has no bfloat16."""
    radius = LRN["size"] // 2
    return tf.nn.local_response_normalization(
        x, radius, LRN["k"], LRN["alpha"], LRN["beta"]
    )


def compiled_for_training(
    model: keras.Model, textbook: bool = False, jit_compile: bool = False
) -> keras.Model:
    """Compiles a model with SGD, momentum and weight decay.

    Args:
        model: It is compiled in place.
        textbook: Whether with Keras's own optimizer.
        jit_compile: Whether XLA compiles the step.
    """
    optimizer = (
        keras.optimizers.SGD(
            LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        if textbook
        else DecayedMomentum(
            LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=jit_compile)
    return model
