"""A part of a photograph, decoded and resized in as few steps as it takes."""

from __future__ import annotations

import tensorflow as tf

from keras_alexnet.images.decoding import decode_jpeg_part
from keras_alexnet.images.limits import rarely
from keras_alexnet.images.resizing import Window, average, cut, reach, resize_window


def fused_part(
    encoded: tf.Tensor,
    number: tf.Tensor,
    window: Window,
    size: int,
    *,
    mirrored: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Square part of a JPEG file that is not cut off, float32, 0-255.

    The file is shrunk while it is decoded as far as that goes (`number`, from
    `jpeg_scale`; the window is in what is left). What is still to shrink, by less than
    half, is averaged over whole pixels of the file: antialiased too, in half the time
    of resampling between pixels. What is to grow is interpolated.
    """
    start, extent = window.start, window.extent
    first = tf.cast(tf.round(start), tf.int32)
    last = tf.minimum(tf.cast(tf.round(start + extent), tf.int32), window.high)
    grows = tf.reduce_any(last - first < size)
    # Interpolation looks beyond the part.
    wider = reach(window, size)
    first = tf.where(grows, wider[0], first)
    last = tf.where(grows, wider[1], last)
    part = decode_jpeg_part(encoded, number, first, last)

    def interpolated() -> tf.Tensor:
        inside = Window(start - tf.cast(first, tf.float32), extent)
        return resize_window(part, inside, size, mirrored=mirrored)

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
