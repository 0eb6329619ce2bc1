"""Pooling side by side against NumPy, and as many windows as overlapping ones."""

import numpy as np
import pytest

import keras_alexnet
from keras_alexnet.layers import NonOverlappingMaxPooling2D, OverlappingMaxPooling2D


@pytest.mark.parametrize("size", [(5, 5), (6, 7), (28, 13), (55, 3)])
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_there_are_as_many_windows_as_overlapping_ones(size, padding):
    images = np.zeros((1, *size, 2), "float32")
    ours = NonOverlappingMaxPooling2D(padding=padding)(images)
    theirs = OverlappingMaxPooling2D(padding=padding)(images)
    assert ours.shape == theirs.shape


@pytest.mark.parametrize("size", [7, 8])
def test_each_window_is_as_large_as_its_stride(size):
    images = -np.random.default_rng(0).uniform(1, 9, (2, size, size, 3))
    # Three windows of 2x2, as three windows of 3x3 fit into 7 and into 8 pixels.
    blocks = images[:, :6, :6].reshape(2, 3, 2, 3, 2, 3)
    pooled = NonOverlappingMaxPooling2D()(images.astype("float32"))
    np.testing.assert_array_equal(pooled, blocks.max((2, 4)).astype("float32"))


def test_windows_of_one_stride_are_those_of_keras():
    images = np.random.default_rng(0).normal(size=(1, 7, 7, 2)).astype("float32")
    blocks = images[:, :6, :6].reshape(1, 3, 2, 3, 2, 2).max((2, 4))
    np.testing.assert_array_equal(NonOverlappingMaxPooling2D(2, 2)(images), blocks)


@pytest.mark.parametrize("size", [28, 29, 64])
def test_a_network_keeps_its_number_of_weights(size):
    options = {"input_shape": (size, size, 1), "classes": 10}
    overlapping = keras_alexnet.build("alexnet_mini", **options)
    side_by_side = keras_alexnet.build(
        "alexnet_mini", pool="non_overlapping_max_pooling", **options
    )
    assert isinstance(side_by_side.get_layer("pool5"), NonOverlappingMaxPooling2D)
    assert side_by_side.count_params() == overlapping.count_params()


def test_strides_that_skip_pixels_are_refused():
    with pytest.raises(ValueError, match="would skip pixels"):
        NonOverlappingMaxPooling2D(2, 3)
