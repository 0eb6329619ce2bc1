"""Small images, decoded once and kept in memory."""

from __future__ import annotations

import dataclasses
import functools
import io
import math
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.data.dataset import Split
from keras_alexnet.data.pipeline import evaluation_batches
from keras_alexnet.data.pixels import Batch, Pixels
from keras_alexnet.images.decoding import luminance, pillow_pixels
from keras_alexnet.images.preprocessing import Preprocessing

# Of a split, what its decoded images may take.
MAX_BYTES = 2**28
AT_ONCE = 128
# Pixels of an image up to which a graph costs more than decoding.
SMALL = 128**2


def keep_decoded(examples: Split, preprocessing: Preprocessing) -> Split:
    """Decodes and resizes images once, and keeps them where they fit in `MAX_BYTES`.

    Measuring, training and evaluation then take whole batches from memory. Pixels are
    kept exactly: as bytes where they are whole numbers, as float32 otherwise.

    Args:
        examples: The images. Damaged ones are named.
        preprocessing: What the network expects.

    Returns:
        The images with their pixels; as they were if these are too large, or there.
    """
    side, channels = preprocessing.resize_size, preprocessing.channels
    shape = (len(examples), side, side, channels)
    if examples.decoded(preprocessing) or math.prod(shape) > MAX_BYTES:
        return examples
    images = np.zeros(shape, np.uint8)
    labels, weights = np.zeros(shape[0], np.int32), np.zeros(shape[0], np.float32)
    end = 0
    for found, label, weight in _resized(examples, preprocessing.geometry):
        if images.dtype == np.uint8 and (found != found.round()).any():
            if 4 * images.nbytes > MAX_BYTES:
                return examples
            images = images.astype(np.float32)
        begin, end = end, min(end + AT_ONCE, len(examples))
        for whole, part in ((images, found), (labels, label), (weights, weight)):
            whole[begin:end] = part[: end - begin]

    def take(indices: np.ndarray) -> Batch:
        return images[indices], labels[indices], weights[indices]

    kept = Pixels(side, channels, take, images.dtype.type, preprocessing.geometry)
    return dataclasses.replace(examples, pixels=kept)


def _resized(examples: Split, geometry: Preprocessing) -> Iterator[Batch]:
    """Yields all images, resized, in batches of `AT_ONCE`.

    A graph that decodes whatever there is takes a second to start. Where everything is
    small and of the usual kinds, Pillow, which gives the same pixels, takes less.
    """
    load = tf.function(
        lambda indices: tf.map_fn(
            examples.load, indices, fn_output_signature=(tf.string, tf.int32)
        ),
        input_signature=[tf.TensorSpec((None,), tf.int64)],
        autograph=False,
    )
    resize = _traced_resize(geometry)
    shape = (geometry.resize_size, geometry.resize_size, geometry.channels)
    for begin in range(0, len(examples), AT_ONCE):
        indices = np.arange(begin, min(begin + AT_ONCE, len(examples)))
        try:
            files, labels = load(indices)
            found = [_small(file) for file in files.numpy()]
        except (tf.errors.OpError, OSError, SyntaxError, ValueError):
            # Large, rare or damaged, which the reader for all kinds tells.
            rest = examples.select(np.arange(begin, len(examples)))
            rest = evaluation_batches(rest, geometry, AT_ONCE, whole=True)
            yield from rest.as_numpy_iterator()
            return
        sizes = [image.shape for image in found]
        images = np.zeros((len(found), *shape), np.float32)
        for size in set(sizes):
            same = [number for number, own in enumerate(sizes) if own == size]
            images[same] = resize(np.stack([found[number] for number in same]))
        yield images, labels.numpy(), np.ones(len(found), np.float32)


def _small(encoded: bytes) -> np.ndarray:
    """Decodes a JPEG or PNG file of few pixels, uint8 `(height, width, 3)`.

    Raises:
        OSError: It is no such file, or damaged; other exceptions are Pillow's.
        ValueError: It has more than `SMALL` pixels.
    """
    with Image.open(io.BytesIO(encoded), formats=("JPEG", "PNG")) as image:
        if math.prod(image.size) > SMALL:
            raise ValueError(f"The image is large: {image.size}")
        return pillow_pixels(image)


@functools.cache
def _traced_resize(geometry: Preprocessing) -> Callable[[np.ndarray], tf.Tensor]:
    """Returns what resizes decoded images of one size, traced once for all splits."""

    def resize(images: tf.Tensor) -> tf.Tensor:
        if geometry.channels == 1:
            images = luminance(images)
        return tf.map_fn(geometry.resize, images, fn_output_signature=tf.float32)

    return tf.function(
        resize,
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)],
        autograph=False,
    )
