"""Local response normalisation against the formula, written as loops."""

import numpy as np
import pytest
import tensorflow as tf
from layer_checks import central_differences

from keras_alexnet.layers import LocalResponseNormalization
from keras_alexnet.layers.implementations import choose
from keras_alexnet.layers.lrn_implementations import IMPLEMENTATIONS, Formula

# Strong enough for the normalisation to matter.
STRONG = {"size": 3, "alpha": 0.5, "beta": 0.75, "k": 1.0}
EACH = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
WITH_SIZES = [(name, size) for name in IMPLEMENTATIONS for size in (1, 3, 4, 5)]


def expected(x, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_over_size=False, groups=1):
    """The formula of the paper, section 3.3, in float64; channels last."""
    x = np.asarray(x, "float64")
    y = np.empty_like(x)
    scale = alpha / size if alpha_over_size else alpha
    channels = x.shape[-1]
    tower = channels // groups
    for c in range(channels):
        first = max(c - size // 2, c // tower * tower)
        last = min(c - size // 2 + size, (c // tower + 1) * tower)
        energy = np.zeros(x.shape[:-1])
        for j in range(first, last):
            energy += x[..., j] ** 2
        y[..., c] = x[..., c] / (k + scale * energy) ** beta
    return y


def normalise(x, implementation, *, groups=1, channels_last=True, **numbers):
    """The function, with the arguments and defaults of the layer."""
    numbers = {"size": 5, "alpha": 1e-4, "beta": 0.75, "k": 2.0, **numbers}
    if numbers.pop("alpha_over_size", False):
        numbers["alpha"] /= numbers["size"]
    options = {"groups": groups, "channels_last": channels_last}
    x = tf.convert_to_tensor(x)
    return Formula(**numbers).normalise(x, implementation, **options)


def normal(*shape, scale=3.0, seed=0):
    return np.random.default_rng(seed).normal(0, scale, shape).astype("float32")


@pytest.mark.parametrize("alpha_over_size", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("implementation, size", WITH_SIZES)
def test_forward_is_the_formula(implementation, size, groups, alpha_over_size):
    arguments = {"size": size, "alpha": 0.3, "groups": groups}
    arguments["alpha_over_size"] = alpha_over_size
    x = normal(2, 3, 2, 8)
    y = normalise(x, implementation, **arguments)
    np.testing.assert_allclose(y, expected(x, **arguments), rtol=1e-6)


@EACH
@pytest.mark.parametrize("beta, k", [(0.75, 1.0), (0.5, 2.0), (1.0, 0.1), (0.6, 5.0)])
def test_exponent_and_constant_are_those_of_the_formula(beta, k, implementation):
    arguments = {"alpha": 0.7, "beta": beta, "k": k}
    x = normal(4, 6)
    y = normalise(x, implementation, **arguments)
    np.testing.assert_allclose(y, expected(x, **arguments), rtol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_defaults_are_those_of_the_paper(training):
    x = normal(1, 2, 2, 8, scale=200.0)
    y = LocalResponseNormalization()(x, training=training)
    written_out = expected(x, size=5, alpha=1e-4, beta=0.75, k=2.0)
    np.testing.assert_allclose(y, written_out, rtol=1e-6)


@EACH
@pytest.mark.parametrize("shape", [(3, 6), (2, 3, 6), (2, 3, 2, 6), (2, 1, 3, 2, 6)])
def test_any_rank_with_channels_last_or_first(shape, implementation):
    x = normal(*shape)
    written_out = expected(x, **STRONG, groups=2)
    y = normalise(x, implementation, **STRONG, groups=2)
    np.testing.assert_allclose(y, written_out, rtol=1e-6)
    x = np.moveaxis(x, -1, 1)
    y = normalise(x, implementation, **STRONG, groups=2, channels_last=False)
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), written_out, rtol=1e-6)


@EACH
@pytest.mark.parametrize("channels_last", [True, False])
def test_windows_never_cross_from_one_tower_to_the_other(channels_last, implementation):
    arguments = {"alpha": 1.0, "groups": 2, "channels_last": channels_last}
    axis = -1 if channels_last else 1
    a, b = normal(2, 4, 4, 4), normal(2, 4, 4, 4, seed=1)
    quiet = normalise(np.concatenate([a, 0 * b], axis), implementation, **arguments)
    loud = normalise(np.concatenate([a, 100 * b], axis), implementation, **arguments)
    np.testing.assert_array_equal(
        *(np.split(y, 2, axis)[0] for y in (quiet.numpy(), loud.numpy()))
    )


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("implementation, size", WITH_SIZES)
def test_gradient_equals_central_differences(implementation, size, channels_last):
    x = normal(2, 4, 2, 6, scale=1.0)
    weighting = normal(2, 4, 2, 6, scale=1.0, seed=1)
    arguments = {"size": size, "alpha": 0.5, "k": 1.0, "groups": 2}
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = normalise(inputs, implementation, **arguments, channels_last=channels_last)
        loss = tf.reduce_sum(y * weighting)

    # Of the float64 formula, so that the step can be small.
    axis = -1 if channels_last else 1

    def written_out(x):
        y = expected(np.moveaxis(x, axis, -1), **arguments)
        return (np.moveaxis(y, -1, axis) * weighting).sum()

    differences = central_differences(written_out, x.astype("float64"), 1e-5)
    gradient = tape.gradient(loss, inputs)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=2e-6)


@EACH
def test_second_derivative_is_that_of_the_formula(implementation):
    x = normal(2, 6, scale=1.0)
    inputs = tf.constant(x)
    with tf.GradientTape() as outer:
        outer.watch(inputs)
        with tf.GradientTape() as inner:
            inner.watch(inputs)
            y = normalise(inputs, implementation, **STRONG)
            loss = tf.reduce_sum(y**2)
        penalty = tf.reduce_sum(inner.gradient(loss, inputs) ** 2)
    second = outer.gradient(penalty, inputs)

    def loss_written_out(x):
        return (expected(x, **STRONG) ** 2).sum()

    def penalty_written_out(x):
        return (central_differences(loss_written_out, x, 1e-4) ** 2).sum()

    differences = central_differences(penalty_written_out, x.astype("float64"), 1e-4)
    np.testing.assert_allclose(second, differences, rtol=1e-3, atol=1e-4)


@EACH
@pytest.mark.parametrize("dtype, bits", [("bfloat16", 8), ("float16", 11)])
def test_half_precision_is_rounded_once(dtype, bits, implementation):
    x = tf.cast(normal(4, 5, 16, scale=10.0), dtype)
    y = normalise(x, implementation, **STRONG)
    assert y.dtype == dtype
    # Half a unit in the last place, plus what float32 costs on the way.
    written_out = expected(tf.cast(x, "float64"), **STRONG)
    np.testing.assert_allclose(tf.cast(y, "float64"), written_out, rtol=1.01 / 2**bits)


@EACH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extreme_values_do_what_the_formula_does(dtype, implementation):
    huge, tiny = 1e18, 1e-30
    x = np.zeros((1, 24), "float32")
    x[0, 2], x[0, 9], x[0, 16], x[0, 17] = huge, tiny, np.inf, 1.0
    x[0, 23] = -huge
    x = tf.cast(x, dtype)
    with np.errstate(invalid="ignore"):
        written_out = expected(tf.cast(x, "float64"))
    y = tf.cast(normalise(x, implementation), "float64")
    np.testing.assert_allclose(
        y, written_out, rtol=1e-5 if dtype == "float32" else 0.01
    )


@EACH
def test_squares_that_overflow_float16_do_no_harm(implementation):
    x = tf.constant([[1000.0, -40000.0, 300.0, 60000.0, 0.5, 2.0]], "float16")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = normalise(x, implementation)
    written_out = expected(tf.cast(x, "float64"))
    np.testing.assert_allclose(tf.cast(y, "float64"), written_out, rtol=1e-3)
    assert np.isfinite(tape.gradient(y, x)).all()


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({"size": 0}, "size"),
        ({"size": -3}, "size"),
        ({"alpha": -1e-4}, "alpha"),
        ({"k": -1.0}, "k=-1.0"),
        ({"k": 0.0}, "k must be positive"),
        ({"size": 2.5}, "whole number"),
        ({"groups": 0}, "groups"),
        ({"data_format": "NHWC"}, "data_format"),
    ],
)
def test_bad_arguments_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        LocalResponseNormalization(**arguments)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 5), "groups=2, channels=5"),
        ((None, 8, 8, None), "number of channels must be known"),
    ],
)
def test_channels_that_cannot_be_split_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        LocalResponseNormalization(groups=2).build(shape)


@pytest.mark.parametrize(
    ("dtype", "implementation", "message"),
    [
        ("float32", "mkl", "xla_fused, windowed. Received: mkl"),
        ("int32", None, "floating-point activations. Received: int32"),
    ],
)
def test_what_cannot_be_normalised_is_refused(dtype, implementation, message):
    with pytest.raises(ValueError, match=message):
        normalise(np.ones((1, 8), dtype), implementation)


def compiled_functions(library) -> list[str]:
    return [
        function.signature.name
        for function in library.function
        if function.attr["_XlaMustCompile"].b
    ]


def test_inference_graph_contains_no_compiled_function():
    layer = LocalResponseNormalization()
    signature = tf.TensorSpec((None, 4, 4, 8))
    found = {}
    for training in (False, True):
        function = tf.function(lambda x, t=training: layer(x, training=t))
        graph = function.get_concrete_function(signature).graph
        found[training] = compiled_functions(graph.as_graph_def().library)
    assert found[False] == []
    assert found[True] != []  # So that the search is known to find them.


@pytest.mark.parametrize("training", [False, True])
def test_the_layer_runs_the_implementation_that_the_table_names(training):
    x = tf.constant(normal(2, 3, 3, 8))
    y = normalise(x, choose("lrn", x, training))
    np.testing.assert_array_equal(y, LocalResponseNormalization()(x, training=training))


@EACH
def test_float64_is_computed_in_float64(implementation):
    x = np.random.default_rng(0).normal(0, 3, (2, 3, 8))
    with tf.GradientTape() as tape:
        inputs = tf.constant(x)
        tape.watch(inputs)
        y = normalise(inputs, implementation, **STRONG)
    np.testing.assert_allclose(y, expected(x, **STRONG), rtol=1e-12)
    gradient = tape.gradient(y, inputs)
    ahead, behind = (expected(x + step * x, **STRONG).sum() for step in (1e-5, -1e-5))
    along = float(tf.reduce_sum(gradient * x))
    assert along == pytest.approx((ahead - behind) / 2e-5, abs=1e-8)
