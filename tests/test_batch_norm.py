"""Fused batch normalisation against Keras's, and against the formula in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_alexnet.layers import FusedBatchNormalization

X = np.random.default_rng(0).normal(1, 3, (8, 5, 6, 4)).astype("float32")
DY = np.random.default_rng(1).normal(size=X.shape).astype("float32")


def layer_of(cls, **arguments):
    layer = cls(momentum=0.9, **arguments)
    layer.build(X.shape)
    for weight, values in (
        (layer.gamma, [1, 2, 3, 0.5]),
        (layer.beta, [0, 1, 2, 3]),
        (layer.moving_mean, [1, 0, 2, 1]),
        (layer.moving_variance, [4, 9, 1, 2]),
    ):
        weight.assign(values)
    return layer


def trained(layer, x):
    """Outputs, gradients, averages and then what inference gives."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
        loss = tf.reduce_sum(y * tf.cast(DY, y.dtype))
    gradients = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    return [y, *gradients, layer.moving_mean, layer.moving_variance, layer(x)]


def test_training_and_inference_are_keras_own():
    ours, theirs = (
        trained(layer_of(cls), X)
        for cls in (FusedBatchNormalization, keras.layers.BatchNormalization)
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_normalised_in_float32_and_rounded_once():
    x = tf.cast(X, "bfloat16")
    wide = x.numpy().astype("float64")
    mean, deviation = wide.mean((0, 1, 2)), np.sqrt(wide.var((0, 1, 2)) + 1e-3)
    expected = (wide - mean) / deviation * [1, 2, 3, 0.5] + [0, 1, 2, 3]
    y = layer_of(FusedBatchNormalization, dtype="mixed_bfloat16")(x, training=True)
    assert y.dtype == "bfloat16"
    found = tf.cast(y, "float64").numpy()
    np.testing.assert_allclose(found, expected, rtol=2.0**-8, atol=1e-3)


def test_a_frozen_layer_normalises_by_its_averages():
    layer = layer_of(FusedBatchNormalization)
    layer.trainable = False
    expected = (X - [1, 0, 2, 1]) / np.sqrt(np.array([4, 9, 1, 2]) + 1e-3)
    expected = expected * [1, 2, 3, 0.5] + [0, 1, 2, 3]
    np.testing.assert_allclose(layer(X, training=True), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, [1, 0, 2, 1])


@pytest.mark.parametrize("arguments", [{"axis": 1}, {"scale": False}])
def test_what_the_operation_does_not_know_is_computed_by_keras(arguments):
    x = np.random.default_rng(0).normal(1, 3, (4, 4, 4, 4)).astype("float32")
    layers = [
        cls(**arguments)
        for cls in (FusedBatchNormalization, keras.layers.BatchNormalization)
    ]
    np.testing.assert_allclose(*(one(x, training=True) for one in layers), rtol=1e-6)
