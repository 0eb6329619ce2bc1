"""Jitter of colours, by Keras's own layers and numbers that are drawn outside them."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

# Largest change of brightness, as a share of white, and of contrast and saturation, as
# a factor either way.
BRIGHTNESS = 0.2
CONTRAST = 0.4
SATURATION = 0.4


@functools.cache
def _layers() -> tuple[keras.layers.Layer, ...]:
    # They make variables for random numbers of their own, which nothing uses here.
    with tf.init_scope():
        scale = {"value_range": (0, 1), "data_format": "channels_last"}
        return (
            keras.layers.RandomBrightness(BRIGHTNESS, **scale),
            keras.layers.RandomContrast(CONTRAST, **scale),
            keras.layers.RandomSaturation((0.3, 0.7), **scale),
        )


def jitter(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Images, 0-255, of other brightness, then contrast, then, of colours, saturation.

    By at least three uniform numbers for each.
    """
    brightness, contrast, saturation = _layers()
    # From -1 to 1, one for each image.
    draws = 2 * draws[:, :, None, None, None] - 1
    # Saturation has no unit of its own: the layer works on a scale of 0 to 1.
    images = brightness.transform_images(
        images / 255, {"rgb_delta": BRIGHTNESS * draws[:, 0]}
    )
    images = contrast.transform_images(
        images, {"contrast_factor": 1 + CONTRAST * draws[:, 1]}
    )
    if images.shape[-1] == 3:
        factor = 1 + SATURATION * draws[:, 2, 0, 0, 0]
        images = saturation.transform_images(images, {"factor": factor})
    return images * 255
