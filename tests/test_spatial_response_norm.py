"""Spatial response normalisation is what the formula says, pixel by pixel."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.layers import SpatialResponseNormalization

STRONG = {"size": 5, "alpha": 3.0, "beta": 0.75, "k": 1.0}


def loops(x, size, alpha, beta, k):
    """The formula, for (batch, height, width, channels), in float64."""
    x = np.asarray(x, "float64")
    y = np.empty_like(x)
    _, height, width, _ = x.shape
    for row in range(height):
        for column in range(width):
            top, left = row - size // 2, column - size // 2
            window = x[
                :,
                max(top, 0) : max(top + size, 0),
                max(left, 0) : max(left + size, 0),
            ]
            energy = np.square(window).sum(axis=(1, 2))
            scale = (k + alpha / size**2 * energy) ** beta
            y[:, row, column] = x[:, row, column] / scale
    return y


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
def test_it_is_the_formula(size, beta):
    x = images(2, 7, 4, 3)
    layer = SpatialResponseNormalization(size=size, alpha=3.0, beta=beta, k=2.0)
    expected = loops(x, size, 3.0, beta, 2.0)
    np.testing.assert_allclose(layer(x), expected, rtol=2e-6)


def test_its_defaults_are_those_of_the_2012_configuration():
    x = 50 * images(1, 6, 6, 2)
    expected = loops(x, size=5, alpha=1e-3, beta=0.75, k=1.0)
    np.testing.assert_allclose(SpatialResponseNormalization()(x), expected, rtol=2e-6)


def test_the_divisor_is_the_whole_window_at_the_border():
    # One pixel of nine, or four: clipping must not turn the sum into a mean of fewer.
    layer = SpatialResponseNormalization(size=3, alpha=9.0, beta=1.0)
    corner = layer(np.ones((1, 3, 3, 1), "float32"))[0, 0, 0, 0]
    assert float(corner) == pytest.approx(1 / (1 + 4))


def test_images_of_unknown_size_and_smaller_than_a_window():
    layer = SpatialResponseNormalization(**STRONG)
    model = keras.Sequential([keras.Input((None, None, 2)), layer])
    for shape in ((1, 2, 3, 2), (3, 9, 1, 2)):
        x = images(*shape)
        np.testing.assert_allclose(model(x), loops(x, **STRONG), rtol=2e-6)


def test_channels_first_is_the_same():
    x = images(2, 6, 5, 3)
    layer = SpatialResponseNormalization(**STRONG, data_format="channels_first")
    found = layer(x.transpose(0, 3, 1, 2)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, loops(x, **STRONG), rtol=2e-6)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_its_gradient_is_that_of_central_differences(data_format, jit_compile):
    x, weights = images(1, 4, 5, 2), images(1, 4, 5, 2, seed=1)
    layer = SpatialResponseNormalization(**STRONG, data_format=data_format)
    axes = (0, 1, 2, 3) if data_format == "channels_last" else (0, 3, 1, 2)

    @tf.function(jit_compile=jit_compile)
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) * weights.transpose(axes))
        return tape.gradient(total, x)

    expected = np.empty(x.shape)
    step = 1e-4
    for index in np.ndindex(x.shape):
        moved = np.zeros(x.shape)
        moved[index] = step
        higher, lower = loops(x + moved, **STRONG), loops(x - moved, **STRONG)
        expected[index] = ((higher - lower) * weights).sum() / (2 * step)
    found = gradient(tf.constant(x.transpose(axes))).numpy()
    np.testing.assert_allclose(found, expected.transpose(axes), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_rounds_once(dtype):
    x = tf.cast(images(1, 6, 6, 3), dtype)
    y = SpatialResponseNormalization(**STRONG, dtype=dtype)(x)
    assert y.dtype == dtype
    expected = tf.cast(loops(x.numpy(), **STRONG).astype("float32"), dtype)
    np.testing.assert_allclose(
        y.numpy().astype("float64"),
        expected.numpy().astype("float64"),
        # A value halfway between two of the dtype may be rounded either way.
        rtol=2.0**-8 if dtype == "bfloat16" else 2.0**-10,
    )


def test_large_float16_activations_do_not_overflow():
    x = np.full((1, 5, 5, 1), 1e4, "float16")  # The square is far beyond float16.
    y = SpatialResponseNormalization(dtype="float16")(x)
    np.testing.assert_allclose(y, loops(x, 5, 1e-3, 0.75, 1.0), rtol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 0}, "size=0"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"alpha": 0.0, "k": 0.0}, "k=0.0"),
        ({"data_format": "NHWC"}, "NHWC"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        SpatialResponseNormalization(**arguments)
