"""What a source holds: classes, counts, sizes, problems, and some of its images."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import tensorflow as tf
from rich.progress import track

from keras_alexnet.data.attempts import read_or_skip
from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.images.limits import MAX_PIXELS, image_size
from keras_alexnet.images.preprocessing import decode

# Sizes are read of at most so many images.
SAMPLE = 1000
# What a contact sheet shows: more could not be seen.
CLASSES_SHOWN, IMAGES_SHOWN = 12, 8


def count_labels(examples: Split, classes: int) -> np.ndarray:
    """Number of images of each class, int64; those that cannot be read do not count."""
    labels = examples.labels
    if labels is None:

        def label(index: tf.Tensor) -> tuple[tf.Tensor]:
            return examples.load(index)[1:]

        items = examples.items().batch(16)
        batches = read_or_skip(items, label, examples, (np.int32(-1),))
        labels = np.concatenate([labels for (labels,) in batches.as_numpy_iterator()])
    return np.bincount(labels[labels >= 0], minlength=classes)


def measure_sizes(examples: Split) -> list[tuple[int, int]]:
    """Reads the sizes of images from their headers, of a sample where they are many.

    Returns:
        Width and height of each that can be read, those with the fewest pixels first.
    """
    sizes = examples.items(0, SAMPLE, seed=0).map(
        lambda index: image_size(examples.load(index)[0]),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    known = [
        (int(width), int(height))
        for height, width in sizes.ignore_errors().as_numpy_iterator()
        if 0 < height * width <= MAX_PIXELS
    ]
    return sorted(known, key=math.prod)


def check_images(source: Dataset) -> None:
    """Decodes every image, so that `source.skipped` names all that are damaged."""

    def works(part: Split) -> tf.data.Dataset:
        def pixels(index: tf.Tensor) -> tuple[tf.Tensor]:
            return (tf.size(decode(part.load(index)[0], source.channels)),)

        return read_or_skip(part.items().batch(16), pixels, part, (np.int32(0),))

    for part in source.splits.values():
        batches = works(part)
        for _ in track(batches, "Checking", -(-len(part) // 16), transient=True):
            pass


def sample_images(source: Dataset) -> dict[str, list[np.ndarray]]:
    """Returns some images of some classes, for a contact sheet.

    Args:
        source: The images.

    Returns:
        At most `IMAGES_SHOWN` decoded images of each class, by the class's name.
    """
    classes = len(source.class_names)
    shown = np.unique(
        np.linspace(0, classes - 1, min(classes, CLASSES_SHOWN), dtype=int)
    )
    images: dict[int, list[np.ndarray]] = {int(label): [] for label in shown}
    items = source.train.items(0, SAMPLE, seed=0)
    if source.train.labels is not None:
        # More than are needed, for some may be damaged.
        places = [np.flatnonzero(source.train.labels == label) for label in shown]
        chosen = np.concatenate([own[: 2 * IMAGES_SHOWN] for own in places])
        items = tf.data.Dataset.from_tensor_slices(chosen.astype(np.int64))
    files = items.map(source.train.load, num_parallel_calls=tf.data.AUTOTUNE)
    for encoded, label in files.ignore_errors():
        label = int(label)
        if label in images and len(images[label]) < IMAGES_SHOWN:
            # What is damaged is not what a picture can show.
            with contextlib.suppress(tf.errors.OpError):
                images[label].append(decode(encoded, source.channels).numpy())
    return {source.class_names[label]: found for label, found in images.items()}
