"""Every layer on a GPU against NumPy in float64: outputs, first, second gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_adaptive_pooling import loops as adaptive
from test_grouped_conv import expected as convolution
from test_lrn import expected as lrn
from test_pooling import expected as pooling
from test_spatial_response_norm import loops as spatial_norm

from keras_alexnet.layers import ClassicDropout, ScheduledDropout
from keras_alexnet.layers.implementations import CHOICES
from keras_alexnet.registry import get_layer

STRONG = {"alpha": 0.5, "beta": 0.75, "k": 1.0}
KERNEL = np.random.default_rng(3).normal(size=(3, 3, 2, 6)) / 4
IMAGE_KERNEL = np.random.default_rng(3).normal(size=(5, 5, 3, 4)) / 8

# Layer, arguments, shape of an input, kernel, and the formula in float64.
CASES = {
    "lrn": (
        "lrn",
        {"size": 5, "groups": 2, **STRONG},
        (2, 3, 4, 8),
        None,
        lambda x: lrn(x, size=5, groups=2, **STRONG),
    ),
    "lrn, even window": (
        "lrn",
        {"size": 4, **STRONG},
        (2, 3, 4, 8),
        None,
        lambda x: lrn(x, size=4, **STRONG),
    ),
    "pooling": (
        "overlapping_max_pooling",
        {},
        (2, 7, 6, 3),
        None,
        lambda x: pooling(x, (3, 3), (2, 2), "floor"),
    ),
    "pooling, ceil": (
        "overlapping_max_pooling",
        {"rounding": "ceil"},
        (2, 6, 7, 3),
        None,
        lambda x: pooling(x, (3, 3), (2, 2), "ceil"),
    ),
    "non-overlapping pooling": (
        "non_overlapping_max_pooling",
        {},
        (2, 7, 7, 3),
        None,
        lambda x: pooling(x[:, :6, :6], (2, 2), (2, 2), "floor"),
    ),
    "adaptive pooling": (
        "adaptive_average_pooling",
        {"output_size": (3, 2)},
        (2, 7, 6, 3),
        None,
        lambda x: adaptive(x, 3, 2),
    ),
    "spatial normalisation": (
        "spatial_response_norm",
        {"size": 3, **STRONG},
        (2, 5, 4, 3),
        None,
        lambda x: spatial_norm(x, size=3, **STRONG),
    ),
    "grouped convolution": (
        "grouped_conv",
        {"filters": 6, "kernel_size": 3, "padding": "same", "use_bias": False},
        (2, 5, 4, 4),
        KERNEL,
        lambda x: convolution(x, KERNEL, 0, 2, (1, 1), "same", (1, 1)),
    ),
    "convolution of an image": (
        "grouped_conv",
        {
            "filters": 4,
            "kernel_size": 5,
            "strides": 2,
            "groups": 1,
            "use_bias": False,
        },
        (2, 9, 8, 3),
        IMAGE_KERNEL,
        lambda x: convolution(x, IMAGE_KERNEL, 0, 1, (2, 2), "valid", (1, 1)),
    ),
}
# Of the largest number: a rounding of the inputs, the kernel, and the result.
TOLERANCE = {"float32": 3e-6, "float16": 2.0**-9, "bfloat16": 2.0**-6}


def with_channels_first(array):
    return np.moveaxis(array, -1, 1)


def inputs_of(case, dtype):
    """A layer's input, exact in `dtype`, and a gradient of its output."""
    _, _, shape, _, formula = CASES[case]
    rng = np.random.default_rng(7)
    # Far apart, so that no maximum hangs on rounding.
    x = rng.permutation(np.linspace(-2, 2, np.prod(shape))).reshape(shape)
    x = tf.cast(tf.cast(x, dtype), "float64").numpy()
    dy = rng.normal(size=formula(x).shape)
    return x, tf.cast(tf.cast(dy, dtype), "float64").numpy()


def derivative(function, x, step=1e-5):
    """The gradient of a scalar function by central differences in float64."""
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        gradient[index] = (function(ahead) - function(behind)) / (2 * step)
    return gradient


def layer_of(case, dtype, data_format="channels_last"):
    name, arguments, shape, kernel, _ = CASES[case]
    layer = get_layer(name)(
        **arguments,
        data_format=data_format,
        dtype=dtype if dtype == "float32" else f"mixed_{dtype}",
    )
    if data_format == "channels_first":
        shape = (shape[0], shape[3], *shape[1:3])
    layer.build(shape)
    if kernel is not None:
        layer.set_weights([kernel])
    return layer


def call(layer, x):
    training = {"training": True} if layer._call_has_training_arg else {}
    return layer(x, **training)


def check(found, expected, dtype, times=1):
    found = tf.cast(found, "float64").numpy()
    tolerance = times * TOLERANCE[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_the_formula(case, dtype, data_format, jit_compile):
    formula = CASES[case][-1]
    x, dy = inputs_of(case, dtype)
    y = formula(x)
    dx = derivative(lambda x: (formula(x) * dy).sum(), x)
    if data_format == "channels_first":
        x, dy, y, dx = map(with_channels_first, (x, dy, y, dx))
    layer = layer_of(case, dtype, data_format)

    @tf.function(jit_compile=jit_compile)
    def forward_and_gradient(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = call(layer, x)
        return y, tape.gradient(y, x, dy)

    found = forward_and_gradient(tf.cast(x, dtype), tf.cast(dy, dtype))
    assert all(tensor.dtype == dtype for tensor in found)
    check(found[0], y, dtype)
    check(found[1], dx, dtype, times=2)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize(
    "case", ["lrn", "lrn, even window", "spatial normalisation", "grouped convolution"]
)
def test_second_gradients_are_the_formulas(case, jit_compile):
    formula = CASES[case][-1]
    x, dy = inputs_of(case, "float32")
    along = np.random.default_rng(9).normal(size=x.shape)
    step = 1e-4

    def slope(x):
        ahead, behind = formula(x + step * along), formula(x - step * along)
        return ((ahead - behind) * dy).sum() / (2 * step)

    layer = layer_of(case, "float32")

    @tf.function(jit_compile=jit_compile)
    def second(x, dy, along):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x, dy])
            y = tf.reduce_sum(call(layer, x) * dy)
            product = tf.reduce_sum(tape.gradient(y, x) * along)
        of_x = tape.gradient(product, x)
        # A convolution is linear, and has none by its input.
        return tf.zeros_like(x) if of_x is None else of_x, tape.gradient(product, dy)

    arguments = (tf.constant(value, "float32") for value in (x, dy, along))
    by_x, by_dy = second(*arguments)
    expected = derivative(slope, x, step)
    np.testing.assert_allclose(by_x, expected, atol=3e-5 * np.abs(dy).max())
    ahead, behind = formula(x + step * along), formula(x - step * along)
    check(by_dy, (ahead - behind) / (2 * step), "float32", times=10)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "xla"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layer", [ScheduledDropout, ClassicDropout])
def test_dropout_drops_its_rate_in_outputs_and_gradients_alike(
    layer, dtype, jit_compile
):
    layer = layer(0.25, seed=1, dtype=f"mixed_{dtype}" if dtype != "float32" else dtype)
    kept = 1.0 if isinstance(layer, ClassicDropout) else 1 / 0.75
    layer.build((64, 256))

    @tf.function(jit_compile=jit_compile)
    def forward_and_gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, x)

    y, dx = forward_and_gradient(tf.ones((64, 256), dtype))
    np.testing.assert_array_equal(y, dx)
    values = np.unique(tf.cast(y, "float32"))
    np.testing.assert_allclose(values, [0, kept], rtol=2.0**-7)
    assert np.mean(tf.cast(y, "float32") == 0) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("entry", [e for e in CHOICES if e[1] == "GPU"], ids=" ".join)
def test_every_choice_for_gpus_is_tested_here(entry):
    tested = {"lrn", "max_pool", "strided_conv", "grouped_conv", "momentum"}
    assert entry[0] in tested


def test_momentum_in_one_compiled_pass_is_the_formula():
    from keras_alexnet.training.optimizer import DecayedMomentum

    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(5, 4)), rng.normal(size=4)
    variables = [keras.Variable(value, name="kernel") for value in (weight, bias)]
    optimizer = DecayedMomentum(0.1, momentum=0.9, weight_decay=0.01)
    optimizer.jit_compile = True
    optimizer.build(variables)
    velocities = [np.zeros_like(weight), np.zeros_like(bias)]

    @tf.function
    def step(*gradients):
        optimizer.apply(list(gradients), variables)

    for _ in range(5):
        gradients = [rng.normal(size=v.shape) for v in velocities]
        step(*(tf.constant(g, "float32") for g in gradients))
        for value, velocity, gradient, decay in zip(
            (weight, bias), velocities, gradients, (0.01, 0.0), strict=True
        ):
            velocity[...] = 0.9 * velocity - 0.1 * (gradient + decay * value)
            value += velocity
    for variable, value in zip(variables, (weight, bias), strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-5, atol=1e-6)
