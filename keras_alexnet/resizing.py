"""Resizing with antialiasing, of no more of an image than is needed."""

from __future__ import annotations

import tensorflow as tf


def resize_window(
    image: tf.Tensor,
    start: tf.Tensor,
    extent: tf.Tensor,
    size: int,
    *,
    mirrored: tf.Tensor | bool = False,
    low: tf.Tensor | None = None,
    high: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resizes a part of an image, as if the whole were resized and the part cut out.

    Linear interpolation, antialiased where the image shrinks: the same numbers as
    `tf.image.resize(antialias=True)` and a crop, but for rounding. Here each direction
    is resampled as the rows of a matrix, which takes a third of the time, because
    TensorFlow's kernel is fast on long rows and slow on pixels of three channels.

    Args:
        image: `(height, width, channels)`, any real dtype, channels known.
        start: Top and left of the part, float32 `(2,)`, in pixels of the image, between
            pixels too.
        extent: Its height and width, likewise.
        size: Height and width of the result, in pixels.
        mirrored: Whether left and right are exchanged, a boolean.
        low: First row and first column that may have an influence, int32 `(2,)`; by
            default 0. What lies near the part but outside has one too.
        high: The row and the column after the last; by default the image's height and
            width.

    Returns:
        float32, `(size, size, channels)`.
    """
    # Height and width together: on small tensors an operation costs as much as two.
    channels = image.shape[-1]
    low = tf.zeros((2,), tf.int32) if low is None else low
    high = tf.shape(image)[:2] if high is None else high
    margin = tf.maximum(extent / size, 1.0) + 1.0
    first = tf.cast(tf.floor(start - margin), tf.int32)
    last = tf.cast(tf.math.ceil(start + extent + margin), tf.int32)
    first, last = tf.maximum(first, low), tf.minimum(last, high)
    scale = size / extent
    translation = (tf.cast(first, tf.float32) - start) * scale
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
    if mirrored is not False:
        # The columns are rows here, which are moved whole.
        upright = image
        image = tf.cond(mirrored, lambda: tf.reverse(upright, [1]), lambda: upright)
    image = tf.transpose(tf.reshape(image, (size * channels, size)))
    return tf.reshape(image, (size, size, channels))


def cut(
    image: tf.Tensor, start: tf.Tensor, size: int, mirrored: tf.Tensor | bool = False
) -> tf.Tensor:
    """Cuts a square out of an image.

    Args:
        image: `(height, width, channels)`, any real dtype.
        start: Top and left, int32 `(2,)`.
        size: Height and width of the square.
        mirrored: Whether left and right are exchanged, a boolean.

    Returns:
        float32, `(size, size, channels)`.
    """
    part = tf.slice(image, tf.pad(start, [[0, 1]]), (size, size, image.shape[-1]))
    if mirrored is not False:
        part = tf.cond(mirrored, lambda: tf.reverse(part, axis=[1]), lambda: part)
    return tf.cast(part, tf.float32)


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
