"""The network that benchmarks compare: the same one for everybody."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_alexnet
from keras_alexnet.benchmarks import networks
from keras_alexnet.benchmarks.limits import Limits, best_product, product_rate
from keras_alexnet.benchmarks.networks import (
    ALEXNET_2012,
    ALEXNET_MINI,
    compiled_for_training,
    images_and_labels,
    network_for,
    ours,
    textbook,
    weights_of,
)


@pytest.mark.parametrize("network", [ALEXNET_2012, ALEXNET_MINI])
def test_the_description_for_peers_is_that_of_our_architecture(network):
    model = keras_alexnet.build(network.architecture)
    assert model.input_shape == (None, network.image_size, network.image_size, 3)
    assert model.output_shape == (None, network.classes)
    for number, conv in enumerate(network.convolutions, 1):
        layer = model.get_layer(f"conv{number}")
        assert layer.filters == conv.filters
        assert layer.kernel_size == (conv.kernel, conv.kernel)
        assert layer.strides == (conv.stride, conv.stride)
        assert getattr(layer, "groups", 1) == conv.groups
        # With steps of one, zeros on both sides keep the size.
        assert conv.padding == {"same": conv.kernel // 2, "valid": 0}[layer.padding]
    assert model.get_layer("fc6").units == network.hidden


def test_textbook_keras_computes_what_ours_does():
    model = ours(ALEXNET_MINI)
    images, _ = images_and_labels(ALEXNET_MINI, 3)
    peer = textbook(ALEXNET_MINI, weights_of(model))
    assert peer.count_params() == model.count_params()
    np.testing.assert_allclose(
        peer.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5
    )


def test_both_optimizers_take_the_same_step(monkeypatch):
    monkeypatch.setattr(networks, "LEARNING_RATE", 1e-5)
    images, labels = images_and_labels(ALEXNET_MINI, 4)
    start = ours(ALEXNET_MINI).get_layer("fc8").get_weights()[0]
    moved = []
    for how in ({}, {"textbook": True}):
        model = keras_alexnet.build(
            "alexnet_mini", input_shape=(28, 28, 3), dropout=None
        )
        model.set_weights(ours(ALEXNET_MINI).get_weights())
        compiled_for_training(model, **how)
        model.train_on_batch(tf.constant(images), tf.constant(labels))
        moved.append(model.get_layer("fc8").get_weights()[0] - start)
    assert np.abs(moved[0]).max() > 0
    np.testing.assert_allclose(*moved, atol=1e-3 * np.abs(moved[0]).max())


def test_weights_and_images_are_the_same_every_time():
    for one, two in zip(
        ours(ALEXNET_MINI).get_weights(),
        ours(ALEXNET_MINI, "bfloat16").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(one, two)
    first, _ = images_and_labels(ALEXNET_MINI, 3)
    more, labels = images_and_labels(ALEXNET_MINI, 7)
    np.testing.assert_array_equal(first, more[:3])
    assert labels.shape == (7,) and labels.max() < ALEXNET_MINI.classes
    keras.backend.clear_session()


def test_quick_benchmarks_take_the_tiny_network():
    assert network_for(quick=True) is ALEXNET_MINI
    assert network_for(quick=False) is ALEXNET_2012


# === What the machine can do at best ===


def test_rates_follow_from_the_work_and_the_median():
    class Contest:
        names = []

        def enter(self, name, candidate):
            self.names.append(name)

    limits = Limits(Contest(), quick=True)
    product32, product16, copy = Contest.names
    seconds = {
        product32: [9.0, 2.0, 1.0],
        "somebody": [1.0],
        product16: [0.5] * 3,
        copy: [4.0] * 3,
    }
    others, rates = limits.split(seconds)
    assert others == {"somebody": [1.0]}
    assert product_rate(rates, "float32") == rates[product32] == 2 * 128**3 / 2.0
    assert product_rate(rates, "bfloat16") == rates[product16]
    # 64 KiB are read and written.
    assert rates[copy] == 2 * 2**16 / 4.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_best_product_is_one_of_those_that_were_tried(dtype):
    name, products = best_product(dtype, (8, 16))
    size = int(name.removeprefix("matrix product of ").removesuffix(f", {dtype}"))
    # As much work, whatever the size.
    assert len(products()) == {8: 8, 16: 1}[size]
