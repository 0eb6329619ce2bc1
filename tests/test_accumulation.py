"""A batch in parts gives what the whole batch gives."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

import keras_alexnet
from keras_alexnet.model import averaged_over_micro_batches
from keras_alexnet.training.optimizer import DecayedMomentum


def batch(size=12):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(size, 16, 16, 1)).astype("float32")
    return images, rng.integers(0, 10, size), rng.uniform(size=size).astype("float32")


def smooth():
    """A network in which rounding stays rounding; narrow, as XLA is slow on CPUs."""
    return keras_alexnet.build(
        keras_alexnet.get_architecture("alexnet_mini").widened(1 / 8),
        input_shape=(16, 16, 1),
        dropout=None,
        activation="softplus",
        pool="average_pooling2d",
    )


@functools.cache
def trained(parts, replicas=1, jit_compile=False, steps=2):
    """Losses, accuracies and weights of some steps, with weighted examples."""
    keras.utils.set_random_seed(0)
    with logical_cpus(replicas).scope():
        model = smooth()
        model.compile(
            DecayedMomentum(0.01),
            "sparse_categorical_crossentropy",
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy("accuracy")],
            jit_compile=jit_compile,
        )
    model.micro_batches = parts
    images, labels, weights = batch()
    history = model.fit(
        images,
        labels,
        sample_weight=weights,
        batch_size=len(images),
        epochs=steps,
        verbose=0,
    ).history
    return history, model.get_weights()


@pytest.mark.parametrize(
    ("parts", "replicas", "jit_compile"), [(3, 1, False), (2, 2, True), (6, 2, False)]
)
def test_parts_give_the_same_losses_and_weights(parts, replicas, jit_compile):
    whole, weights = trained(1)
    in_parts, weights_of_parts = trained(parts, replicas, jit_compile)
    np.testing.assert_allclose(in_parts["loss"], whole["loss"], rtol=1e-5)
    np.testing.assert_allclose(in_parts["accuracy"], whole["accuracy"], rtol=1e-6)
    for ours, theirs in zip(weights_of_parts, weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("parts", "replicas", "jit_compile"), [(1, 1, False), (3, 1, True), (2, 2, False)]
)
def test_batch_normalisation_averages_over_parts_and_replicas(
    parts, replicas, jit_compile
):
    with logical_cpus(replicas).scope():
        inputs = keras.Input((3,))
        norm = keras.layers.BatchNormalization(momentum=0.9)
        own = keras_alexnet.AlexNet(inputs, keras.layers.Dense(1)(norm(inputs)))
        own.compile(DecayedMomentum(0.1), "mse", jit_compile=jit_compile)
    own.micro_batches = parts
    x = np.random.default_rng(0).normal(2, 3, (24, 3)).astype("float32")
    own.fit(x, np.zeros((24, 1)), batch_size=24, shuffle=False, verbose=0)
    # Each part is a batch of its own, after the one before; replicas take the mean.
    mean, variance = np.zeros((replicas, 3)), np.ones((replicas, 3))
    for part in np.moveaxis(x.reshape(replicas, parts, -1, 3), 1, 0):
        mean = 0.9 * mean + 0.1 * part.mean(axis=1)
        variance = 0.9 * variance + 0.1 * part.var(axis=1)
    for ours, expected in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
        np.testing.assert_allclose(ours.numpy(), expected.mean(axis=0), rtol=1e-5)


def test_examples_without_weights_are_cut_too():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    own = keras_alexnet.AlexNet(model.inputs, model.outputs)
    own.compile(DecayedMomentum(0.1), "mse")
    own.micro_batches = 4
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    expected = np.square(x @ own.get_weights()[0]).mean()
    loss = own.fit(x, np.zeros((8, 1)), batch_size=8, verbose=0).history["loss"][0]
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_reported_loss_is_the_mean_over_the_examples_that_count():
    history, _ = trained(1, steps=1)
    keras.utils.set_random_seed(0)
    model = smooth()
    images, labels, weights = batch()
    probabilities = model.predict(images, verbose=0)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    expected = (weights * losses).sum() / weights.sum()
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)


def test_a_batch_that_cannot_be_cut_is_refused():
    compute = averaged_over_micro_batches(lambda x, y, w: (0.0, x, []), 5)
    with pytest.raises(ValueError, match="batch of 12 cannot be cut into 5 equal"):
        compute(*map(tf.constant, batch()))
