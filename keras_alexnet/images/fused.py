"""A part of a photograph, decoded and resized in as few steps as it takes."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from keras_alexnet.images.decoding import decode_jpeg_part, jpeg_scale, rarely
from keras_alexnet.images.resizing import average, cut, reach, resize_window


def fused_part(
    encoded: tf.Tensor,
    place: Callable[[tf.Tensor], tuple[tf.Tensor, ...]],
    size: int,
    *,
    shorter_side: int,
    mirrored: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Decodes and resizes a part of a JPEG file.

    The file is shrunk while it is decoded as far as that goes. What is still to shrink,
    by less than half, is averaged over whole pixels of the file: antialiased too, in
    half the time of resampling between pixels. What is to grow is interpolated.

    Args:
        encoded: The bytes of a JPEG file that is not cut off, a scalar string.
        place: Of height and width of the image, int32 `(2,)`; says where the part lies:
            `start`, `extent`, `low` and `high` of `resize_window`.
        size: Height and width of the result, in pixels.
        shorter_side: How many pixels of the image must be left.
        mirrored: Whether left and right are exchanged, a boolean.

    Returns:
        float32, `(size, size, 3)`, 0-255.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are no such file.
    """
    number, shape = jpeg_scale(encoded, shorter_side)
    start, extent, low, high = place(shape)
    first = tf.cast(tf.round(start), tf.int32)
    last = tf.minimum(tf.cast(tf.round(start + extent), tf.int32), high)
    grows = tf.reduce_any(last - first < size)
    # Interpolation looks beyond the part.
    wider = reach(start, extent, size, low, high)
    first = tf.where(grows, wider[0], first)
    last = tf.where(grows, wider[1], last)
    part = decode_jpeg_part(encoded, number, first, last)

    def interpolated() -> tf.Tensor:
        begin = start - tf.cast(first, tf.float32)
        return resize_window(part, begin, extent, size, mirrored=mirrored)

    shrinks = tf.reduce_any(last - first > size)
    resized = tf.switch_case(
        tf.where(grows, 2, tf.cast(shrinks, tf.int32)),
        [
            lambda: cut(part, tf.zeros((2,), tf.int32), size, mirrored),
            lambda: average(part, size, mirrored),
            rarely(interpolated),
        ],
    )
    return tf.ensure_shape(resized, (size, size, 3))
