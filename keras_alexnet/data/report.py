"""What a source holds: classes, counts, sizes, problems, and some of its images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

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


def read_labels(examples: Split) -> np.ndarray:
    """Returns the label of each image, int32; -1 where it cannot be read."""
    if examples.labels is not None:
        return examples.labels
    items = examples.items().batch(16)
    batches = read_or_skip(
        items, lambda index: examples.load(index)[1:], examples, (np.int32(-1),)
    )
    return np.concatenate([labels for (labels,) in batches.as_numpy_iterator()])


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

    def works(split: Split) -> tf.data.Dataset:
        def size(index: tf.Tensor) -> tuple[tf.Tensor]:
            return (tf.size(decode(split.load(index)[0], source.channels)),)

        return read_or_skip(split.items().batch(16), size, split, (np.int32(0),))

    for split in source.splits.values():
        batches = works(split)
        for _ in track(batches, "Checking", -(-len(split) // 16), transient=True):
            pass


def sample_images(
    examples: Split, labels: np.ndarray, class_names: Sequence[str]
) -> dict[str, list[np.ndarray]]:
    """Returns some images of some classes, for a contact sheet.

    Args:
        examples: The images.
        labels: The label of each.
        class_names: In the order of the labels.

    Returns:
        At most `IMAGES_SHOWN` uint8 images of each class, by the class's name.
    """
    classes = len(class_names)
    shown = np.linspace(0, classes - 1, min(classes, CLASSES_SHOWN), dtype=int)
    images: dict[str, list[np.ndarray]] = {class_names[label]: [] for label in shown}
    for label in shown:
        # More than are needed, for some may be damaged, which is not what this shows.
        for index in np.flatnonzero(labels == label)[: 2 * IMAGES_SHOWN]:
            found = images[class_names[label]]
            if len(found) < IMAGES_SHOWN:
                with contextlib.suppress(tf.errors.OpError):
                    found.append(decode(examples.file(index), 3).numpy())
    return images
