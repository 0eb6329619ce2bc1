"""What a source holds: classes, counts, sizes, problems, and some of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

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


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large images are.

    Attributes:
        measured: How many have been looked at.
        smallest: Width and height of the one with the fewest pixels.
        median: Of the one in the middle.
        largest: Of the one with the most.
    """

    measured: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]


def count_labels(examples: Split, classes: int) -> np.ndarray:
    """Counts the images of each class, reading them where labels are not known.

    Args:
        examples: The images.
        classes: The number of classes.

    Returns:
        int64, `(classes,)`. What cannot be read is not counted.
    """
    labels = examples.labels
    if labels is None:

        def label(index: tf.Tensor, *record: tf.Tensor) -> tuple[tf.Tensor]:
            return examples.load(index, *record)[1:]

        batches = _all(examples, label, blank=(np.int32(-1),))
        labels = np.concatenate([labels for (labels,) in batches])
    return np.bincount(labels[labels >= 0], minlength=classes)


def measure_sizes(examples: Split) -> Sizes | None:
    """Reads the sizes of images from their headers, of a sample where they are many.

    Returns:
        The sizes; None where none can be read.
    """
    chosen = np.random.default_rng(0).permutation(len(examples))[:SAMPLE]
    if examples.stream is None:
        files = tf.data.Dataset.from_tensor_slices(chosen.astype(np.int64)).map(
            lambda index: examples.read(index)[0], num_parallel_calls=tf.data.AUTOTUNE
        )
    else:
        files = examples.stream(0).take(SAMPLE).map(lambda encoded, _: encoded)
    sizes = files.map(image_size).ignore_errors().as_numpy_iterator()
    known = [
        (int(width), int(height))
        for height, width in sizes
        if 0 < height * width <= MAX_PIXELS
    ]
    if not known:
        return None
    known.sort(key=lambda size: size[0] * size[1])
    return Sizes(len(known), known[0], known[len(known) // 2], known[-1])


def check_images(source: Dataset) -> None:
    """Decodes every image, so that `source.skipped` names all that are damaged."""

    def works(examples: Split) -> Iterator[None]:
        def pixels(index: tf.Tensor, *record: tf.Tensor) -> tuple[tf.Tensor]:
            encoded, _ = examples.load(index, *record)
            return (tf.size(decode(encoded, source.channels)),)

        yield from _all(examples, pixels, blank=(np.int32(0),))

    for part in source.splits.values():
        batches = works(part)
        for _ in track(batches, "Checking", -(-len(part) // 16), transient=True):
            pass


def sample_images(source: Dataset) -> dict[str, list[np.ndarray]]:
    """Returns some images of some classes, for a contact sheet.

    Args:
        source: The images; of streams, the first ones are taken.

    Returns:
        At most `IMAGES_SHOWN` decoded images of each class, by the class's name.
    """
    classes = len(source.class_names)
    shown = np.unique(
        np.linspace(0, classes - 1, min(classes, CLASSES_SHOWN), dtype=int)
    )
    images: dict[int, list[np.ndarray]] = {int(label): [] for label in shown}
    for label, encoded in _candidates(source.train, images):
        if len(images[label]) < IMAGES_SHOWN:
            try:
                image = decode(encoded, source.channels)
            except tf.errors.OpError:
                continue  # Not what a picture can show.
            images[label].append(image.numpy())
    return {source.class_names[label]: found for label, found in images.items()}


def _candidates(
    examples: Split, wanted: dict[int, list[np.ndarray]]
) -> Iterator[tuple[int, tf.Tensor]]:
    """Yields label and bytes of images that may be drawn, more than are needed."""
    if examples.labels is not None:
        for label in wanted:
            for index in np.flatnonzero(examples.labels == label)[: 2 * IMAGES_SHOWN]:
                try:
                    yield label, examples.file(int(index))
                except tf.errors.OpError:
                    continue
        return
    if examples.stream is None:
        order = np.random.default_rng(0).permutation(len(examples))[:SAMPLE]
        pairs = tf.data.Dataset.from_tensor_slices(order.astype(np.int64))
        pairs = pairs.map(examples.read, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        pairs = examples.stream(0).take(SAMPLE)
    for encoded, label in pairs.ignore_errors():
        if int(label) in wanted:
            yield int(label), encoded


def _all(examples: Split, function, blank) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields what a function gives of all images, in batches of 16."""
    if examples.stream is None:
        items = tf.data.Dataset.range(len(examples)).map(lambda index: (index,))
    else:
        items = examples.stream(0).enumerate()
        items = items.map(lambda index, record: (index, *record))
    batches = read_or_skip(
        items.batch(16),
        function,
        examples=examples,
        number=lambda index, *_: index,
        blank=blank,
    )
    return batches.as_numpy_iterator()
