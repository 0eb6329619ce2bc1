"""Adaptive average pooling averages the cells that PyTorch averages."""

import math

import keras
import numpy as np
import pytest

from keras_alexnet.layers import AdaptiveAveragePooling2D


def loops(x, rows, columns):
    """The definition, for (batch, height, width, channels)."""
    height, width = x.shape[1:3]
    y = np.empty((len(x), rows, columns, x.shape[3]))
    for i in range(rows):
        for j in range(columns):
            top, bottom = i * height // rows, math.ceil((i + 1) * height / rows)
            left, right = j * width // columns, math.ceil((j + 1) * width / columns)
            y[:, i, j] = x[:, top:bottom, left:right].mean(axis=(1, 2))
    return y


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


@pytest.mark.parametrize("size", [1, 2, 5, 6, 7, 8, 12, 13])
def test_any_size_becomes_six(size):
    x = images(2, size, 2 * size, 3)
    found = AdaptiveAveragePooling2D(6)(x)
    np.testing.assert_allclose(found, loops(x, 6, 6), rtol=1e-5, atol=1e-6)


def test_an_image_of_that_size_passes_unchanged_to_the_bit():
    x = images(2, 6, 6, 3)
    np.testing.assert_array_equal(AdaptiveAveragePooling2D()(x), x)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_sizes_known_at_run_time_only(data_format):
    layer = AdaptiveAveragePooling2D((2, 3), data_format=data_format)
    first = data_format == "channels_first"
    shape = (3, None, None) if first else (None, None, 3)
    model = keras.Sequential([keras.Input(shape), layer])
    assert model.output_shape == ((None, 3, 2, 3) if first else (None, 2, 3, 3))
    x = images(1, 5, 7, 3)
    found = model(x.transpose(0, 3, 1, 2) if first else x).numpy()
    found = found.transpose(0, 2, 3, 1) if first else found
    np.testing.assert_allclose(found, loops(x, 2, 3), rtol=1e-5, atol=1e-6)


def test_bfloat16_is_averaged_in_float32():
    x = np.full((1, 60, 60, 1), 3.0, "float32")
    y = AdaptiveAveragePooling2D(1, dtype="bfloat16")(x)
    assert y.dtype == "bfloat16"
    assert float(y[0, 0, 0, 0]) == 3.0


def test_a_wrong_size_is_named():
    with pytest.raises(ValueError, match="output_size=.0, 0"):
        AdaptiveAveragePooling2D(0)
