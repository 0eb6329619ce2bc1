"""How fast is the 2012 training pipeline, against decoding alone and the usual code?

All read the same JPEG files, which are made of two photographs that scikit-learn
carries: parts of them, at the usual 500 x 375 pixels and at 1365 x 1024, where decoding
is fused. Decoding alone leaves out everything else; the
usual code resizes without antialiasing unless it is asked for it.

    keras-alexnet benchmark augmentation
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report
from keras_alexnet.benchmarks.timing import in_turn
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.measure import published_axes
from keras_alexnet.images.preprocessing import MODES, Preprocessing

FILES = 192
REPETITIONS = 7
BATCH_SIZE = 64


def write_files(folder: Path, count: int, shorter: int) -> list[str]:
    """Writes JPEG files of different parts of the photographs."""
    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    paths = []
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        part = rng.uniform(0.75, 1)
        width, height = (int(part * length) for length in photograph.size)
        left = rng.integers(photograph.width - width + 1)
        top = rng.integers(photograph.height - height + 1)
        image = photograph.crop((left, top, left + width, top + height))
        image = image.resize((shorter * 4 // 3, shorter), Image.Resampling.BICUBIC)
        paths.append(str(folder / f"{number}.jpg"))
        image.save(paths[-1], quality=90)
    return paths


def decoding_alone(path: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Decodes and does nothing else."""
    return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)


def usual(antialias: bool) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Decodes, resizes, crops and flips as in most programs."""

    def image(path: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        pixels = decoding_alone(path, position)
        shape = tf.cast(tf.shape(pixels)[:2], tf.float32)
        shape = tf.cast(tf.round(shape * 256 / tf.reduce_min(shape)), tf.int32)
        pixels = tf.image.resize(pixels, shape, antialias=antialias)
        pixels = tf.image.random_crop(pixels, (227, 227, 3))
        return tf.image.random_flip_left_right(pixels)

    return image


def ours(preprocessing: Preprocessing) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Decodes, resizes, crops, flips, adds colour noise."""
    augmentation = Augmentation(
        227, horizontal_flip=True, color_noise=0.1, color_axes=published_axes()
    )

    def image(path: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        seed = tf.stack([tf.constant(0, tf.int64), position])
        draws = augmentation.draw(seed)[0]
        return augmentation.of_file(tf.io.read_file(path), preprocessing, draws)

    return image


def drained(
    paths: list[str],
    image: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    finish: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> Callable[[], None]:
    """Returns a function that goes once through all images, in batches if finished."""
    dataset = tf.data.Dataset.from_tensor_slices(paths).enumerate()
    dataset = dataset.map(
        lambda position, path: image(path, position),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    if finish:
        dataset = dataset.batch(BATCH_SIZE).map(finish)
    # Images keep every core busy; operations that share them among cores cost more.
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    dataset = dataset.with_options(options).prefetch(tf.data.AUTOTUNE)

    def run() -> None:
        for _ in dataset:
            pass

    return run


def run(options: Options) -> None:
    """Measures and reports."""
    files, repetitions = (4, 2) if options.quick else (FILES, REPETITIONS)
    report = Report("augmentation", options)
    for shorter in (375, 1024):
        with tempfile.TemporaryDirectory() as folder:
            paths = write_files(Path(folder), files, shorter)
            exact = MODES["alexnet_2012"]
            fused = dataclasses.replace(exact, fused_decode=True)
            candidates = {
                "decoding alone": drained(paths, decoding_alone),
                "usual": drained(paths, usual(False), exact.normalize),
                "usual, antialiased": drained(paths, usual(True), exact.normalize),
                "keras_alexnet": drained(paths, ours(fused), fused.normalize),
                "keras_alexnet, not fused": drained(
                    paths, ours(exact), exact.normalize
                ),
            }
            seconds = in_turn(candidates, repetitions)
            case = f"{shorter * 4 // 3} x {shorter} pixels"
            report.add(case, seconds, files, baseline="decoding alone")
    report.write()
