"""How fast is the training pipeline, and what do a million files and damage cost?

The images are JPEG files with the detail of photographs: 512 x 512 pixels, which are
halved while they are decoded, and 500 x 375, which cannot be. The pipeline is the whole
of the 2012 scheme: reading, looking for damage, decoding, resizing, a random crop,
reflection, colour noise, mean subtraction, batches of 128. Its peers: decoding alone;
what is usually written with tf.data; PIL in two processes. From TFRecord files: the
same pipeline on the same images.

    python -m benchmarks data_pipeline

The second part goes through 5,000 small files, of which 1,000 are damaged in ten ways.
The third lists a million files, links to a thousand, in a process of its own, and
measures its memory and the time to the first batch.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.timing import report
from keras_alexnet.data.augmentation import Augmentation
from keras_alexnet.data.examples import Examples
from keras_alexnet.data.pipeline import evaluation_batches, training_batches
from keras_alexnet.data.shards import write_shards
from keras_alexnet.data.sources import open_source
from keras_alexnet.preprocessing import get_preprocessing

BATCH_SIZE = 128
FILES = 512
SIZES = ((512, 512), (500, 375))
STEPS = 16
# Batches before the clock starts, and beyond the last: at both ends as much is under
# way, and nothing is counted that was computed before.
STARTING, BEYOND = 3, 4
REPETITIONS = 5
IMAGES = (STARTING + STEPS + BEYOND) * BATCH_SIZE
SMALL_FILES = 5000
MANY_FILES = 1_000_000
# As in training.
PREPROCESSING = get_preprocessing("alexnet_2012", fused_decode=True)
AUGMENTATION = Augmentation(
    PREPROCESSING.image_size,
    horizontal_flip=True,
    color_noise=0.1,
    color_axes=((55.0, 57.0, 56.0), (13.0, 0.0, -13.0), (3.0, -7.0, 3.0)),
)


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Writes smooth noise with grain: 62 to 82 kB a file, as photographs have."""
    random = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC))
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
    candidates: dict[str, tuple[Callable[[], Iterable], int]], repetitions: int
) -> dict[str, list[float]]:
    """Times each candidate once it is under way, then each again, and so on.

    Tracing and starting take a second, which a run pays once.

    Args:
        candidates: What gives results, and how many images are in each result.
        repetitions: How often each is timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repetitions):
        for name, (candidate, images) in candidates.items():
            results = iter(candidate())
            take(results, STARTING * BATCH_SIZE // images)
            started = time.perf_counter()
            take(results, STEPS * BATCH_SIZE // images)
            seconds[name].append(time.perf_counter() - started)
            take(results, BEYOND * BATCH_SIZE // images)
    return seconds


def take(results: Iterator, count: int) -> None:
    """Takes some results and drops them."""
    for _ in range(count):
        next(results)


def ours(examples: Examples) -> tf.data.Dataset:
    """The training pipeline."""
    return training_batches(
        examples,
        PREPROCESSING,
        AUGMENTATION,
        batch_size=BATCH_SIZE,
        seed=0,
        first_step=0,
        last_step=STARTING + STEPS + BEYOND,
    )


def decode_only(names: list[str]) -> tf.data.Dataset:
    """Decodes as many images, and nothing else."""
    files = tf.data.Dataset.from_tensor_slices(names).repeat().take(IMAGES)
    return files.map(
        lambda name: tf.io.decode_jpeg(tf.io.read_file(name), channels=3),
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def usual(names: list[str]) -> tf.data.Dataset:
    """Does what tutorials do: decode, resize, random crop, flip."""

    def load(name: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(name), channels=3)
        image = tf.image.resize(image, (256, 256))
        image = tf.image.random_crop(image, (227, 227, 3))
        return tf.image.random_flip_left_right(image)

    files = tf.data.Dataset.from_tensor_slices(names).shuffle(len(names)).repeat()
    return (
        files.take(IMAGES)
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


def many_files(folder: Path) -> None:
    """Opens a folder of many files and takes one batch; prints what it took."""
    # TensorFlow's own memory, and that of a pipeline, is not the folder's.
    few = open_source(f"folder:{folder / 'few'}", seed=0)
    options = {"batch_size": 32, "seed": 0, "first_step": 0, "last_step": 1}
    consume(training_batches(few.train, PREPROCESSING, AUGMENTATION, **options))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    source = open_source(f"folder:{folder / 'many'}", seed=0)
    opened = time.perf_counter() - started
    consume(training_batches(source.train, PREPROCESSING, AUGMENTATION, **options))
    first_batch = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = {
        "files": len(source.train) + len(source.test),
        "mebibytes": round((after - before) / 1024),
        "seconds_to_open": round(opened, 2),
        "seconds_to_first_batch": round(first_batch, 2),
    }
    print(json.dumps(result))


def make_many(folder: Path, names: list[str]) -> None:
    """Links as many files as ImageNet has, in as many classes."""
    for place in range(MANY_FILES):
        target = folder / "many" / f"n{place % 1000:08d}"
        if place < 1000:
            target.mkdir(parents=True)
            # A file cannot have a million links.
            (target / "0.JPEG").write_bytes(
                Path(names[place % len(names)]).read_bytes()
            )
        else:
            os.link(target / "0.JPEG", target / f"{target.name}_{place}.JPEG")


def ten_kinds_of_damage(whole: bytes) -> list[bytes]:
    """Returns what is left of an image in ten kinds of damage."""
    start_of_frame = whole.index(b"\xff\xc0")
    sized = bytearray(whole)
    sized[start_of_frame + 5 : start_of_frame + 9] = (30_000).to_bytes(2, "big") * 2
    flat = bytearray(sized)
    flat[start_of_frame + 5 : start_of_frame + 9] = bytes(4)
    png = io.BytesIO()
    Image.new("RGB", (40, 40)).save(png, "PNG")
    gif = io.BytesIO()
    Image.new("P", (40, 40)).save(gif, "GIF")
    return [
        b"",
        b"no image",
        whole[:2],
        whole[: len(whole) // 2],
        np.random.default_rng(0).bytes(2000),
        bytes(2000),
        bytes(sized),
        bytes(flat),
        png.getvalue()[:-30],
        gif.getvalue()[:20],
    ]


def damaged_files(folder: Path) -> None:
    """Goes once through images of which many are damaged; prints what it found."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    kinds = ten_kinds_of_damage(file.getvalue())
    for number in range(SMALL_FILES):
        place, kind = divmod(number, 50)
        part = "val" if kind < 5 else "train"
        path = folder / part / f"{place % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Every fifth, in ten kinds.
        path.write_bytes(kinds[kind // 5] if number % 5 == 0 else file.getvalue())
    source = open_source(f"folder:{folder}", seed=0)
    started = time.perf_counter()
    used = 0
    for part in (source.train, source.test):
        for _, _, weights in evaluation_batches(part, PREPROCESSING, BATCH_SIZE):
            used += int(weights.numpy().sum())
    result = {
        "images": source.total,
        "used": used,
        "named": len(source.skipped),
        "seconds": round(time.perf_counter() - started, 1),
    }
    print(json.dumps(result))


def compare(folder: Path, size: tuple[int, int]) -> list[str]:
    """Times the pipeline and its peers on images of one size; returns their names."""
    write_photographs(folder / "few", FILES, size)
    names = sorted(map(str, (folder / "few").rglob("*.jpg")))
    files = open_source(f"folder:{folder / 'few'}", seed=0)
    write_shards(files, folder / "records", 4)
    records = open_source(f"tfrecord:{folder / 'records'}", seed=0)
    chosen = (names * (IMAGES // len(names) + 1))[:IMAGES]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        candidates: dict[str, tuple[Callable[[], Iterable], int]] = {
            "decode_jpeg alone": (lambda: decode_only(names), 1),
            "keras_alexnet, files": (lambda: ours(files.train), BATCH_SIZE),
            "keras_alexnet, TFRecords": (lambda: ours(records.train), BATCH_SIZE),
            "usual tf.data": (lambda: usual(names), BATCH_SIZE),
            # Results stay in the processes: only the work is compared.
            "PIL, two processes": (lambda: pool.imap(_work, chosen, 16), 1),
        }
        seconds = in_turn_once_started(candidates, REPETITIONS)
    question = f"data_pipeline_{size[0]}x{size[1]}"
    report(question, seconds, STEPS * BATCH_SIZE, "decode_jpeg alone")
    return names


def main() -> None:
    """Measures and reports."""
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            compare(Path(temporary), size)
    with tempfile.TemporaryDirectory() as temporary:
        damaged_files(Path(temporary))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder / "few", 8, SIZES[0])
        make_many(folder, sorted(map(str, (folder / "few").rglob("*.jpg"))))
        program = [sys.executable, "-m", "benchmarks.data_pipeline", str(folder)]
        subprocess.run(program, check=True)


def _work(name: str) -> None:
    with_pil(name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        many_files(Path(sys.argv[1]))
    else:
        main()
