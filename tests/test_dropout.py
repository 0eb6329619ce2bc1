"""Dropout, today's and that of 2012: masks, factors, and a rate that moves."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

import keras_alexnet
from keras_alexnet.layers import ClassicDropout, ScheduledDropout

MANY = (100, 1000)
BOTH = pytest.mark.parametrize("cls", [ScheduledDropout, ClassicDropout])


def dropped(y) -> float:
    return float(np.mean(np.asarray(y) == 0))


def factors(cls, rate):
    """What is left is multiplied by in training, and everything in inference."""
    return (1, 1 - rate) if cls is ClassicDropout else (1 / (1 - rate), 1)


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.75])
def test_inference_is_the_identity_or_multiplies_by_what_is_kept(cls, rate, dtype):
    x = tf.cast(tf.range(12.0), dtype)
    layer = cls(rate, dtype=dtype)
    for y in (layer(x), layer(x, training=False)):
        assert y.dtype == dtype
        # Exact: the factors are powers of two, or three of them.
        np.testing.assert_array_equal(
            tf.cast(y, "float32"), np.arange(12) * factors(cls, rate)[1]
        )


@BOTH
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_fraction_of_the_rate_is_dropped_and_the_rest_is_scaled_or_not(cls, rate):
    y = cls(rate, seed=1)(tf.ones(MANY), training=True).numpy()
    # Five standard deviations of a binomial fraction.
    tolerance = 5 * np.sqrt(rate * (1 - rate) / y.size)
    assert abs(dropped(y) - rate) < tolerance
    np.testing.assert_allclose(y[y != 0], factors(cls, rate)[0], rtol=1e-6)
    same = ScheduledDropout(rate, seed=1)(tf.ones(MANY), training=True).numpy()
    np.testing.assert_array_equal(y == 0, same == 0)


def test_mask_is_drawn_for_each_element():
    y = ScheduledDropout(0.5, seed=1)(tf.ones(MANY), training=True).numpy()
    for axis in (0, 1):
        fractions = (y == 0).mean(axis=axis)
        assert abs(fractions - 0.5).max() < 6 * 0.5 / np.sqrt(y.shape[axis])
    assert len(np.unique(y, axis=0)) == len(y)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_drops_as_much(dtype):
    layer = ScheduledDropout(0.3, seed=1, dtype=f"mixed_{dtype}")
    y = layer(tf.ones(MANY), training=True)
    assert y.dtype == dtype
    assert dropped(y.numpy()) == pytest.approx(0.3, abs=0.01)


@BOTH
@pytest.mark.parametrize("jit_compile", [False, True])
def test_rate_changes_without_retracing(cls, jit_compile):
    layer = cls(0.2, seed=1)
    traces = []

    @tf.function(jit_compile=jit_compile)
    def apply(x, training):
        traces.append(training)
        return layer(x, training=training)

    for rate in (0.2, 0.7, 0.0, 0.5):
        layer.rate = rate
        kept, factor = factors(cls, rate)
        y = apply(tf.ones(MANY), True).numpy()
        assert dropped(y) == pytest.approx(rate, abs=0.01)
        np.testing.assert_allclose(y[y != 0], kept, rtol=1e-6)
        y = apply(tf.ones(MANY), False)
        np.testing.assert_allclose(y, np.full(MANY, factor), rtol=1e-6)
    assert traces == [True, False]


def test_every_call_draws_another_mask_and_a_seed_repeats_them():
    x = tf.ones((10, 10))
    one, other = ScheduledDropout(0.5, seed=3), ScheduledDropout(0.5, seed=3)
    masks = [one(x, training=True).numpy() for _ in range(3)]
    for mask in masks:
        np.testing.assert_array_equal(other(x, training=True), mask)
    assert (masks[0] != masks[1]).any() and (masks[1] != masks[2]).any()
    different = ScheduledDropout(0.5, seed=4)(x, training=True).numpy()
    assert (different != masks[0]).any()
    # Without a seed the global one decides.
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


@BOTH
def test_rate_is_saved_as_it_is_now_and_no_parameter(cls, tmp_path):
    layer = cls(0.5, seed=1)
    layer.rate = 0.3
    model = keras.Sequential([keras.Input((4,)), layer])
    assert model.count_params() == 0 and model.weights == []
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert type(again) is cls and again.rate == 0.3


@BOTH
@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_rates_outside_zero_to_one_are_refused(cls, rate):
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        cls(rate)
    layer = cls(0.5)
    with pytest.raises(ValueError, match=r"rate must be in \[0, 1\)"):
        layer.rate = rate
    assert layer.rate == 0.5


# === The dropout of 2012 in a network ===


def test_inverted_dropout_is_the_same_network_with_kernels_scaled():
    # Fact sheet, section 7: kernels of fc7 and fc8 by 1 - rate, biases as they are.
    shape = {"input_shape": (16, 16, 1), "classifier_activation": None}
    classic = keras_alexnet.build("alexnet_mini", dropout="classic_dropout", **shape)
    inverted = keras_alexnet.build("alexnet_mini", **shape)
    inverted.set_weights(classic.get_weights())
    for name in ("fc7", "fc8"):
        kernel, bias = classic.get_layer(name).get_weights()
        inverted.get_layer(name).set_weights([kernel * 0.5, bias + 0.0])
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 1)).astype("float32")
    np.testing.assert_allclose(inverted(x), classic(x), rtol=1e-5, atol=1e-6)


def test_an_exported_model_keeps_the_factor(tmp_path):
    model = keras.Sequential([keras.Input((4,)), ClassicDropout(0.5)])
    model.layers[0].rate = 0.2
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(exported.serve(np.ones((2, 4), "float32")), 0.8)


def test_two_replicas_train_and_evaluate_with_it_under_xla(strategy):
    with strategy.scope():
        inputs = keras.Input((5,))
        x = ClassicDropout(0.25)(keras.layers.Dense(8)(inputs))
        x = keras.layers.Dense(4, activation="softmax")(x)
        model = keras_alexnet.AlexNet(inputs, x)
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    x = np.random.default_rng(0).normal(size=(4, 5)).astype("float32")
    labels = np.arange(4)
    model.fit(x, labels, batch_size=4, verbose=0)
    of_label = model.predict(x, verbose=0)[labels, labels]
    loss = model.evaluate(x, labels, batch_size=4, verbose=0)
    assert loss == pytest.approx(-np.log(of_label).mean(), rel=1e-5)
