"""What do larger images, and more classes, cost?

A training step and inference of alexnet_2012 for images of 67 to 451 pixels, and for 10
to 10,000 classes, in float32 and bfloat16, beside textbook Keras.

    keras-alexnet benchmark size
"""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_alexnet.benchmarks.contest import Candidate, Contest
from keras_alexnet.benchmarks.networks import (
    Network,
    compiled_for_training,
    images_and_labels,
    network_for,
    ours,
    textbook,
    weights_of,
)
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report

BATCH_SIZE = 16
IMAGE_SIZES = (67, 131, 227, 323, 451)
CLASSES = (10, 100, 1000, 10_000)
BASELINE = "keras_alexnet float32, training"


def run(options: Options) -> None:
    """Measures and reports, over image sizes and over classes."""
    network = network_for(options.quick)
    image_sizes, classes = ((28,), (20,)) if options.quick else (IMAGE_SIZES, CLASSES)
    over_images = {
        size: dataclasses.replace(network, image_size=size) for size in image_sizes
    }
    over_classes = {
        count: dataclasses.replace(network, classes=count) for count in classes
    }
    for question, axis, networks in (
        ("size_images", "image size (pixels)", over_images),
        ("size_classes", "classes", over_classes),
    ):
        report = Report(question, options, batch_size=BATCH_SIZE)
        for number, variant in networks.items():
            _measure(report, str(number), variant, options)
        report.write(axis)


def _measure(report: Report, case: str, network: Network, options: Options) -> None:
    images, labels = images_and_labels(network, BATCH_SIZE)
    batch = tf.constant(images), tf.constant(labels)
    contest = Contest(options)

    def training(model: keras.Model, **how: bool) -> Candidate:
        compiled_for_training(model, **how)
        return lambda: model.train_on_batch(*batch)

    model = ours(network)
    weights = weights_of(model)
    for dtype, entrant in (("float32", model), ("bfloat16", ours(network, "bfloat16"))):
        contest.enter(f"keras_alexnet {dtype}, training", training(entrant))
        contest.enter(f"keras_alexnet {dtype}, inference", _inference(entrant, images))
    peer = textbook(network, weights)
    contest.invite("textbook float32, training", lambda: training(peer, textbook=True))
    contest.invite("textbook float32, inference", lambda: _inference(peer, images))
    report.add(case, contest.run(), BATCH_SIZE, BASELINE, contest.skipped)
    # The next network needs the memory.
    keras.backend.clear_session()


def _inference(model: keras.Model, images: np.ndarray) -> Candidate:
    return lambda: model.predict_on_batch(images)
