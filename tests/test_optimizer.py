"""The 2012 update rule against a loop, alone, in `fit` and over replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

import keras_alexnet
from keras_alexnet.training.optimizer import DecayedMomentum

MOMENTUM, DECAY = 0.9, 0.1  # A decay that shows within a few steps.


def expected(weights, gradients, rates, decay=DECAY):
    """The rule of the paper, section 5, in float64, for one variable."""
    w = np.asarray(weights, "float64")
    v = np.zeros_like(w)
    for gradient, rate in zip(gradients, rates, strict=True):
        v = MOMENTUM * v - rate * (gradient + decay * w)
        w = w + v
    return w


def optimizer(learning_rate=0.05, **arguments):
    arguments = {"momentum": MOMENTUM, "weight_decay": DECAY, **arguments}
    return DecayedMomentum(learning_rate, **arguments)


@pytest.mark.parametrize("traced", [False, True])
def test_update_is_that_of_the_paper_over_a_drop_of_the_rate(traced):
    rng = np.random.default_rng(0)
    rates = [0.1] * 15 + [0.01] * 15
    start = rng.normal(size=(2, 4, 3)).astype("float32")
    gradients = rng.normal(size=(30, 2, 4, 3)).astype("float32")
    kernel = keras.Variable(start[0], name="kernel")
    bias = keras.Variable(start[1].ravel(), name="bias")
    ours = optimizer(rates[0])
    ours.build([kernel, bias])
    apply = tf.function(ours.apply) if traced else ours.apply
    for rate, (of_kernel, of_bias) in zip(rates, gradients, strict=True):
        ours.learning_rate = rate
        apply([tf.constant(of_kernel), tf.constant(of_bias.ravel())])
    np.testing.assert_allclose(
        kernel.numpy(), expected(start[0], gradients[:, 0], rates), atol=2e-6
    )
    np.testing.assert_allclose(
        bias.numpy().reshape(4, 3),
        expected(start[1], gradients[:, 1], rates, decay=0),
        atol=2e-6,
    )
    assert int(ours.iterations.numpy()) == 30


def test_drop_of_the_rate_leaves_the_velocity_as_it_is():
    weight = keras.Variable([0.0], name="kernel")
    ours = optimizer(1.0, weight_decay=0.0)
    ours.build([weight])
    ours.apply([tf.constant([1.0])])  # v = -1, w = -1
    ours.learning_rate = 0.0
    ours.apply([tf.constant([1.0])])  # v = -0.9, w = -1.9
    assert weight.numpy() == pytest.approx(-1.9)


def test_biases_are_not_decayed_and_kernels_are():
    kernel = keras.Variable([[1.0]], name="kernel")
    bias = keras.Variable([1.0], name="bias")
    ours = optimizer(0.5)
    ours.build([kernel, bias])
    ours.apply([tf.zeros((1, 1)), tf.zeros(1)])
    assert bias.numpy() == 1.0
    assert kernel.numpy() == pytest.approx(1 - 0.5 * DECAY)


@pytest.mark.parametrize("layer", ["dense", "grouped_conv"])
def test_biases_of_real_layers_are_found(layer):
    model = keras_alexnet.build("alexnet_mini", input_shape=(16, 16, 1))
    ours = optimizer()
    ours.build(model.trainable_variables)
    before = [w.numpy() for w in model.trainable_variables]
    ours.apply([tf.zeros(w.shape) for w in model.trainable_variables])
    cls = keras_alexnet.get_layer(layer)
    kernels = {id(x.kernel) for x in model.layers if isinstance(x, cls)}
    biases = {id(x.bias) for x in model.layers if isinstance(x, cls)}
    assert kernels and biases
    for weight, old in zip(model.trainable_variables, before, strict=True):
        if id(weight) in kernels:
            np.testing.assert_allclose(weight.numpy(), old * (1 - 0.05 * DECAY), 1e-6)
        if id(weight) in biases:
            np.testing.assert_array_equal(weight.numpy(), old)


def linear_model(**compile_arguments):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.full((3, 2), 0.5), np.full(2, 0.25)])
    model.compile(optimizer(), "mse", **compile_arguments)
    return model


def data(count=8):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(count, 3)), rng.normal(size=(count, 2))
    return x.astype("float32"), y.astype("float32")


def linear_regression_by_hand(x, y, steps, rate=0.05):
    """Weights after some steps on the whole data, in float64."""
    kernel, bias = np.full((3, 2), 0.5), np.full(2, 0.25)
    v_kernel, v_bias = np.zeros((3, 2)), np.zeros(2)
    for _ in range(steps):
        error = 2 * (x @ kernel + bias - y) / y.size
        v_kernel = MOMENTUM * v_kernel - rate * (x.T @ error + DECAY * kernel)
        v_bias = MOMENTUM * v_bias - rate * error.sum(axis=0)
        kernel, bias = kernel + v_kernel, bias + v_bias
    return kernel, bias


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_takes_the_same_steps_as_the_loop(jit_compile):
    x, y = data()
    model = linear_model(jit_compile=jit_compile)
    model.fit(x, y, batch_size=len(x), epochs=6, verbose=0)
    for weight, by_hand in zip(
        model.get_weights(), linear_regression_by_hand(x, y, 6), strict=True
    ):
        np.testing.assert_allclose(weight, by_hand, rtol=1e-5)


def test_fit_on_two_replicas_takes_the_same_steps_as_the_loop():
    x, y = data()
    with logical_cpus().scope():
        model = linear_model()
    model.fit(x, y, batch_size=len(x), epochs=6, verbose=0)
    for variable, by_hand in zip(
        model.weights, linear_regression_by_hand(x, y, 6), strict=True
    ):
        for copy in variable.value.values:
            np.testing.assert_allclose(copy, by_hand, rtol=1e-5)


def test_saved_and_loaded_model_goes_on_with_its_velocity(tmp_path):
    x, y = data()
    model = linear_model()
    model.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras_alexnet.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, DecayedMomentum)
    loaded.fit(x, y, batch_size=len(x), epochs=3, verbose=0)
    for weight, by_hand in zip(
        loaded.get_weights(), linear_regression_by_hand(x, y, 6), strict=True
    ):
        np.testing.assert_allclose(weight, by_hand, rtol=1e-5)


@pytest.mark.parametrize("name", ["loss_scale", "plain"])
def test_mixed_precision_weights_stay_float32(name):
    weight = keras.Variable([1.0], name="kernel")
    ours = optimizer(0.5, weight_decay=0.0)
    if name == "loss_scale":
        ours = keras.optimizers.LossScaleOptimizer(ours, initial_scale=4.0)
    ours.build([weight])
    ours.apply([tf.constant([4.0 if name == "loss_scale" else 1.0])])
    assert weight.dtype == "float32"
    assert weight.numpy() == pytest.approx(0.5)


def test_half_precision_gradients_are_taken():
    weight = keras.Variable([1.0], name="kernel")
    ours = optimizer(0.5, weight_decay=0.0)
    ours.build([weight])
    ours.apply([tf.constant([0.5], "bfloat16")])
    assert weight.numpy() == pytest.approx(0.75)


def test_configuration_makes_the_same_optimizer():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for ours in (
        optimizer(0.03, momentum=0.8, weight_decay=0.2, clipnorm=1.0, name="mine"),
        optimizer(schedule),
    ):
        again = keras.optimizers.deserialize(keras.optimizers.serialize(ours))
        assert type(again) is DecayedMomentum
        assert keras.optimizers.serialize(again) == keras.optimizers.serialize(ours)
    config = optimizer(0.03, momentum=0.8, weight_decay=0.2).get_config()
    assert (config["momentum"], config["weight_decay"]) == (0.8, 0.2)
    assert config["learning_rate"] == pytest.approx(0.03)


def test_defaults_are_those_of_the_paper():
    config = DecayedMomentum().get_config()
    assert config["learning_rate"] == pytest.approx(0.01)
    assert (config["momentum"], config["weight_decay"]) == (0.9, 0.0005)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum must be in \[0, 1\)"),
        ({"weight_decay": -1e-4}, "weight_decay must not be negative"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecayedMomentum(**arguments)
