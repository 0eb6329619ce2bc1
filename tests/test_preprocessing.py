"""From an image file to a network's input, against PIL and NumPy."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_alexnet.images.preprocessing import Preprocessing


def preprocessing(size=8, resize=10, channels=3, mean=None, scale=1.0):
    mean = (0.0,) * channels if mean is None else mean
    return Preprocessing(size, resize, channels, mean, scale)


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


# === Resizing ===


def resized(pixels, size):
    """The centre square, resized by PIL in floating point, channel by channel."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = pixels[top : top + side, left : left + side].astype(np.float32)
    channels = [
        Image.fromarray(square[..., index]).resize((size, size), Image.BILINEAR)
        for index in range(square.shape[-1])
    ]
    return np.stack(channels, -1)


@functools.cache
def resize_in_graph(size):
    """One graph for images of all sizes."""
    return tf.function(
        preprocessing(resize=size).resize,
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
    )


@pytest.mark.parametrize(
    "shape",
    [(10, 10), (40, 40), (37, 61), (61, 37), (11, 12), (3, 5), (300, 2), (2, 300)]
    + [(1, 1), (1, 50), (50, 1), (10, 11)],
)
@pytest.mark.parametrize("size", [10, 7, 1])
def test_the_centre_square_is_resized_as_by_pil(shape, size):
    pixels = noise(*shape, 3)
    actual = resize_in_graph(size)(tf.constant(pixels))
    assert actual.dtype == tf.float32 and actual.shape == (size, size, 3)
    if shape == (size, size):
        np.testing.assert_array_equal(actual, pixels)
    np.testing.assert_allclose(actual, resized(pixels, size), atol=0.05)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_any_real_dtype_and_both_numbers_of_channels_are_resized(dtype, channels):
    pixels = noise(9, 13, channels)
    actual = preprocessing(channels=channels).resize(tf.constant(pixels.astype(dtype)))
    np.testing.assert_allclose(actual, resized(pixels, 10), atol=0.05)
