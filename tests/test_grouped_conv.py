"""Grouped convolution against loops, and against Keras's own layer."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from layer_checks import implement

from keras_alexnet.layers import GroupedConv2D
from keras_alexnet.layers.grouped_conv import IMPLEMENTATIONS, grouped_convolution
from keras_alexnet.layers.implementations import device_kind, has_onednn

CHANNELS, FILTERS = 4, 6


def expected(x, kernel, bias, groups, strides, padding, dilation):
    """Convolution as a loop over output pixels and groups, in float64."""
    rows, columns, depth, filters = kernel.shape
    if padding == "same":
        # TensorFlow's rule: ceil(size / stride) outputs, the odd pixel at the end.
        widths = []
        for size, k, s, d in zip(
            x.shape[1:3], (rows, columns), strides, dilation, strict=True
        ):
            missing = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            widths.append((missing // 2, missing - missing // 2))
        x = np.pad(x, ((0, 0), *widths, (0, 0)))
    batch, height, width, _ = x.shape
    span = ((rows - 1) * dilation[0] + 1, (columns - 1) * dilation[1] + 1)
    out = (
        (height - span[0]) // strides[0] + 1,
        (width - span[1]) // strides[1] + 1,
    )
    y = np.zeros((batch, *out, filters))
    per_group = filters // groups
    for i in range(out[0]):
        for j in range(out[1]):
            for f in range(filters):
                first = f // per_group * depth
                top, left = i * strides[0], j * strides[1]
                window = x[
                    :,
                    top : top + span[0] : dilation[0],
                    left : left + span[1] : dilation[1],
                    first : first + depth,
                ]
                y[:, i, j, f] = (window * kernel[..., f]).sum(axis=(1, 2, 3))
    return y + bias


def images(seed=0):
    shape = (2, 7, 6, CHANNELS)
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def with_random_weights(layer, input_shape):
    layer.build(input_shape)
    rng = np.random.default_rng(3)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return layer


EACH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)


@EACH
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "kernel_size, strides, dilation",
    [
        ((3, 3), (1, 1), (1, 1)),
        ((3, 2), (2, 1), (1, 1)),
        ((5, 5), (3, 3), (1, 1)),
        ((2, 3), (1, 1), (2, 2)),
        ((1, 1), (1, 1), (1, 1)),
    ],
)
def test_forward_is_the_convolution(
    implementation,
    data_format,
    groups,
    padding,
    kernel_size,
    strides,
    dilation,
    monkeypatch,
):
    implement(monkeypatch, "grouped_conv", implementation)
    x, first = images(), data_format == "channels_first"
    layer = GroupedConv2D(
        FILTERS,
        kernel_size,
        groups=groups,
        strides=strides,
        padding=padding,
        dilation_rate=dilation,
        data_format=data_format,
    )
    inputs = np.moveaxis(x, -1, 1) if first else x
    kernel, bias = with_random_weights(layer, inputs.shape).get_weights()
    y = layer(inputs)
    assert y.shape == layer.compute_output_shape(inputs.shape)
    written_out = expected(x, kernel, bias, groups, strides, padding, dilation)
    y = np.moveaxis(y, 1, -1) if first else y
    np.testing.assert_allclose(y, written_out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"groups": 1},
        {"strides": 2, "padding": "same"},
        {"dilation_rate": (2, 1)},
        {"use_bias": False},
        {"activation": "tanh"},
        {"bias_initializer": "ones"},
        {"kernel_regularizer": "l2", "bias_regularizer": "l1"},
        {"activity_regularizer": "l2"},
        {"kernel_constraint": "non_neg", "bias_constraint": "unit_norm"},
    ],
    ids=str,
)
def test_arguments_and_kernel_layout_are_those_of_conv2d(arguments):
    x = images()
    arguments = {"groups": 2, "kernel_initializer": "he_normal", **arguments}
    ours = GroupedConv2D(FILTERS, 3, **arguments)
    keras_own = keras.layers.Conv2D(FILTERS, 3, **arguments)
    ours.build(x.shape)
    keras_own.build(x.shape)
    assert [(w.name, w.shape) for w in ours.weights] == [
        (w.name, w.shape) for w in keras_own.weights
    ]
    ours.set_weights(keras_own.get_weights())
    np.testing.assert_allclose(ours(x), keras_own(x), rtol=1e-4, atol=1e-5)
    assert ours.get_config() | {"name": ""} == keras_own.get_config() | {"name": ""}
    for attribute in ("kernel_constraint", "bias_constraint"):
        assert type(getattr(ours, attribute)) is type(getattr(keras_own, attribute))
    np.testing.assert_allclose(sum(ours.losses), sum(keras_own.losses), rtol=1e-4)


def test_first_half_of_the_filters_sees_the_first_half_of_the_channels_only():
    a, b = np.split(images(), 2, axis=-1)
    layer = GroupedConv2D(FILTERS, 3)
    y = layer(np.concatenate([a, b], -1))
    without_b = layer(np.concatenate([a, 0 * b], -1))
    half = FILTERS // 2
    np.testing.assert_array_equal(y[..., :half], without_b[..., :half])
    assert np.abs(y[..., half:] - without_b[..., half:]).max() > 0


def test_no_function_is_compiled_for_it():
    layer = GroupedConv2D(FILTERS, 3)
    signature = tf.TensorSpec((None, 7, 6, CHANNELS))
    graph = tf.function(lambda x: layer(x)).get_concrete_function(signature).graph
    library = graph.as_graph_def().library
    assert not any(f.attr["_XlaMustCompile"].b for f in library.function)


@pytest.mark.parametrize("filters, groups", [(5, 2), (6, 0), (6, 4), (6, -1)])
def test_filters_that_cannot_be_split_are_refused(filters, groups):
    with pytest.raises(ValueError, match="groups"):
        GroupedConv2D(filters, 3, groups=groups)
    with pytest.raises(ValueError, match="groups"):  # Nor channels.
        GroupedConv2D(6, 3).build((None, 7, 6, 3))


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_of_every_implementation_are_the_convolution_transposed(
    implementation, dtype, jit_compile
):
    """A convolution is linear in both of its arguments, which gives both gradients."""
    rng = np.random.default_rng(2)
    # Small whole numbers, with which bfloat16 computes exactly.
    x = rng.integers(-2, 3, (2, 4, 4, CHANNELS)).astype("float64")
    kernel = rng.integers(-2, 3, (3, 3, CHANNELS // 2, FILTERS)).astype("float64")
    dy = rng.integers(-1, 2, (2, 4, 4, FILTERS)).astype("float64")

    def loss(x, kernel):
        return (expected(x, kernel, 0.0, 2, (1, 1), "same", (1, 1)) * dy).sum()

    inputs, weights = tf.constant(x, dtype), tf.constant(kernel, dtype)

    @tf.function(jit_compile=jit_compile)
    def gradients():
        options = {"groups": 2, "padding": "same", "implementation": implementation}
        with tf.GradientTape() as tape:
            tape.watch([inputs, weights])
            y = grouped_convolution(inputs, weights, **options)
            products = tf.cast(y, "float32") * tf.constant(dy, tf.float32)
        return tape.gradient(products, [inputs, weights])

    # Where XLA does not compile it, only oneDNN has that gradient on CPUs.
    plain = device_kind(inputs) == "CPU" and not jit_compile
    if plain and implementation == "native" and not has_onednn(inputs.dtype):
        with pytest.raises(tf.errors.InvalidArgumentError):
            gradients()
        return
    for gradient, value in zip(gradients(), (x, kernel), strict=True):
        unit = np.zeros_like(value)
        for place in (0, 7, 11, value.size - 1):
            unit.flat[place] = 1.0
            arguments = (unit, kernel) if value is x else (x, unit)
            derivative = loss(*arguments)
            unit.flat[place] = 0.0
            assert float(tf.reshape(gradient, -1)[place]) == derivative


@pytest.mark.parametrize("groups", [1, 2])
def test_an_unknown_implementation_is_refused(groups):
    with pytest.raises(ValueError, match="split, native. Received: fast"):
        grouped_convolution(
            tf.zeros((1, 3, 3, 4)),
            tf.zeros((1, 1, 4 // groups, 2)),
            groups=groups,
            implementation="fast",
        )


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(
    "kernel_size, strides, size",
    # The last leaves pixels unread; the first is conv1 of the 2012 network, smaller.
    [((11, 11), (4, 4), (19, 23)), ((3, 2), (2, 3), (8, 9)), ((1, 2), (3, 2), (9, 9))],
)
def test_space_to_depth_is_the_convolution(
    kernel_size, strides, size, padding, monkeypatch
):
    implement(monkeypatch, "strided_conv", "space_to_depth")
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    layer = GroupedConv2D(
        FILTERS, kernel_size, groups=1, strides=strides, padding=padding
    )
    layer = with_random_weights(layer, x.shape)
    kernel, bias = (value.astype("float64") for value in layer.get_weights())
    arguments = 1, strides, padding, (1, 1)
    np.testing.assert_allclose(
        layer(x), expected(x, kernel, bias, *arguments), rtol=1e-4, atol=1e-4
    )
    # The convolution is linear in its kernel: its gradient is the response to ones.
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    gradient = tape.gradient(loss, layer.kernel.value).numpy()
    for index in [(0, 0, 0, 0), (-1, -1, 2, 1), (0, -1, 1, 5)]:
        unit = np.zeros_like(kernel)
        unit[index] = 1.0
        response = expected(x, unit, 0.0, *arguments).sum()
        np.testing.assert_allclose(gradient[index], response, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("onednn", ["0", "1"])
def test_channels_first_needs_no_onednn(onednn, dtype):
    """As on a processor for which TensorFlow leaves it off, which 2.21 does."""
    program = """
import sys, numpy as np, tensorflow as tf
from keras_alexnet.layers.grouped_conv import grouped_convolution
from keras_alexnet.layers.implementations import has_onednn
dtype = sys.argv[1]
x = tf.cast(tf.random.stateless_uniform((2, 7, 6, 4), (0, 1), -2, 3, "int32"), dtype)
shape = 3, 3, 2, 6
kernel = tf.cast(tf.random.stateless_uniform(shape, (0, 2), -1, 2, "int32"), dtype)
@tf.function
def of(x, **options):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = grouped_convolution(x, kernel, groups=2, **options)
        loss = tf.reduce_sum(y)
    return y, tape.gradient(loss, x)
first = of(tf.transpose(x, (0, 3, 1, 2)), channels_last=False)
for one, other in zip(first, of(x)):
    np.testing.assert_array_equal(
        tf.cast(tf.transpose(one, (0, 2, 3, 1)), "float32"), tf.cast(other, "float32")
    )
print(has_onednn())
"""
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": onednn}
    done = subprocess.run(
        [sys.executable, "-c", program, dtype],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(onednn == "1")], done.stderr
