"""From an image file to a network's input, against PIL and NumPy."""

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


def smooth(height, width):
    """Colours that JPEG hardly changes."""
    rows, columns = np.mgrid[:height, :width]
    colors = [rows * 6, columns * 5, 255 - rows * 3 - columns * 3]
    return np.clip(np.stack(colors, -1), 0, 255).astype(np.uint8)


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


@pytest.mark.parametrize(
    "shape",
    [(10, 10), (40, 40), (37, 61), (61, 37), (11, 12), (3, 5), (300, 2), (2, 300)]
    + [(1, 1), (1, 50), (50, 1), (10, 11)],
)
@pytest.mark.parametrize("size", [10, 7, 1])
def test_the_centre_square_is_resized_as_by_pil(shape, size):
    pixels = noise(*shape, 3)
    actual = preprocessing(resize=size).resize(tf.constant(pixels))
    assert actual.dtype == tf.float32 and actual.shape == (size, size, 3)
    np.testing.assert_allclose(actual, resized(pixels, size), atol=0.05)


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (37, 62)])
def test_cutting_before_resizing_is_resizing_before_cutting(shape):
    """The paper resizes the shorter side first; a square is cheaper to resize."""
    pixels = smooth(*shape)
    height, width = (size * 16 // min(shape) for size in shape)
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.BILINEAR))
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = whole[top : top + 16, left : left + 16].astype(np.float32)
    actual = preprocessing(resize=16).resize(tf.constant(pixels)).numpy()
    # The cut may fall half a pixel of the result to one side: slopes are 6 a pixel.
    assert np.abs(actual - expected).max() < 6 * min(shape) / 16


def test_an_image_of_the_right_size_is_not_changed():
    pixels = noise(10, 10, 3)
    actual = preprocessing(resize=10).resize(tf.constant(pixels))
    np.testing.assert_array_equal(actual, pixels.astype(np.float32))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int32])
def test_any_real_dtype_and_both_numbers_of_channels_are_resized(dtype, channels):
    pixels = noise(9, 13, channels)
    actual = preprocessing(channels=channels).resize(tf.constant(pixels.astype(dtype)))
    np.testing.assert_allclose(actual, resized(pixels, 10), atol=0.05)


def test_images_of_different_sizes_are_resized_in_one_graph():
    resize = tf.function(
        preprocessing().resize,
        input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)],
    )
    for shape in [(9, 13, 3), (1, 1, 3), (20, 7, 3)]:
        pixels = noise(*shape)
        np.testing.assert_allclose(
            resize(tf.constant(pixels)), resized(pixels, 10), atol=0.05
        )


@pytest.mark.parametrize("size", [1, 7, 8, 10])
def test_the_network_sees_the_middle_of_the_resized_image(size):
    pixels = noise(10, 10, 3).astype(np.float32)
    margin = (10 - size) // 2
    np.testing.assert_array_equal(
        preprocessing(size=size).center_crop(tf.constant(pixels)),
        pixels[margin : margin + size, margin : margin + size],
    )


# === Normalising ===


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_mean_is_subtracted_before_scaling(dtype):
    means = 104.0, 117.0, 123.0
    pixels = noise(2, 8, 8, 3).astype(dtype)
    actual = preprocessing(mean=means, scale=1 / 64).normalize(pixels)
    assert actual.dtype == tf.float32
    np.testing.assert_allclose(actual, (pixels - np.array(means)) / 64, atol=1e-5)
