"""How fast is the training pipeline, and what does a folder of a million files cost?

The images are JPEG files of 500 x 400 pixels with the detail of photographs. The
pipeline is the whole of the 2012 scheme: reading, looking for damage, decoding,
resizing, a random crop, reflection, colour noise, mean subtraction, batches of 128. Its
peers: decoding alone; what is usually written with tf.data; PIL in two processes. From
TFRecord files: the same pipeline on the same images.

    keras-alexnet benchmark data_pipeline

The second part lists a million files, links to a thousand, in a process of its own, and
measures its memory and the time to the first batch.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_alexnet.benchmarks.machine import peak_memory
from keras_alexnet.benchmarks.processes import call_in_a_process
from keras_alexnet.benchmarks.questions import Options
from keras_alexnet.benchmarks.report import Report, write_json
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.examples import Examples
from keras_alexnet.data.pipeline import training_batches
from keras_alexnet.data.shards import write_shards
from keras_alexnet.data.sources import open_source
from keras_alexnet.preprocessing import get_preprocessing

BATCH_SIZE = 128
FILES = 512
STEPS = 24
REPETITIONS = 7
MANY_FILES = 1_000_000
PREPROCESSING = get_preprocessing("alexnet_2012")
AUGMENTATION = Augmentation(
    PREPROCESSING.image_size,
    horizontal_flip=True,
    color_noise=0.1,
    color_axes=((55.0, 57.0, 56.0), (13.0, 0.0, -13.0), (3.0, -7.0, 3.0)),
)


def write_photographs(folder: Path, count: int) -> None:
    """Writes smooth noise with grain: 65 kB a file, as photographs of this size."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8))
        smooth = np.asarray(coarse.resize((500, 400), Image.Resampling.BICUBIC))
        grain = random.integers(-12, 13, smooth.shape)
        pixels = (smooth + grain).clip(0, 255).astype(np.uint8)
        path = folder / f"{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def consume(dataset: tf.data.Dataset) -> None:
    """Takes all batches."""
    for _ in dataset:
        pass


def in_turn_once_started(
    candidates: dict[str, Callable[[], Iterable]], repetitions: int
) -> dict[str, list[float]]:
    """Times each candidate after its first result, then each again, and so on.

    Tracing and starting take a second, which a run pays once.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repetitions):
        for name, candidate in candidates.items():
            results = iter(candidate())
            next(results)
            started = time.perf_counter()
            for _ in results:
                pass
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ours(examples: Examples, steps: int) -> tf.data.Dataset:
    """The training pipeline."""
    return training_batches(
        examples,
        PREPROCESSING,
        AUGMENTATION,
        batch_size=BATCH_SIZE,
        seed=0,
        first_step=0,
        last_step=steps,
    )


def decode_only(names: list[str], steps: int) -> tf.data.Dataset:
    """Decodes as many images, and nothing else."""
    files = tf.data.Dataset.from_tensor_slices(names).repeat().take(steps * BATCH_SIZE)
    return files.map(
        lambda name: tf.io.decode_jpeg(tf.io.read_file(name), channels=3),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def usual(names: list[str], steps: int) -> tf.data.Dataset:
    """Does what tutorials do: decode, resize, random crop, flip."""

    def load(name: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(name), channels=3)
        image = tf.image.resize(image, (256, 256))
        image = tf.image.random_crop(image, (227, 227, 3))
        return tf.image.random_flip_left_right(image)

    files = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names)).repeat()
    return (
        files.take(steps * BATCH_SIZE)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH_SIZE)
        .prefetch(tf.data.AUTOTUNE)
    )


def with_pil(name: str) -> np.ndarray:
    """Does the same to one image with PIL and NumPy."""
    with Image.open(name) as image:
        short = min(image.size)
        left, top = (image.width - short) // 2, (image.height - short) // 2
        square = image.convert("RGB").crop((left, top, left + short, top + short))
    pixels = np.asarray(square.resize((256, 256), Image.Resampling.BILINEAR))
    top, left = np.random.randint(0, 30, 2)
    pixels = pixels[top : top + 227, left : left + 227]
    return pixels[:, ::-1] if np.random.rand() < 0.5 else pixels


def many_files(directory: str) -> dict[str, float]:
    """Opens a folder of many files and takes one batch; returns what it took."""
    folder = Path(directory)
    # TensorFlow's own memory, and that of a pipeline, is not the folder's.
    few = open_source(f"folder:{folder / 'few'}", seed=0)
    options = {"batch_size": 32, "seed": 0, "first_step": 0, "last_step": 1}
    consume(training_batches(few.train, PREPROCESSING, AUGMENTATION, **options))
    before = peak_memory()
    started = time.perf_counter()
    source = open_source(f"folder:{folder / 'many'}", seed=0)
    opened = time.perf_counter() - started
    consume(training_batches(source.train, PREPROCESSING, AUGMENTATION, **options))
    first_batch = time.perf_counter() - started
    return {
        "files": len(source.train) + len(source.test),
        "mebibytes": round((peak_memory() - before) / 2**20),
        "seconds_to_open": round(opened, 2),
        "seconds_to_first_batch": round(first_batch, 2),
    }


def make_many(folder: Path, names: list[str], count: int) -> None:
    """Links as many files as ImageNet has, in as many classes."""
    for place in range(count):
        target = folder / "many" / f"n{place % 1000:08d}"
        if place < 1000:
            target.mkdir(parents=True)
            # A file cannot have a million links.
            (target / "0.JPEG").write_bytes(
                Path(names[place % len(names)]).read_bytes()
            )
        else:
            os.link(target / "0.JPEG", target / f"{target.name}_{place}.JPEG")


def run(options: Options) -> None:
    """Measures and reports."""
    quick = options.quick
    count, steps, repetitions = (16, 2, 2) if quick else (FILES, STEPS, REPETITIONS)
    images = steps * BATCH_SIZE
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder / "few", count)
        names = sorted(map(str, (folder / "few").rglob("*.jpg")))
        files = open_source(f"folder:{folder / 'few'}", seed=0)
        write_shards(files, folder / "records", 4)
        records = open_source(f"tfrecord:{folder / 'records'}", seed=0)
        chosen = (names * (images // len(names) + 1))[:images]
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            candidates: dict[str, Callable[[], Iterable]] = {
                "decode_jpeg alone": lambda: decode_only(names, steps),
                "keras_alexnet, files": lambda: ours(files.train, steps),
                "keras_alexnet, TFRecords": lambda: ours(records.train, steps),
                "usual tf.data": lambda: usual(names, steps),
                # Results stay in the processes: only the work is compared.
                "PIL, two processes": lambda: pool.imap(_work, chosen, 16),
            }
            seconds = in_turn_once_started(candidates, repetitions)
        report = Report("data_pipeline", options, batch_size=BATCH_SIZE)
        report.add("500 x 400 pixels", seconds, images, "decode_jpeg alone")
        report.write()
        make_many(folder, names, 5_000 if quick else MANY_FILES)
        found = call_in_a_process(many_files, str(folder))
        print(json.dumps(found))
        write_json("many_files", options, results=found)


def _work(name: str) -> None:
    with_pil(name)
