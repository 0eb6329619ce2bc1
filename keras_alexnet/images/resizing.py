"""Resizing with antialiasing, of no more of an image than is needed."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Window(NamedTuple):
    """Part of an image that is resized.

    Attributes:
        start: Top and left, float32 `(2,)`, in pixels of the image, between pixels too.
        extent: Height and width, likewise.
        low: First row and first column that may have an influence, int32 `(2,)`; by
            default 0. What lies near the part but outside has one too.
        high: The row and the column after the last; by default the image's height and
            width.
    """

    start: tf.Tensor
    extent: tf.Tensor
    low: tf.Tensor | None = None
    high: tf.Tensor | None = None


def resize_window(
    image: tf.Tensor,
    window: Window,
    size: int,
    *,
    mirrored: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Resizes a part of an image, as if the whole were resized and the part cut out.

    Linear interpolation, antialiased where the image shrinks: the same numbers as
    `tf.image.resize(antialias=True)` and a crop, but for rounding. Here each direction
    is resampled as the rows of a matrix, which takes a third of the time, because
    TensorFlow's kernel is fast on long rows and slow on pixels of three channels.

    Args:
        image: `(height, width, channels)`, any real dtype, channels known.
        window: The part.
        size: Height and width of the result, in pixels.
        mirrored: Whether left and right are exchanged, a boolean.

    Returns:
        float32, `(size, size, channels)`.
    """
    channels = image.shape[-1]
    if window.high is None:
        whole = tf.shape(image)[:2]
        window = window._replace(low=tf.zeros_like(whole), high=whole)
    first, last = reach(window, size)
    scale = size / window.extent
    translation = (tf.cast(first, tf.float32) - window.start) * scale
    rows, columns = tf.unstack(last - first)
    # As a matrix, of which parts are copied row by row.
    image = tf.reshape(image, (-1, tf.shape(image)[1] * channels))
    image = tf.slice(image, first * (1, channels), (rows, columns * channels))

    image = tf.reshape(image, (1, rows, 1, columns * channels))
    image = _resample(image, scale[0], translation[0], size)
    # (size, columns * channels) -> (columns, channels * size)
    image = tf.transpose(tf.reshape(image, (size, columns * channels)))
    image = tf.reshape(image, (1, columns, 1, channels * size))
    image = _resample(image, scale[1], translation[1], size)
    # The columns are rows here, which are moved whole.
    image = _reverse(image, mirrored)
    image = tf.transpose(tf.reshape(image, (size * channels, size)))
    return tf.reshape(image, (size, size, channels))


def reach(window: Window, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """First row and column that influence a resized part, and those after the last."""
    # Height and width together: on small tensors an operation costs as much as two.
    margin = tf.maximum(window.extent / size, 1.0) + 1.0
    first = tf.cast(tf.floor(window.start - margin), tf.int32)
    last = tf.cast(tf.math.ceil(window.start + window.extent + margin), tf.int32)
    return tf.maximum(first, window.low), tf.minimum(last, window.high)


def average(
    image: tf.Tensor, size: int, mirrored: tf.Tensor | bool = False
) -> tf.Tensor:
    """Square image of averages over the areas that its new pixels cover, float32.

    Neither side of the image may be smaller than `size`.
    """
    return tf.image.resize(_reverse(image, mirrored), (size, size), "area")


def cut(
    image: tf.Tensor, start: tf.Tensor, size: int, mirrored: tf.Tensor | bool = False
) -> tf.Tensor:
    """Square, float32, cut out of an image of any real dtype."""
    part = tf.slice(image, tf.pad(start, [[0, 1]]), (size, size, image.shape[-1]))
    return tf.cast(_reverse(part, mirrored), tf.float32)


def _reverse(image: tf.Tensor, mirrored: tf.Tensor | bool) -> tf.Tensor:
    """Reverses the second axis, or does not."""
    if mirrored is False:
        return image
    # As many axes as are reversed: a condition would cost more than reversing.
    axes = tf.constant([1])[: tf.cast(mirrored, tf.int32)]
    return tf.ensure_shape(tf.reverse(image, axes), image.shape)


def _resample(
    rows: tf.Tensor, scale: tf.Tensor, translation: tf.Tensor, size: int
) -> tf.Tensor:
    """Makes `size` rows of those of `(1, rows, 1, length)`."""
    return tf.raw_ops.ScaleAndTranslate(
        images=rows,
        size=(size, 1),
        scale=tf.stack([scale, 1.0]),
        translation=tf.stack([translation, 0.0]),
        kernel_type="triangle",
        antialias=True,
    )
