"""Dropout whose rate moves: what it does to tensors, and what it does not to graphs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

from keras_alexnet.layers import ScheduledDropout

MANY = (100, 1000)


def dropped(y) -> float:
    return float(np.mean(np.asarray(y) == 0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_inference_is_the_identity(rate, dtype):
    x = tf.random.normal((3, 4), dtype=dtype)
    layer = ScheduledDropout(rate, dtype=dtype)
    np.testing.assert_array_equal(layer(x), x)
    np.testing.assert_array_equal(layer(x, training=False), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_fraction_of_the_rate_is_dropped_and_the_rest_scaled_up(rate):
    y = ScheduledDropout(rate, seed=1)(tf.ones(MANY), training=True).numpy()
    # Five standard deviations of a binomial fraction.
    tolerance = 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert abs(dropped(y) - rate) < tolerance
    np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    assert abs(y.mean() - 1) < tolerance / (1 - rate)


def test_mask_is_drawn_for_each_element():
    y = ScheduledDropout(0.5, seed=1)(tf.ones(MANY), training=True).numpy()
    for axis in (0, 1):
        fractions = (y == 0).mean(axis=axis)
        assert abs(fractions - 0.5).max() < 6 * 0.5 / np.sqrt(y.shape[axis])
    assert len(np.unique(y, axis=0)) == len(y)


def test_rate_of_zero_drops_nothing():
    x = tf.random.normal((3, 4))
    np.testing.assert_array_equal(ScheduledDropout(0.0)(x, training=True), x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_drops_as_much(dtype):
    layer = ScheduledDropout(0.3, seed=1, dtype=f"mixed_{dtype}")
    y = layer(tf.ones(MANY), training=True)
    assert y.dtype == dtype
    assert dropped(y.numpy()) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rate_changes_without_retracing(jit_compile):
    layer = ScheduledDropout(0.2, seed=1)
    traces = []

    @tf.function(jit_compile=jit_compile)
    def train(x):
        traces.append(1)
        return layer(x, training=True)

    for rate in (0.2, 0.7, 0.0, 0.5):
        layer.rate = rate
        y = train(tf.ones(MANY)).numpy()
        assert dropped(y) == pytest.approx(rate, abs=0.01)
        np.testing.assert_allclose(y[y != 0], 1 / (1 - rate), rtol=1e-6)
    assert len(traces) == 1


def test_gradient_goes_through_the_elements_that_are_left():
    x = tf.ones((10, 10))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = ScheduledDropout(0.5, seed=1)(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), y)


def test_every_call_draws_another_mask_and_a_seed_repeats_them():
    x = tf.ones((10, 10))
    one, other = ScheduledDropout(0.5, seed=3), ScheduledDropout(0.5, seed=3)
    masks = [one(x, training=True).numpy() for _ in range(3)]
    for mask in masks:
        np.testing.assert_array_equal(other(x, training=True), mask)
    assert (masks[0] != masks[1]).any() and (masks[1] != masks[2]).any()
    different = ScheduledDropout(0.5, seed=4)(x, training=True).numpy()
    assert (different != masks[0]).any()


def test_without_a_seed_the_global_one_decides():
    x = tf.ones((10, 10))
    masks = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        masks.append(ScheduledDropout(0.5)(x, training=True).numpy())
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()


def test_restored_layer_goes_on_with_the_masks():
    x = tf.ones((10, 10))
    layer, restored = ScheduledDropout(0.5, seed=3), ScheduledDropout(0.5, seed=9)
    restored.build(x.shape)
    layer(x, training=True)
    for new, old in zip(restored.variables, layer.variables, strict=True):
        new.assign(old)
    np.testing.assert_array_equal(restored(x, training=True), layer(x, training=True))


@pytest.fixture
def strategy():
    return logical_cpus()


@pytest.mark.parametrize("jit_compile", [False, True])
def test_replicas_draw_different_masks_at_the_same_rate(strategy, jit_compile):
    with strategy.scope():
        layer = ScheduledDropout(0.5, seed=1)
        layer.build(MANY)

    @tf.function
    def train():
        def on_replica():
            # Made inside, so that each replica has a compiled function of its own.
            @tf.function(jit_compile=jit_compile)
            def call():
                return layer(tf.ones(MANY), training=True)

            return call()

        return strategy.run(on_replica)

    for rate in (0.5, 0.2):
        layer.rate = rate
        assert layer.rate == rate
        a, b = (y.numpy() for y in strategy.experimental_local_results(train()))
        assert dropped(a) == pytest.approx(rate, abs=0.01)
        assert dropped(b) == pytest.approx(rate, abs=0.01)
        # Independent masks: both drop an element in rate^2 of all cases.
        assert np.mean((a == 0) & (b == 0)) == pytest.approx(rate**2, abs=0.01)


def test_layer_can_be_called_in_the_scope_of_a_strategy(strategy):
    with strategy.scope():
        y = ScheduledDropout(0.5, seed=1)(tf.ones(MANY), training=True)
        inputs = keras.Input((4,))
        always_on = ScheduledDropout(0.5)(inputs, training=True)
        keras.Model(inputs, always_on)
    assert dropped(y.numpy()) == pytest.approx(0.5, abs=0.01)


def test_rate_is_no_parameter_of_the_model():
    model = keras.Sequential([keras.Input((4,)), ScheduledDropout(0.5)])
    assert model.count_params() == 0
    assert model.weights == []
    assert model.trainable_variables == []


def test_rate_is_saved_as_it_is_now(tmp_path):
    layer = ScheduledDropout(0.5, seed=1)
    layer.rate = 0.3
    assert layer.rate == 0.3
    assert layer.get_config()["rate"] == 0.3
    model = keras.Sequential([keras.Input((4,)), layer])
    model.save(tmp_path / "model.keras")
    assert keras.models.load_model(tmp_path / "model.keras").layers[0].rate == 0.3


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_outside_zero_to_one_are_refused(rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        ScheduledDropout(rate)
    layer = ScheduledDropout(0.5)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        layer.rate = rate
    assert layer.rate == 0.5
