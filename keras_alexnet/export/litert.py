"""LiteRT (TensorFlow Lite) export: float32, float16 and int8, in built-in operations.

Layers whose TensorFlow form a phone's accelerators do not take, or of which nothing
would be left in 8 bits, are replaced by others that compute the same.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.export.artefact import TOP, Format
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.layers import (
    LocalResponseNormalization,
    OverlappingMaxPooling2D,
    SpatialResponseNormalization,
)
from keras_alexnet.layers.lrn_implementations import inverse_power
from keras_alexnet.model import AlexNet
from keras_alexnet.processor import cores
from keras_alexnet.startup import silent_stderr

FILE = "model.tflite"


class _BandNormalization(LocalResponseNormalization):
    """LRN whose sum over channels is a 1 x 1 convolution with a band of alphas.

    Its 32-bit accumulator adds up the squares of 8-bit activations and k; the sum of
    shifted copies would round after each.
    """

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        channels = inputs.shape[-1]
        tower = np.arange(channels) * self.groups // channels
        # From channel j (rows) to the window of channel c (columns).
        offset = np.arange(channels)[:, None] - np.arange(channels)
        band = (offset >= -(self.size // 2)) & (offset <= (self.size - 1) // 2)
        band &= tower[:, None] == tower
        alpha = self.alpha / self.size if self.alpha_over_size else self.alpha
        kernel = (alpha * band).astype(np.float32)[None, None]
        energy = tf.nn.conv2d(inputs * inputs, kernel, 1, "VALID")
        energy = tf.nn.bias_add(energy, tf.fill([channels], np.float32(self.k)))
        return inputs * _inverse_power(energy, self)


class _SpatialNormalization(SpatialResponseNormalization):
    """The normalisation over pixels, its power in operations that have 8-bit forms."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        border = (self.size // 2, (self.size - 1) // 2)
        squares = tf.pad(inputs * inputs, ((0, 0), border, border, (0, 0)))
        mean = tf.nn.avg_pool2d(squares, self.size, 1, "VALID")
        return inputs * _inverse_power(self.k + self.alpha * mean, self)


class _Pooling(OverlappingMaxPooling2D):
    """Max pooling that keeps incomplete windows without padding by infinity."""

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        missing = self._borders(inputs.shape)[1:3]
        if self.rounding == "floor" or missing not in ([(0, 0)] * 2, [(0, 1)] * 2):
            return super().call(inputs)
        # "SAME" has no padding in front then, and one pixel behind.
        padding = "SAME" if missing[0] == (0, 1) else "VALID"
        return tf.nn.max_pool2d(inputs, self.pool_size, self.strides, padding)


class _Flatten(keras.layers.Flatten):
    """Flattening to a known length, without computing shapes."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return tf.reshape(inputs, (-1, int(np.prod(inputs.shape[1:]))))


_REPLACED = {
    LocalResponseNormalization: _BandNormalization,
    SpatialResponseNormalization: _SpatialNormalization,
    OverlappingMaxPooling2D: _Pooling,
    keras.layers.Flatten: _Flatten,
}


def _inverse_power(base: tf.Tensor, layer: keras.Layer) -> tf.Tensor:
    """Computes base^-beta, as fast and exact as the precision allows."""
    if layer.in_8_bits:
        # Tables of 256 entries; inverse roots would be computed one by one, and take
        # 50 times as long as all the rest.
        return tf.exp(-layer.beta * tf.math.log(base))
    return inverse_power(base, layer.beta)


def _delegable(model: AlexNet, in_8_bits: bool) -> keras.Model:
    """Returns a copy of a model with the layers above in place of their bases."""

    def replaced(layer: keras.Layer) -> keras.Layer:
        kind = _REPLACED.get(type(layer), type(layer))
        copy = kind.from_config(layer.get_config())
        copy.in_8_bits = in_8_bits
        return copy

    copy = keras.models.clone_model(model, clone_function=replaced)
    copy.set_weights(model.get_weights())
    return copy


def _write(
    model: AlexNet, folder: Path, precision: str, calibration: Sequence[Example]
) -> None:
    preprocessing = model.metadata.preprocessing
    network = _delegable(model, in_8_bits=precision == "int8")

    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        probabilities = network(preprocessing.normalize(images), training=False)
        top = min(TOP, probabilities.shape[-1])
        best, classes = tf.math.top_k(probabilities, top)
        return {
            "probabilities": probabilities,
            "top_probabilities": best,
            "top_classes": classes,
        }

    size = preprocessing.image_size
    # An integer network's input is quantised by the converter: pixels are the integers.
    dtype = tf.float32 if precision == "int8" else tf.uint8
    shape = (None, size, size, preprocessing.channels)
    holder = tf.Module()
    holder.serve = tf.function(serve, autograph=False)
    concrete = holder.serve.get_concrete_function(tf.TensorSpec(shape, dtype, "images"))
    # What is not tracked would be frozen, and the signature lost with it.
    holder.captured = concrete.variables
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.representative_dataset = lambda: (
            [np.round(example.prepared)[None]] for example in calibration
        )
    with contextlib.redirect_stdout(None), silent_stderr():
        (folder / FILE).write_bytes(converter.convert())


def open_litert(folder: Path) -> Run:
    """Returns a function that runs `model.tflite` in TensorFlow's interpreter."""
    with warnings.catch_warnings(), silent_stderr():
        # That it has moved to a package of its own, which need not be installed.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(str(folder / FILE), num_threads=cores())
        interpreter.allocate_tensors()
    serve = interpreter.get_signature_runner()
    return lambda pixels: serve(images=pixels)["probabilities"]


FORMAT = Format(
    f"`{FILE}` takes `images`, uint8 RGB pixels as large as the network's input, "
    "`(batch, height, width, channels)`, and normalises them itself. It returns "
    "`probabilities`, `(batch, classes)`, and the five likeliest classes: "
    "`top_probabilities` and `top_classes`. All operations are built in.",
    ("float32", "float16", "int8"),
    False,
    _write,
    open_litert,
)
