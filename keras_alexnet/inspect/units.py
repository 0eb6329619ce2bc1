"""Units: receptive fields, what excites each, selectivity by class; the two towers.

A unit is a channel of a layer, or one of the numbers of a layer without feature maps.
"""

from __future__ import annotations

import dataclasses
import heapq
import re
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.errors import UserError, unknown
from keras_alexnet.features import feature_extractor
from keras_alexnet.layers import (
    NonOverlappingMaxPooling2D,
    SpatialResponseNormalization,
)
from keras_alexnet.model import AlexNet

# Of each position along an axis: the first row of the image that it sees, and the one
# after the last; int64 `(positions, 2)`.
Fields = np.ndarray


def receptive_fields(model: keras.Model, layer: str) -> tuple[Fields, Fields]:
    """Returns which rows and columns of the image each place of a layer sees.

    Exact at the edges too, where a window reaches into the padding. Layers without
    windows are taken to work on each place alone where height and width stay, and to
    see everything where they do not.

    Args:
        model: A functional model for images of a known size.
        layer: The layer's name.

    Returns:
        For rows and for columns, int64 `(positions, 2)`: the first and the one after
        the last. Of a layer without feature maps one position, the whole image.

    Raises:
        ValueError: There is no such layer.
    """
    known = {id(model.inputs[0]): [_each(size) for size in _size(model.inputs[0])]}
    for one in model.layers:
        if isinstance(one, keras.layers.InputLayer):
            continue
        before = [known[id(tensor)] for tensor in tf.nest.flatten(one.input)]
        fields = []
        for axis, after in enumerate(_size(one.output) or (1, 1)):
            # Of several inputs the union.
            parts = [_through(one, axis, fs[axis], after) for fs in before]
            first = np.min([part[:, 0] for part in parts], axis=0)
            last = np.max([part[:, 1] for part in parts], axis=0)
            fields.append(np.stack([first, last], axis=1))
        known[id(one.output)] = fields
        if one.name == layer:
            return tuple(fields)
    raise UserError(unknown(layer, "layer", [one.name for one in model.layers[1:]]))


def _size(tensor: keras.KerasTensor) -> tuple[int, ...]:
    """Returns height and width of feature maps; nothing of others."""
    if len(tensor.shape) != 4:
        return ()
    last = keras.config.image_data_format() == "channels_last"
    return tuple(tensor.shape[1:3] if last else tensor.shape[2:])


def _each(count: int) -> Fields:
    return np.stack([np.arange(count), np.arange(count) + 1], axis=1)


def _through(
    layer: keras.layers.Layer, axis: int, fields: Fields, after: int
) -> Fields:
    """Returns the fields behind a layer along an axis, from those before it."""
    places, count = np.arange(after), len(fields)
    window = getattr(layer, "kernel_size", getattr(layer, "pool_size", None))
    if isinstance(layer, NonOverlappingMaxPooling2D):
        window = layer.strides
    if isinstance(layer, keras.layers.ZeroPadding2D):
        first = places - layer.padding[axis][0]
        last = first + 1
        # A place of zeros alone sees nothing: it has an empty field.
        inside = (first >= 0) & (first < count)
        first, last = np.where(inside, first, 0), np.where(inside, last, 0)
        found = np.stack([fields[first, 0], fields[last - 1, 1]], axis=1)
        found[~inside] = np.iinfo(np.int64).max, -1
        return found
    if isinstance(window, (tuple, list)) and len(window) == 2:
        stride = layer.strides[axis]
        reach = (window[axis] - 1) * getattr(layer, "dilation_rate", (1, 1))[axis] + 1
        first = places * stride
        if layer.padding == "same":
            first = first - max((after - 1) * stride + reach - count, 0) // 2
        last = first + reach
    elif isinstance(size := getattr(layer, "output_size", None), tuple):
        first = places * count // size[axis]
        last = -(-(places + 1) * count // size[axis])
    elif isinstance(layer, SpatialResponseNormalization):
        first = places - layer.size // 2
        last = first + layer.size
    elif after == count:
        return fields
    else:
        first, last = 0 * places, 0 * places + count
    first, last = np.clip(first, 0, count - 1), np.clip(last, 1, count)
    lows = [fields[a:b, 0].min() for a, b in zip(first, last, strict=True)]
    highs = [fields[a:b, 1].max() for a, b in zip(first, last, strict=True)]
    return np.stack([lows, highs], axis=1)


def parse_units(text: str, model: keras.Model) -> tuple[str, range]:
    """Reads `conv3:0-15`, or `fc7:3`: a layer and some of its units.

    Raises:
        ValueError: It is something else, or there is no such layer or unit.
    """
    found = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", text)
    if found is None:
        raise UserError(f"Units are written as conv3:0-15 or fc7:3. Received: {text}")
    name, first, last = found[1], int(found[2]), int(found[3] or found[2])
    layers = {layer.name: layer for layer in model.layers[1:]}
    if name not in layers:
        raise UserError(unknown(name, "layer", layers))
    count = layers[name].output.shape[_channels(layers[name].output)]
    if not first <= last < count:
        raise UserError(
            f"Units of {name} are from 0 to {count - 1}, the first one before the "
            f"last. Received: {text}"
        )
    return name, range(first, last + 1)


def _channels(tensor: keras.KerasTensor) -> int:
    """Returns the axis of the units."""
    last = keras.config.image_data_format() == "channels_last"
    return 1 if len(tensor.shape) == 4 and not last else -1


@dataclasses.dataclass(frozen=True, order=True)
class Patch:
    """Where a unit is excited.

    Attributes:
        value: The unit's largest output in the image.
        image: The image's number; negative, so that of equals the first is largest.
        row: Place in the feature maps.
        column: Likewise.
    """

    value: float
    image: int
    row: int
    column: int


class Excitation:
    """What excites some units of a layer, from images that come in batches.

    Args:
        model: A functional model.
        layer: The layer's name.
        units: Which of its units.
        classes: Number of classes.
        top: How many patches to keep of each unit, one of each image.
    """

    def __init__(
        self,
        model: keras.Model,
        layer: str,
        units: Sequence[int],
        classes: int = 0,
        top: int = 9,
    ):
        network = feature_extractor(model, [layer])
        channels = _channels(model.get_layer(layer).output)
        is_map = len(model.get_layer(layer).output.shape) == 4

        def watch(x: tf.Tensor) -> tuple[tf.Tensor, ...]:
            maps = tf.cast(network(x, training=False)[layer], tf.float32)
            maps = tf.gather(maps, tf.constant(list(units)), axis=channels)
            if is_map and channels == 1:
                maps = tf.transpose(maps, (0, 2, 3, 1))
            columns = tf.shape(maps)[2] if is_map else 1
            flat = tf.reshape(maps, (tf.shape(maps)[0], -1, len(units)))
            where = tf.argmax(flat, axis=1, output_type=tf.int32)
            mean = tf.reduce_mean(tf.nn.relu(flat), axis=1)
            return tf.reduce_max(flat, axis=1), where // columns, where % columns, mean

        self._watch = tf.function(watch, autograph=False, reduce_retracing=True)
        self._top, self._images = top, 0
        self._patches: list[list[Patch]] = [[] for _ in units]
        self._sums, self._counts = np.zeros((classes, len(units))), np.zeros(classes)

    def add(self, x: np.ndarray, labels: Sequence[int] = ()) -> None:
        """Looks at a batch.

        Args:
            x: The network's input.
            labels: Classes of the images, where there are any.
        """
        *found, means = (one.numpy() for one in self._watch(tf.constant(x)))
        for number in range(len(x)):
            for unit, kept in enumerate(self._patches):
                value, row, column = (one[number, unit].item() for one in found)
                patch = Patch(value, -self._images, row, column)
                if len(kept) < self._top:
                    heapq.heappush(kept, patch)
                else:
                    heapq.heappushpop(kept, patch)
            self._images += 1
        np.add.at(self._sums, np.asarray(labels, int), means[: len(labels)])
        np.add.at(self._counts, np.asarray(labels, int), 1)

    def patches(self) -> list[list[Patch]]:
        """Returns for each unit where it is excited most, the strongest first.

        The images are numbered from 0.
        """
        return [
            [dataclasses.replace(one, image=-one.image) for one in sorted(p)[::-1]]
            for p in self._patches
        ]

    def selectivity(self) -> list[tuple[int, float]]:
        """Returns for each unit the class that excites it most, and how selectively.

        With m the largest mean over the images of a class, and n the mean of the other
        classes' means: `(m - n) / (m + n)`, from 0 to 1; of outputs above 0 only, the
        mean over the feature map of each image (Morcos et al. 2018,
        https://arxiv.org/abs/1803.06959). NaN where a unit is never excited, or there
        are not two classes.
        """
        there = np.flatnonzero(self._counts)
        means = self._sums[there] / self._counts[there, None]
        result = []
        for unit in means.T:
            best = int(unit.argmax()) if len(unit) else 0
            others = np.delete(unit, best)
            if not len(others) or unit[best] + others.mean() == 0:
                result.append((int(there[best]) if len(there) else 0, float("nan")))
                continue
            rest = others.mean()
            value = (unit[best] - rest) / (unit[best] + rest)
            result.append((int(there[best]), float(value)))
        return result


# === Images made for units ===


def activation_maximization(
    model: AlexNet,
    layer: str,
    units: Sequence[int],
    *,
    steps: int = 256,
    step: float = 4.0,
    total_variation: float = 0.25,
    decay: float = 0.05,
    jitter: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Returns an image for each unit that excites it, by gradient ascent from noise.

    Activation maximisation (Erhan et al. 2009; Simonyan et al. 2013,
    https://arxiv.org/abs/1312.6034, with their L2 penalty), with the total variation
    of Mahendran and Vedaldi 2014 (https://arxiv.org/abs/1412.0035) and random shifts.
    The gradient is brought to a root mean square of 1, so that the penalties mean the
    same for all units.

    Args:
        model: Knows its preprocessing.
        layer: The layer's name. A channel of feature maps is their mean.
        units: Which of its units.
        steps: Steps of ascent.
        step: Their length, in grey levels.
        total_variation: Weight of the penalty on differences between neighbours.
        decay: Weight of the penalty on what is far from grey.
        jitter: Largest shift, in pixels; a sixteenth of the image by default.
        seed: Decides noise and shifts.

    Returns:
        float32 pixels, 0-255, `(units, height, width, channels)`.

    Raises:
        ValueError: There is no such layer, or the model lacks its preprocessing.
    """
    preprocessing = model.known_preprocessing
    network = feature_extractor(model, [layer])
    channels = _channels(model.get_layer(layer).output)
    size = preprocessing.image_size
    reach = size // 16 if jitter is None else jitter
    shape = (len(units), size, size, preprocessing.channels)
    # Each image is for its own unit.
    own = tf.one_hot(list(units), model.get_layer(layer).output.shape[channels])

    def uphill(pixels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            outputs = network(model.network_input(pixels), training=False)[layer]
            outputs = tf.cast(outputs, tf.float32)
            if len(outputs.shape) == 4:
                outputs = tf.reduce_mean(outputs, (1, 2) if channels == -1 else (2, 3))
            value = tf.reduce_sum(outputs * own)
        gradient = tape.gradient(value, pixels)
        mean_square = tf.reduce_mean(gradient**2, axis=(1, 2, 3), keepdims=True)
        return gradient / tf.sqrt(mean_square + 1e-24)

    def penalty(pixels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            value = total_variation * tf.reduce_sum(tf.image.total_variation(pixels))
            value += decay * tf.reduce_sum((pixels - 128) ** 2) / 256
        return tape.gradient(value, pixels)

    @tf.function(autograph=False)
    def move(pixels: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        shift = tf.random.stateless_uniform(
            (2,), (seed, number), -reach, reach + 1, tf.int32
        )
        pixels = tf.roll(pixels, shift, (1, 2))
        pixels += step * (uphill(pixels) - penalty(pixels))
        return tf.clip_by_value(tf.roll(pixels, -shift, (1, 2)), 0, 255)

    pixels = tf.random.stateless_normal(shape, (seed, -1), 128, 8)
    for number in tf.range(steps):
        pixels = move(pixels, number)
    return pixels.numpy()


# === Towers ===


def color_fractions(kernel: np.ndarray) -> np.ndarray:
    """Returns how much of each filter of a first layer is colour.

    The part of its energy outside the grey axis: 0 for a filter that looks at
    brightness alone, 1 for one that looks at hue alone.

    Args:
        kernel: `(height, width, 3, filters)`.
    """
    kernel = np.asarray(kernel, np.float64)
    grey = kernel.mean(axis=2, keepdims=True)
    energy = (kernel**2).sum(axis=(0, 1, 2))
    return ((kernel - grey) ** 2).sum(axis=(0, 1, 2)) / np.maximum(energy, 1e-30)


def towers(model: keras.Model) -> list[np.ndarray]:
    """Returns the filters of the first convolution, those of each tower together.

    The paper's figure 3: its towers became "largely color-agnostic" and "largely
    color-specific". The towers are the groups of the next convolution that has any.

    Returns:
        Kernels of colour images, `(height, width, 3, filters)`; one where there are no
        towers.

    Raises:
        ValueError: The network has no convolution, or takes grey images.
    """
    layers = [x for x in model.layers if hasattr(x, "kernel") and hasattr(x, "groups")]
    if not layers or layers[0].kernel.shape[2] != 3:
        raise UserError(f"{model.name} has no convolution of colour images.")
    count = max(layer.groups for layer in layers)
    kernel = keras.ops.convert_to_numpy(layers[0].kernel)
    return np.split(kernel, count, axis=3)
