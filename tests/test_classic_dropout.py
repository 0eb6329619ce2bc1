"""The dropout of 2012: a mask in training, a factor in inference."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_alexnet
from keras_alexnet.layers import ClassicDropout, ScheduledDropout


def test_training_zeroes_and_does_not_rescale():
    x = np.random.default_rng(0).uniform(1, 2, (100, 200)).astype("float32")
    y = ClassicDropout(0.3, seed=1)(x, training=True).numpy()
    np.testing.assert_array_equal(y[y != 0], x[y != 0])
    # 20,000 draws: the deviation of the share is 0.0033.
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.015)


def test_inference_multiplies_by_what_is_kept():
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    layer = ClassicDropout(0.25, seed=1)
    np.testing.assert_allclose(layer(x), 0.75 * x, rtol=1e-7)
    np.testing.assert_allclose(layer(x, training=False), 0.75 * x, rtol=1e-7)


def test_its_masks_are_those_of_scheduled_dropout():
    x = np.ones((8, 64), "float32")
    for rate in (0.2, 0.5):
        classic, scheduled = ClassicDropout(rate, seed=3), ScheduledDropout(rate, 3)
        for _ in range(2):
            np.testing.assert_array_equal(
                classic(x, training=True).numpy() != 0,
                scheduled(x, training=True).numpy() != 0,
            )


def test_gradients_are_the_mask_in_training_and_the_factor_in_inference():
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 5)), "float32")

    def gradient(training):
        layer = ClassicDropout(0.4, seed=7)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return tape.gradient(y, x).numpy()

    step = 1e-2
    for training in (False, True):
        # A layer anew for each call draws the same mask.
        higher, lower = (
            ClassicDropout(0.4, seed=7)(x + move, training=training).numpy()
            for move in (step, -step)
        )
        expected = (higher - lower) / (2 * step)
        np.testing.assert_allclose(gradient(training), expected, atol=1e-4)


def test_its_rate_moves_without_retracing_in_training_and_in_inference():
    layer = ClassicDropout(0.5, seed=0)
    traces = []

    @tf.function
    def apply(x, training):
        traces.append(training)
        return layer(x, training=training)

    x = tf.ones((50, 50))
    for rate in (0.5, 0.1, 0.0):
        layer.rate = rate
        assert (apply(x, True).numpy() == 0).mean() == pytest.approx(rate, abs=0.05)
        np.testing.assert_allclose(apply(x, False), (1 - rate) * x, rtol=1e-6)
    assert traces == [True, False]


def test_bfloat16_stays_bfloat16():
    layer = ClassicDropout(0.5, seed=0, dtype="bfloat16")
    x = tf.cast(tf.range(1.0, 9.0)[None], "bfloat16")
    inference, training = layer(x), layer(x, training=True)
    assert inference.dtype == training.dtype == tf.bfloat16
    np.testing.assert_array_equal(
        tf.cast(inference, "float32"), np.arange(1, 9)[None] / 2
    )
    kept = tf.cast(training, "float32").numpy()
    np.testing.assert_array_equal(kept[kept != 0], np.arange(1, 9)[None][kept != 0])


def test_inverted_dropout_is_the_same_network_with_kernels_scaled():
    # Fact sheet, section 7: kernels of fc7 and fc8 by 1 - rate, biases as they are.
    shape = {"input_shape": (28, 28, 3), "classifier_activation": None}
    classic = keras_alexnet.build("alexnet_mini", dropout="classic_dropout", **shape)
    inverted = keras_alexnet.build("alexnet_mini", **shape)
    inverted.set_weights(classic.get_weights())
    for name in ("fc7", "fc8"):
        kernel, bias = classic.get_layer(name).get_weights()
        inverted.get_layer(name).set_weights([kernel * 0.5, bias + 0.0])
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype("float32")
    np.testing.assert_allclose(
        inverted.predict(x, verbose=0),
        classic.predict(x, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_an_exported_model_keeps_the_factor(tmp_path):
    model = keras_alexnet.build("alexnet_mini", dropout="classic_dropout")
    for name in ("drop6", "drop7"):
        model.get_layer(name).rate = 0.2
    x = np.random.default_rng(0).normal(size=(2, 28, 28, 3)).astype("float32")
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(tmp_path / "exported")
    expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(exported.serve(x).numpy(), expected, atol=1e-6)


def test_two_replicas_train_and_evaluate_with_it_under_xla():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras_alexnet.build(
            "alexnet_mini", dropout="classic_dropout", input_shape=(16, 16, 1)
        )
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype("float32")
    labels = np.arange(4)
    model.fit(x, labels, batch_size=4, verbose=0)
    of_label = model.predict(x, verbose=0)[labels, labels]
    loss = model.evaluate(x, labels, batch_size=4, verbose=0)
    assert loss == pytest.approx(-np.log(of_label).mean(), rel=1e-5)


def test_it_is_saved_with_the_rate_of_the_moment_and_counts_no_parameter(tmp_path):
    layer = ClassicDropout(0.5, seed=2, name="drop")
    layer.rate = 0.25
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(again) is ClassicDropout and again.rate == 0.25 and again.seed == 2
    assert not again.weights
    with pytest.raises(ValueError, match="rate=1"):
        ClassicDropout(1.0)
