"""The model is an ordinary Keras model whose XLA compilation stays in the replica."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from devices import logical_cpus

import keras_alexnet

SHAPE = (16, 16, 1)


def digits(count=640, size=SHAPE[0]):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images[:count].reshape(-1, 8, 8, 1) * (255 / 16) - 78) / 64
    return tf.image.resize(images, (size, size)).numpy(), labels[:count]


class Losses(keras.callbacks.Callback):
    """Collects the running mean of the loss, step by step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


# XLA's convolutions are slow on CPUs.
NARROW = keras_alexnet.get_architecture("alexnet_mini").widened(1 / 8)


def compiled(replicas, jit_compile, *, learning_rate=1e-3, **arguments):
    keras.utils.set_random_seed(1)
    with logical_cpus(replicas).scope():
        model = keras_alexnet.build(NARROW, input_shape=SHAPE, **arguments)
        model.compile(
            keras.optimizers.SGD(learning_rate, momentum=0.9),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )
    return model


# ReLU and max pooling turn a difference in the last bit, where it crosses a kink, into
# a different gradient, which large steps amplify: a smooth net takes larger ones.
SMOOTH = {"activation": "softplus", "pool": "average_pooling2d", "learning_rate": 1e-2}


@pytest.mark.parametrize("arguments", [{}, SMOOTH], ids=["relu", "smooth"])
def test_two_replicas_with_xla_give_the_losses_of_one_without(arguments):
    images, labels = digits()
    found = []
    for replicas, jit_compile in ((1, False), (2, True)):
        losses = Losses()
        compiled(replicas, jit_compile, dropout=None, **arguments).fit(
            images, labels, batch_size=32, verbose=0, shuffle=False, callbacks=[losses]
        )
        assert len(losses.values) == 20
        found.append(losses.values)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)


def test_fit_evaluate_and_predict_work_with_xla_dropout_and_two_replicas():
    # The last batch is smaller than the others.
    images, labels = digits(18)
    model = compiled(2, True)
    history = model.fit(
        images, labels, batch_size=8, verbose=0, validation_data=(images, labels)
    )
    assert np.isfinite(history.history["val_loss"]).all()
    probabilities = model.predict(images, batch_size=8, verbose=0)
    of_label = probabilities[np.arange(len(labels)), labels]
    loss, accuracy = model.evaluate(images, labels, batch_size=8, verbose=0)
    np.testing.assert_allclose(loss, -np.log(of_label).mean(), rtol=1e-4)
    assert accuracy == pytest.approx(
        (probabilities.argmax(axis=1) == labels).mean(), abs=1e-6
    )


def test_fit_works_with_xla_and_two_replicas_as_keras_makes_them():
    program = """
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(
    cpu, [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras_alexnet
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    narrow = keras_alexnet.get_architecture("alexnet_mini").widened(1 / 8)
    model = keras_alexnet.build(narrow, input_shape=(16, 16, 1))
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
images = np.zeros((8, 16, 16, 1), "float32")
losses = model.fit(images, np.zeros(8), batch_size=8, verbose=0).history["loss"]
assert np.isfinite(losses).all()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=300)


def test_a_model_with_every_layer_frozen_can_be_fitted():
    images, labels = digits(8)
    model = compiled(1, False)
    model.trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(images, labels, verbose=0)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("frozen", ["norm1", "conv1"])
def test_statistics_are_moving_averages_and_not_frozen_kernels(frozen):
    model = keras_alexnet.build("alexnet_mini", norm="batch_normalization")
    assert len(model._statistics()) == 4
    model.get_layer(frozen).trainable = False
    averages = {"norm1": ["norm2"], "conv1": ["norm1", "norm2"]}[frozen]
    expected = [
        average
        for name in averages
        for layer in [model.get_layer(name)]
        for average in (layer.moving_mean, layer.moving_variance)
    ]
    found = model._statistics()
    assert len(found) == len(expected)
    assert all(a is b for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", [np.zeros, tf.zeros])
def test_no_images_have_no_outputs(kind):
    model = keras_alexnet.build("alexnet_mini", input_shape=SHAPE, classes=3)
    assert model(kind((0, *SHAPE))).shape == (0, 3)


def test_sample_weights_and_class_weights_are_honoured():
    images, labels = digits(32)
    model = compiled(1, False, dropout=None)
    weights = np.zeros(32, "float32")
    weights[:8] = 4.0
    weighted = model.evaluate(
        images, labels, sample_weight=weights, batch_size=32, verbose=0
    )[0]
    alone = model.evaluate(images[:8], labels[:8], batch_size=8, verbose=0)[0]
    assert weighted == pytest.approx(alone, rel=1e-5)


def test_the_loss_of_confident_mistakes_is_not_clipped():
    # Through probabilities in float32 it would end at -log(1e-7), about 16.
    images = np.zeros((1, *SHAPE), "float32")
    model = compiled(1, False)
    kernel, bias = model.get_layer("fc8").get_weights()
    model.get_layer("fc8").set_weights(
        [kernel * 0, np.array([200.0] + [0.0] * 9, "float32")]
    )
    loss = model.evaluate(images, np.array([1]), verbose=0)[0]
    assert loss == pytest.approx(200.0)


def test_a_saved_model_loads_in_a_new_process_and_predicts_the_same(tmp_path):
    images, labels = digits(16)
    model = compiled(1, True)
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "expected.npy", model.predict(images, verbose=0))
    program = f"""
import numpy as np, keras_alexnet
model = keras_alexnet.load_model({str(tmp_path / "model.keras")!r})
assert type(model) is keras_alexnet.AlexNet
assert model.jit_compile and model.optimizer.iterations == 1
found = model.predict(np.load({str(tmp_path / "images.npy")!r}), verbose=0)
expected = np.load({str(tmp_path / "expected.npy")!r})
np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
model.fit(np.load({str(tmp_path / "images.npy")!r}), np.zeros(16), verbose=0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_gradients_of_the_input_can_be_taken_for_saliency_maps():
    images, _ = digits(2)
    model = keras_alexnet.build("alexnet_mini", input_shape=SHAPE)
    with tf.GradientTape() as tape:
        watched = tf.constant(images)
        tape.watch(watched)
        best = tf.reduce_max(model(watched), axis=1)
    gradient = tape.gradient(best, watched).numpy()
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0
