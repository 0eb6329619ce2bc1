"""Max pooling against loops over windows, overlapping and clipped or side by side."""

import math
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import central_differences, implement

import keras_alexnet
from keras_alexnet.layers import NonOverlappingMaxPooling2D, OverlappingMaxPooling2D
from keras_alexnet.layers.pooling import IMPLEMENTATIONS


def expected(x, pool_size, strides, rounding):
    """Maxima over windows that are clipped to the image; channels last."""
    batch, height, width, channels = x.shape
    count = {"floor": math.floor, "ceil": math.ceil}[rounding]
    rows = count((height - pool_size[0]) / strides[0]) + 1
    columns = count((width - pool_size[1]) / strides[1]) + 1
    y = np.empty((batch, rows, columns, channels), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * strides[0], j * strides[1]
            window = x[:, top : top + pool_size[0], left : left + pool_size[1]]
            y[:, i, j] = window.max(axis=(1, 2))
    return y


def negative(*shape):
    """Numbers below zero, where padding with zeros would show."""
    return -np.random.default_rng(0).uniform(1, 9, shape).astype("float32")


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("size", [(3, 3), (4, 4), (5, 8), (9, 6), (12, 13)])
@pytest.mark.parametrize(
    "pool_size, strides",
    [((3, 3), (2, 2)), ((3, 2), (2, 1)), ((3, 3), (1, 1)), ((2, 3), (2, 3))],
)
@pytest.mark.filterwarnings("ignore:Windows")
def test_outputs_are_maxima_over_clipped_windows(size, pool_size, strides, rounding):
    x = negative(2, *size, 3)
    y = OverlappingMaxPooling2D(pool_size, strides, rounding)(x)
    np.testing.assert_array_equal(y, expected(x, pool_size, strides, rounding))


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
def test_channels_first_is_the_same_with_other_axes(rounding):
    x = negative(2, 6, 7, 3)
    layer = OverlappingMaxPooling2D(rounding=rounding, data_format="channels_first")
    y = layer(np.moveaxis(x, -1, 1))
    written_out = expected(x, (3, 3), (2, 2), rounding)
    np.testing.assert_array_equal(np.moveaxis(y, 1, -1), written_out)


# Windows of 3x3 with strides of 2, worked out by hand from the two rounding rules.
@pytest.mark.parametrize(
    "size, ceil, floor, same",
    [
        (57, 28, 28, 29),
        (56, 28, 27, 28),
        (55, 27, 27, 28),
        (54, 27, 26, 27),
        (28, 14, 13, 14),
        (27, 13, 13, 14),
        (26, 13, 12, 13),
        (13, 6, 6, 7),
        (12, 6, 5, 6),
    ],
)
def test_sizes_are_those_of_caffe_torch_and_tensorflow(size, ceil, floor, same):
    for options, length in (
        ({"rounding": "ceil"}, ceil),
        ({"rounding": "floor"}, floor),
        ({"padding": "same"}, same),
    ):
        layer = OverlappingMaxPooling2D(**options)
        promised = layer.compute_output_shape((1, size, size, 2))
        assert promised == (1, length, length, 2)
        assert layer(negative(1, size, size, 2)).shape == promised


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_ceil_never_invents_a_maximum(dtype, jit_compile):
    lowest = tf.fill((1, 4, 4, 1), tf.as_dtype(dtype).min)
    layer = OverlappingMaxPooling2D(rounding="ceil", dtype=dtype)
    y = tf.function(layer, jit_compile=jit_compile)(lowest)
    assert y.dtype == dtype
    assert y.shape == (1, 2, 2, 1)
    assert (y.numpy() == lowest.numpy().min()).all()


def test_ceil_works_on_images_of_unknown_size():
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, OverlappingMaxPooling2D(rounding="ceil")(inputs))
    assert model.output_shape == (None, None, None, 2)
    for size in ((6, 7), (8, 5)):
        x = negative(1, *size, 2)
        written_out = expected(x, (3, 3), (2, 2), "ceil")
        np.testing.assert_array_equal(model.predict(x, verbose=0), written_out)


@pytest.mark.parametrize("rounding", ["floor", "ceil"])
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    "pool_size, strides", [((3, 3), (2, 2)), ((5, 2), (3, 1)), ((2, 4), (2, 3))]
)
def test_gradient_goes_to_the_maximum_of_each_window(
    rounding, implementation, pool_size, strides, monkeypatch
):
    implement(monkeypatch, "max_pool", implementation)
    # Distinct values: every window has one maximum.
    x = np.random.default_rng(0).permutation(56).reshape(1, 7, 8, 1) - 70.0
    inputs = tf.constant(x, "float32")
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        layer = OverlappingMaxPooling2D(pool_size, strides, rounding)
        y = layer(inputs, training=True)
    np.testing.assert_array_equal(y, expected(x, pool_size, strides, rounding))
    gradient = tape.gradient(y, inputs).numpy()
    maxima, times = np.unique(
        expected(x, pool_size, strides, rounding), return_counts=True
    )
    written_out = np.zeros_like(x)
    for value, count in zip(maxima, times, strict=True):
        written_out[x == value] = count
    np.testing.assert_array_equal(gradient, written_out)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_kept_positions_work_for_same_padding_and_channels_first(
    data_format, monkeypatch
):
    implement(monkeypatch, "max_pool", "argmax")
    x = np.random.default_rng(0).permutation(72).reshape(1, 6, 4, 3).astype("float32")
    x = x / 10 if data_format == "channels_last" else np.moveaxis(x, -1, 1) / 10
    layer = OverlappingMaxPooling2D(padding="same", data_format=data_format)

    def loss(inputs):
        return tf.reduce_sum(tf.sin(layer(inputs, training=True)))

    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = loss(inputs)
    gradient = tape.gradient(value, inputs)
    differences = central_differences(lambda v: loss(tf.constant(v)), x, 1e-2)
    np.testing.assert_allclose(gradient, differences, atol=2e-3)


def test_a_window_with_a_nan_gives_nan(monkeypatch):
    implement(monkeypatch, "max_pool", "argmax")
    x = np.arange(25, dtype="float32").reshape(1, 5, 5, 1)
    x[0, 1, 1] = np.nan
    y = OverlappingMaxPooling2D()(x, training=True)
    np.testing.assert_array_equal(np.isnan(y[0, ..., 0]), [[True, False], [False] * 2])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"pool_size": 2, "strides": 3}, "would skip pixels"),
        ({"pool_size": (3, 1)}, "would skip pixels"),
        ({"rounding": "round"}, "Received: rounding='round'"),
        ({"rounding": "ceil", "padding": "same"}, "Use padding='valid'"),
        ({"data_format": "NHWC"}, "data_format"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    for cls in (OverlappingMaxPooling2D, NonOverlappingMaxPooling2D):
        if cls is OverlappingMaxPooling2D or "rounding" not in arguments:
            with pytest.raises(ValueError, match=message):
                cls(**arguments)


def test_windows_that_do_not_overlap_draw_a_warning():
    for size in (2, 3, (3, 2)):
        with pytest.warns(UserWarning, match="do not overlap"):
            OverlappingMaxPooling2D(size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OverlappingMaxPooling2D()
        OverlappingMaxPooling2D((3, 2), (3, 1))


# === Windows side by side ===


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


@pytest.mark.parametrize("size", [28, 29, 64])
def test_a_network_keeps_its_number_of_weights(size):
    options = {"input_shape": (size, size, 1), "classes": 10}
    overlapping = keras_alexnet.build("alexnet_mini", **options)
    side_by_side = keras_alexnet.build(
        "alexnet_mini", pool="non_overlapping_max_pooling", **options
    )
    assert isinstance(side_by_side.get_layer("pool5"), NonOverlappingMaxPooling2D)
    assert side_by_side.count_params() == overlapping.count_params()
