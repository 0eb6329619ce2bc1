"""Our networks with the weights that every peer has, and their training step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
import keras_alexnet.benchmarks as benchmarks
from keras_alexnet.benchmarks.comparison import (
    TENSORFLOW,
    Comparison,
    Work,
    check_outputs,
)
from keras_alexnet.benchmarks.limits import Limits
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.networks import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    Network,
    sample_images,
    weights_of,
)
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.export.saved_model import export_saved_model
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.training.optimizer import DecayedMomentum
from keras_alexnet.training.precision import POLICIES


def ours(network: Network, precision: str = "float32") -> keras.Model:
    """Builds the network with this package, with the weights of `weights_of`.

    Args:
        network: What to build.
        precision: Of the computations, such as `"bfloat16"`.
    """
    size = network.image_size
    model = keras_alexnet.build(
        network.architecture,
        input_shape=(size, size, 3),
        classes=network.classes,
        dtype=POLICIES[precision],
    )
    for name, values in weights_of(network).items():
        model.get_layer(name).set_weights(values)
    return model


def expected_outputs(network: Network) -> np.ndarray:
    """Returns our probabilities of `sample_images`, in float32."""
    has_gpu()
    return ours(network).predict_on_batch(sample_images(network))


def compare(
    report: Report,
    case: str,
    network: Network,
    batch_size: int,
    make: Callable[..., Work],
    forms: Mapping[str, Mapping[str, object]],
) -> tuple[dict, dict]:
    """Times our forms of some work, and every peer's, beside the limits.

    Args:
        report: Where limits, and who is left out, are reported.
        case: What is done.
        network: What all build.
        batch_size: Images of a batch.
        make: `training_step` or `inference`.
        forms: Other arguments of `make`, by name.

    Returns:
        Rates of the limits, and seconds by candidate; see `Limits.report`.
    """
    with Comparison(report.options) as comparison:
        limits, expected = Limits(comparison), None
        with comparison.optional("the check of outputs"):
            expected = comparison.call(TENSORFLOW, expected_outputs, network=network)
        common = {"network": network, "batch_size": batch_size, "expected": expected}
        for name, arguments in forms.items():
            comparison.add(f"keras_alexnet {name}", make, **arguments, **common)
        if peers := benchmarks.find_peers():
            peers.add(comparison, {"function": make.__name__, **common})
        seconds = comparison.run()
        report.skip({f"{case}: {k}": why for k, why in comparison.skipped.items()})
    return limits.report(report, seconds)


def check_model(
    model: keras.Model, network: Network, expected: np.ndarray | None, dtype: str
) -> None:
    """Makes sure that a model computes what is expected of `sample_images`, if known.

    Raises:
        ArithmeticError: It does not.
    """
    if expected is None:
        return
    dtype = "TF32" if dtype == "float32" and has_gpu() else dtype
    outputs = model.predict_on_batch(sample_images(network))
    check_outputs(outputs, expected, dtype)


def noise(network: Network, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes images, float32, and labels, on the device."""
    shape = (batch_size, network.image_size, network.image_size, 3)
    images = 60 * tf.random.stateless_normal(shape, (0, 1))
    classes = network.classes
    return images, tf.random.stateless_uniform(
        (batch_size,), (0, 2), 0, classes, "int32"
    )


def compiled(model: keras.Model, xla: bool = False) -> keras.Model:
    """Compiles one of our models for training, in place; `xla` compiles its step."""
    optimizer = DecayedMomentum(
        LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=xla)
    optimizer.build(model.trainable_variables)
    return model


def training_step(
    network: Network,
    precision: str,
    batch_size: int,
    expected: np.ndarray | None = None,
    xla: bool = False,
) -> Work:
    """Makes training steps of one of our models on a batch that is on the device."""
    has_gpu()
    model = compiled(ours(network, precision), xla)
    check_model(model, network, expected, precision)
    return steps_of(model, noise(network, batch_size))


def steps_of(model: keras.Model, batch: tuple, xla: bool = False) -> Work:
    """Makes training steps of a compiled model on one batch.

    Args:
        model: Ours or another.
        batch: On the device.
        xla: Whether XLA compiles all of it; our models see to that themselves.
    """
    # Metrics are made by the first call, which must not be within a graph.
    classes = model.output_shape[-1]
    shape = (len(batch[1]), classes)
    model.compute_metrics(None, batch[1], tf.fill(shape, 1 / classes), None)
    step = tf.function(model.train_step, autograph=False, jit_compile=xla or None)

    def work(count: int) -> float:
        for _ in range(count):
            logs = step(batch)
        return float(logs["loss"])

    return work


def inference(
    network: Network,
    precision: str,
    batch_size: int,
    form: str,
    expected: np.ndarray | None = None,
    xla: bool = False,
) -> Work:
    """Makes forward passes of one of our models.

    Args:
        network: What classifies.
        precision: Of the computations.
        batch_size: Images of a batch, which is on the device.
        form: `"traced"`, `"predict_on_batch"`, which copies the outputs to the host, or
            `"SavedModel"`, which subtracts the mean too.
        expected: Probabilities of `sample_images`.
        xla: Whether XLA compiles it.
    """
    has_gpu()
    model = ours(network, precision)
    model.compile(jit_compile=xla)
    check_model(model, network, expected, precision)
    images, _ = noise(network, batch_size)
    if form == "predict_on_batch":
        call = model.predict_on_batch
    elif form == "SavedModel":
        archive = exported(model, network)

        def call(x: tf.Tensor) -> tf.Tensor:
            return archive.serve(x)["probabilities"]
    else:
        call = tf.function(model.predict_step, autograph=False)

    def work(count: int) -> float:
        for _ in range(count):
            outputs = call(images)
        return float(outputs[0, 0])

    return work


def exported(model: keras.Model, network: Network):
    """Exports a model and loads the SavedModel, which takes mean-free pixels here."""
    size = network.image_size
    neutral = Preprocessing(size, size, 3, (0.0,) * 3, scale=1.0)
    with tempfile.TemporaryDirectory() as folder:
        names = list(map(str, range(network.classes)))
        export_saved_model(model, folder, neutral, names)
        return tf.saved_model.load(folder)
