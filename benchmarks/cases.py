"""Where the network's operations stand, and which implementations there are of each."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

from keras_alexnet.benchmarks.networks import LRN, tensorflow_lrn
from keras_alexnet.benchmarks.operations import Case
from keras_alexnet.layers import grouped_conv, lrn_implementations
from keras_alexnet.layers.lrn import local_response_normalization


def lrn_cases(quick: bool) -> list[Case]:
    """Lists both normalisations of alexnet_2012, after their ReLU."""
    shapes = {"norm1": (55, 55, 96), "norm2": (27, 27, 256)}
    if quick:
        shapes = {"norm1": (3, 3, 8)}

    def native(x: tf.Tensor) -> tf.Tensor:
        # It has no bfloat16.
        return tf.cast(tensorflow_lrn(tf.cast(x, tf.float32)), x.dtype)

    implementations = {
        name: functools.partial(
            local_response_normalization, **LRN, implementation=name
        )
        for name in lrn_implementations.IMPLEMENTATIONS
    }
    peers = {"tf.nn": native}
    return [
        Case(f"{name} {shape}", shape, implementations, peers)
        for name, shape in shapes.items()
    ]


def grouped_conv_cases(quick: bool) -> list[Case]:
    """Lists the convolutions of alexnet_2012 that have two towers."""
    layers = {
        "conv2": ((27, 27, 96), (5, 5, 48, 256)),
        "conv4": ((13, 13, 384), (3, 3, 192, 384)),
        "conv5": ((13, 13, 384), (3, 3, 192, 256)),
    }
    if quick:
        layers = {"conv2": ((4, 4, 8), (3, 3, 4, 8))}

    def usual(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return keras.ops.conv(x, kernel, padding="same", data_format="channels_last")

    implementations = {
        name: functools.partial(
            grouped_conv.grouped_convolution,
            groups=2,
            strides=1,
            padding="SAME",
            implementation=name,
        )
        for name in grouped_conv.IMPLEMENTATIONS
    }
    return [
        Case(f"{name} {shape}", shape, implementations, {"keras.ops": usual}, kernel)
        for name, (shape, kernel) in layers.items()
    ]


def first_conv_cases(quick: bool) -> list[Case]:
    """Lists conv1 of alexnet_2012: 3 channels, windows of 11, steps of 4."""

    def plain(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        return tf.nn.conv2d(x, kernel, 4, "VALID")

    def blocks(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        # A block of 4 x 4 pixels becomes one of 48 channels, the window 3 x 3 of them.
        rest = -x.shape[1] % 4
        padded = tf.pad(x, ((0, 0), (0, rest), (0, rest), (0, 0)))
        filters = kernel.shape[-1]
        wide = tf.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
        wide = tf.reshape(wide, (3, 4, 3, 4, 3, filters))
        wide = tf.transpose(wide, (0, 2, 1, 3, 4, 5))
        wide = tf.reshape(wide, (3, 3, 48, filters))
        return tf.nn.conv2d(tf.nn.space_to_depth(padded, 4), wide, 1, "VALID")

    def patches(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        window, step = (1, 11, 11, 1), (1, 4, 4, 1)
        columns = tf.image.extract_patches(x, window, step, (1, 1, 1, 1), "VALID")
        return tf.matmul(columns, tf.reshape(kernel, (363, kernel.shape[-1])))

    size, filters = (19, 4) if quick else (227, 96)
    case = Case(
        f"conv1 {(size, size, 3)}",
        (size, size, 3),
        {},
        {
            "tf.nn": plain,
            "space to depth": blocks,
            "patches, then a product": patches,
        },
        (11, 11, 3, filters),
        first=True,
    )
    return [case]


def max_pool_cases(quick: bool) -> list[Case]:
    """Lists the three poolings of alexnet_2012, 3 x 3 windows that overlap by one."""
    shapes = {"pool1": (55, 55, 96), "pool2": (27, 27, 256), "pool5": (13, 13, 256)}
    if quick:
        shapes = {"pool1": (7, 7, 8)}

    def plain(x: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(x, 3, 2, "VALID")

    def by_axis(x: tf.Tensor) -> tf.Tensor:
        rows = tf.nn.max_pool2d(x, (3, 1), (2, 1), "VALID")
        return tf.nn.max_pool2d(rows, (1, 3), (1, 2), "VALID")

    peers = {
        "tf.nn": plain,
        "one axis, then the other": by_axis,
        "XLA": tf.function(plain, jit_compile=True, autograph=False),
    }
    return [Case(f"{name} {shape}", shape, {}, peers) for name, shape in shapes.items()]
