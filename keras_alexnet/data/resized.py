"""Images in memory: the splits of a small dataset, decoded and resized once."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_alexnet.data.attempts import read_or_skip
from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.images.preprocessing import Preprocessing

# A split that takes more is read from its files in every epoch.
MAX_BYTES = 2**29


@dataclasses.dataclass(frozen=True)
class Resized:
    """Images of a split, in order.

    Attributes:
        pixels: What `Preprocessing.resize` returns of each, `(count, resize_size,
            resize_size, channels)`: uint8 where all numbers are whole, else float32.
            Damaged images are black.
        labels: int32, `(count,)`.
        usable: float32, `(count,)`: 0 for damaged images, 1 for others.
    """

    pixels: tf.Tensor
    labels: tf.Tensor
    usable: tf.Tensor


class ResizedSplits:
    """Splits of a dataset in memory, each read when it is first asked for.

    Args:
        dataset: The images.
        max_bytes: Size up to which a split is kept in memory. Nothing but this and the
            images decides, so that a resumed run finds the same.
    """

    def __init__(self, dataset: Dataset, max_bytes: int = MAX_BYTES):
        self._dataset, self._max_bytes = dataset, max_bytes
        self._known: dict[tuple, Resized | None] = {}

    def get(self, split: str, preprocessing: Preprocessing) -> Resized | None:
        """Returns a split, or None where it is too large.

        Args:
            split: A key of the dataset's `splits`.
            preprocessing: How images are decoded and resized.
        """
        names = "image_size", "resize_size", "resize_rule", "channels", "fused_decode"
        key = split, *(getattr(preprocessing, name) for name in names)
        if key not in self._known:
            images = self._dataset.splits[split]
            self._known[key] = load_resized(images, preprocessing, self._max_bytes)
        return self._known[key]


def load_resized(
    examples: Split, preprocessing: Preprocessing, max_bytes: int = MAX_BYTES
) -> Resized | None:
    """Decodes and resizes the images of a split, unless they take too much memory.

    Args:
        examples: The images. Damaged ones are named.
        preprocessing: How they are decoded and resized.
        max_bytes: Size up to which they are kept.

    Returns:
        The images, or None where they are larger.
    """
    side, channels = preprocessing.resize_size, preprocessing.channels
    shape = (len(examples), side, side, channels)
    if math.prod(shape) > max_bytes:
        return None
    pixels = np.zeros(shape, np.uint8)
    labels, usable = np.zeros(shape[0], np.int32), np.zeros(shape[0], np.float32)

    def example(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        encoded, label = examples.load(number)
        image = preprocessing.resize(preprocessing.decode(encoded))
        return image, label, tf.constant(1.0)

    blank = (np.zeros(shape[1:], np.float32), np.int32(0), np.float32(0))
    batches = read_or_skip(examples.items().batch(256), example, examples, blank)
    begin = 0
    for images, *rest in batches.as_numpy_iterator():
        if pixels.dtype == np.uint8 and (images != np.rint(images)).any():
            if 4 * pixels.nbytes > max_bytes:
                return None
            pixels = pixels.astype(np.float32)
        part = slice(begin, begin := begin + len(images))
        pixels[part] = images
        labels[part], usable[part] = rest
    with tf.device("CPU:0"):
        return Resized(*map(tf.constant, (pixels, labels, usable)))
