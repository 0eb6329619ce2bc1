"""How fast is the training pipeline?

The images are JPEG files with the detail of photographs: 512 x 512 pixels, which are
halved while they are decoded, and 500 x 375, which cannot be. The pipeline is the whole
of the 2012 scheme: reading, looking for damage, decoding, resizing, a random crop,
reflection, colour noise, mean subtraction, batches of 128. Its peers: decoding alone,
and what is usually written with tf.data. From TFRecord files: the same pipeline on the
same images. From decoded ones (`--decoded 256`): up to the bytes that are handed to a
device, which crops and changes them. Time by the clock, and CPU time.

    keras-alexnet benchmark data_pipeline
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.benchmarks.report import Report
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.dataset import Split
from keras_alexnet.data.opening import open_dataset
from keras_alexnet.data.pipeline import training_batches
from keras_alexnet.data.shards import write_shards
from keras_alexnet.images.preprocessing import get_preprocessing

BATCH_SIZE = 128
FILES = 512
SIZES = ((512, 512), (500, 375))
STEPS = 16
# Batches before the clock starts, and beyond the last: at both ends as much is under
# way, and nothing is counted that was computed before. More than are computed at once.
STARTING, BEYOND = 8, 8
ALL = STARTING + STEPS + BEYOND
# As in training.
PREPROCESSING = get_preprocessing("alexnet_2012", fused_decode=True)
AUGMENTATION = Augmentation(
    PREPROCESSING.image_size,
    horizontal_flip=True,
    color_noise=0.1,
    color_axes=((55.0, 57.0, 56.0), (13.0, 0.0, -13.0), (3.0, -7.0, 3.0)),
)


def run(report: Report) -> None:
    """Measures and reports."""
    report.settings["batch_size"] = BATCH_SIZE
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            compare(report, Path(temporary), size)


def compare(report: Report, folder: Path, size: tuple[int, int]) -> None:
    """Times the pipeline and its peers on images of one size."""
    names = write_photographs(
        folder / "few", 16 if report.options.quick else FILES, size
    )
    files = open_dataset(f"folder:{folder / 'few'}", seed=0)
    write_shards(files, folder / "records", 4)
    records = open_dataset(f"tfrecord:{folder / 'records'}", seed=0)
    write_shards(files, folder / "decoded", 4, PREPROCESSING.resize_size)
    decoded = open_dataset(f"decoded:{folder / 'decoded'}", seed=0)
    candidates: dict[str, Callable[[], Iterable]] = {
        "decode_jpeg alone": lambda: decode_only(names),
        "keras_alexnet, files": lambda: ours(files.train),
        "keras_alexnet, TFRecords": lambda: ours(records.train),
        "keras_alexnet, decoded": lambda: ours(decoded.train, on_device=True),
        "usual tf.data": lambda: usual(names),
    }
    clocks = {"": time.perf_counter, ", CPU time": time.process_time}
    seconds = {kind: {name: [] for name in candidates} for kind in clocks}
    for _ in range(report.options.repetitions):
        for name, candidate in candidates.items():
            for kind, found in zip(clocks, measure(candidate(), clocks), strict=True):
                seconds[kind][name].append(found)
    for kind, found in seconds.items():
        case = f"{size[0]} x {size[1]} pixels{kind}"
        report.add(case, found, STEPS * BATCH_SIZE, baseline="decode_jpeg alone")


def measure(batches: Iterable, clocks: dict[str, Callable]) -> list[float]:
    """Returns the seconds of `STEPS` batches, by each clock, once they are under way.

    Tracing and starting take a second, which a run pays once.
    """
    iterator = iter(batches)
    for _ in itertools.islice(iterator, STARTING):
        pass
    started = [clock() for clock in clocks.values()]
    for _ in itertools.islice(iterator, STEPS):
        pass
    ended = [clock() for clock in clocks.values()]
    for _ in iterator:
        pass
    return [after - before for before, after in zip(started, ended, strict=True)]


def ours(examples: Split, *, on_device: bool = False) -> tf.data.Dataset:
    """The training pipeline."""
    return training_batches(
        examples,
        PREPROCESSING,
        AUGMENTATION,
        batch_size=BATCH_SIZE,
        seed=0,
        first_step=0,
        last_step=ALL,
        on_device=on_device,
    )


def decode_only(names: list[str]) -> tf.data.Dataset:
    """Decodes as many images, and nothing else; the last of each batch is returned."""
    files = tf.data.Dataset.from_tensor_slices(names).repeat()
    images = files.take(ALL * BATCH_SIZE).map(
        lambda name: tf.io.decode_jpeg(tf.io.read_file(name), channels=3),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return images.shard(BATCH_SIZE, BATCH_SIZE - 1)


def usual(names: list[str]) -> tf.data.Dataset:
    """Does what tutorials do: decode, resize, random crop, flip."""

    def load(name: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(name), channels=3)
        image = tf.image.resize(image, (256, 256))
        image = tf.image.random_crop(image, (227, 227, 3))
        return tf.image.random_flip_left_right(image)

    files = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names)).repeat()
    return (
        files.take(ALL * BATCH_SIZE)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH_SIZE)
        .prefetch(tf.data.AUTOTUNE)
    )


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Writes JPEG files of smooth noise with grain, in two classes.

    Args:
        folder: Where to.
        count: How many.
        size: Width and height: 62 kB a file for 500 x 375, 82 kB for 512 x 512, as
            photographs have.

    Returns:
        Their names.
    """
    names = []
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
        grain = random.integers(-12, 13, smooth.shape)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)
        names.append(str(path))
    return names
