"""Our networks with the weights that every peer has, and their training step."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

import keras_alexnet
import keras_alexnet.benchmarks as benchmarks
from keras_alexnet.architectures import get_architecture
from keras_alexnet.benchmarks.comparison import (
    TENSORFLOW,
    Comparison,
    Work,
    check_outputs,
)
from keras_alexnet.benchmarks.limits import add_limits, report_limits
from keras_alexnet.benchmarks.machine import has_gpu
from keras_alexnet.benchmarks.networks import (
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
    sample_images,
    weights_of,
)
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.export.saved_model import export_saved_model
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.model import POLICIES
from keras_alexnet.training.optimizer import DecayedMomentum


def ours(network: str, precision: str = "float32") -> keras.Model:
    """Builds a network with this package, with the weights of `weights_of`.

    Args:
        network: The name of an architecture.
        precision: Of the computations, such as `"bfloat16"`.
    """
    has_gpu()  # Before its first use.
    return with_weights(keras_alexnet.build(network, dtype=POLICIES[precision]))


def with_weights(model: keras.Model) -> keras.Model:
    """Gives a model that is called like an architecture the weights that all have."""
    for name, values in weights_of(model.name).items():
        model.get_layer(name).set_weights(values)
    return model


def multiply_adds(model: keras.Model) -> int:
    """Counts the multiply-adds of the forward pass of one image."""
    return sum(
        math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:-1])
        for layer in model.layers
        if hasattr(layer, "kernel")
    )


def reference(network: str) -> tuple[np.ndarray, int]:
    """Returns our probabilities of `sample_images`, in float32, and multiply-adds."""
    model = ours(network)
    return model.predict_on_batch(sample_images(network)), multiply_adds(model)


def compare(
    report: Report,
    network: str,
    batch_size: int,
    make: Callable[..., Work],
    forms: Mapping[str, Mapping[str, object]],
    baseline: Callable[[Mapping], str | None],
) -> None:
    """Times our forms of some work, and every peer's, beside the limits.

    Args:
        report: Where all is reported.
        network: What all build.
        batch_size: Images of a batch.
        make: `training_step` or `inference`.
        forms: Other arguments of `make`, by name.
        baseline: From seconds by candidate to the one that ratios are relative to.
    """
    if report.options.time_is_up:
        return
    with Comparison(report) as comparison:
        comparison.begin(case := f"{network}, batch {batch_size}")
        work = add_limits(comparison)
        expected, adds = None, None
        with comparison.optional("the check of outputs"):
            expected, adds = comparison.call(TENSORFLOW, reference, network=network)
        common = {"network": network, "batch_size": batch_size, "expected": expected}
        for name, arguments in forms.items():
            comparison.add(f"keras_alexnet {name}", make, **arguments, **common)
        if peers := benchmarks.find_peers():
            peers.add(comparison, {"function": make.__name__, **common})
        rates, seconds = report_limits(report, work, comparison.run())
    limits = {}
    if make is training_step and adds:
        # 6 operations for each multiply-add of the forward pass.
        limits = {k: rate / (6 * adds) for k, rate in rates.items() if k != "copy"}
    report.add(case, seconds, batch_size, baseline=baseline(seconds), limits=limits)


def check_model(model: keras.Model, expected: np.ndarray | None, dtype: str) -> None:
    """Makes sure that a model computes what is expected of `sample_images`, if known.

    Raises:
        ArithmeticError: It does not.
    """
    if expected is None:
        return
    dtype = "TF32" if dtype == "float32" and has_gpu() else dtype
    check_outputs(model.predict_on_batch(sample_images(model.name)), expected, dtype)


def noise(network: str, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes images, float32, and labels, on the device."""
    architecture = get_architecture(network)
    size, classes = architecture.input_size, architecture.classes
    images = tf.random.stateless_normal((batch_size, size, size, 3), (0, 1), 0.0, 60.0)
    labels = tf.random.stateless_uniform((batch_size,), (0, 2), 0, classes, "int32")
    return images, labels


def compiled(model: keras.Model, xla: bool = False) -> keras.Model:
    """Compiles one of our models for training, in place; `xla` compiles its step."""
    optimizer = DecayedMomentum(
        LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=xla)
    optimizer.build(model.trainable_variables)
    return model


def training_step(
    network: str,
    precision: str,
    batch_size: int,
    expected: np.ndarray | None = None,
    xla: bool = False,
) -> Work:
    """Makes training steps of one of our models on a batch that is on the device."""
    model = compiled(ours(network, precision), xla)
    check_model(model, expected, precision)
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
    network: str,
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
    model = ours(network, precision)
    model.compile(jit_compile=xla)
    check_model(model, expected, precision)
    images, _ = noise(network, batch_size)
    if form == "predict_on_batch":
        call = model.predict_on_batch
    elif form == "SavedModel":
        archive = exported(model)

        def call(x: tf.Tensor) -> tf.Tensor:
            return archive.serve(x)["probabilities"]
    else:
        call = tf.function(model.predict_step, autograph=False)

    def work(count: int) -> float:
        for _ in range(count):
            outputs = call(images)
        return float(outputs[0, 0])

    return work


def exported(model: keras.Model):
    """Exports a model and loads the SavedModel, which takes mean-free pixels here."""
    size = model.input_shape[1]
    neutral = Preprocessing(size, size, 3, (0.0,) * 3, scale=1.0)
    with tempfile.TemporaryDirectory() as folder:
        names = list(map(str, range(model.output_shape[-1])))
        export_saved_model(model, folder, neutral, names)
        return tf.saved_model.load(folder)
