"""Comparison of an export with the model that it was made from, on images."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from rich.table import Table

from keras_alexnet.data.dataset import Split
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.inspect.tables import make_table
from keras_alexnet.model import AlexNet

# uint8 images of `(batch, height, width, channels)` to probabilities.
Run = Callable[[np.ndarray], np.ndarray]
BATCH = 32


class Example(NamedTuple):
    """An image that exports are compared on.

    Attributes:
        image: `(height, width, channels)`, uint8, of any size.
        prepared: The same as large as the network's input, float32, 0-255.
        label: The number of its class among the network's outputs, or -1.
    """

    image: np.ndarray
    prepared: np.ndarray
    label: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What an export makes of some images, beside the model.

    Attributes:
        images: How many there were.
        difference: The largest absolute difference of two probabilities.
        agreement: For how many of the images the likeliest class is the model's, 0-1.
        lost: By how much the model's top-1 accuracy is higher, 0-1; None where it is
            not known which class an image has.
        seconds: Median time for 1 image and for 32 of the network's size: of the
            export, and of the model's `predict_on_batch`.
    """

    images: int
    difference: float
    agreement: float
    lost: float | None
    seconds: tuple[tuple[float, float], tuple[float, float]]


def read_examples(
    split: Split, preprocessing: Preprocessing, count: int, outputs: np.ndarray | None
) -> Iterator[Example]:
    """Reads images of a split, evenly spaced; damaged ones are left out.

    Args:
        split: Where they are.
        preprocessing: What the model expects.
        count: How many at most.
        outputs: For each class of the split the model's output; None where it is not
            known.
    """
    if count < len(split):
        split = split.select(np.linspace(0, len(split) - 1, count).astype(int))

    def read(*item: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        encoded, label = split.load(*item)
        image = preprocessing.decode(encoded)
        return image, preprocessing.prepare(image), label

    rows = split.items().map(read, num_parallel_calls=tf.data.AUTOTUNE)
    for image, prepared, label in rows.ignore_errors().as_numpy_iterator():
        yield Example(image, prepared, -1 if outputs is None else int(outputs[label]))


def noise(preprocessing: Preprocessing, count: int = 16) -> Iterator[Example]:
    """Makes images where there are none."""
    side = preprocessing.image_size
    shape = (count, side, side, preprocessing.channels)
    for image in np.random.default_rng(0).integers(0, 256, shape, "uint8"):
        yield Example(image, preprocessing.prepare(image).numpy(), -1)


def compare(
    run: Run, model: AlexNet, examples: Iterable[Example], *, any_size: bool
) -> Comparison:
    """Compares an export with a model, batch by batch.

    Args:
        run: The export.
        model: The model, which knows its preprocessing.
        examples: Images, at least one.
        any_size: Whether the export takes images of any size, one at a time; or else
            those of the network's size, whose pixels are rounded for both sides.
    """
    normalize = model.metadata.preprocessing.normalize

    def predict(pixels: np.ndarray) -> np.ndarray:
        return model.predict_on_batch(normalize(pixels))

    examples, found = iter(examples), []
    while batch := list(itertools.islice(examples, BATCH)):
        pixels = np.stack([example.prepared for example in batch])
        sized = np.round(pixels).astype("uint8")
        if any_size:
            actual = np.concatenate([run(example.image[None]) for example in batch])
        else:
            actual, pixels = run(sized), sized
        labels = np.array([example.label for example in batch])
        found.append((actual, predict(pixels), labels))
    actual, expected, labels = map(np.concatenate, zip(*found, strict=True))
    best, wanted = actual.argmax(1), expected.argmax(1)
    lost = np.mean(wanted == labels) - np.mean(best == labels)
    many = np.resize(sized, (BATCH, *sized.shape[1:]))
    return Comparison(
        images=len(labels),
        difference=float(np.abs(actual - expected).max()),
        agreement=float(np.mean(best == wanted)),
        lost=None if labels.min() < 0 else float(lost),
        seconds=tuple(
            (_time(function, many[:1]), _time(function, many))
            for function in (run, predict)
        ),
    )


def _time(run: Run, pixels: np.ndarray, repeats: int = 5) -> float:
    """Returns the median time of a call that is not the first, in seconds."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run(pixels)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def make_comparison_table(name: str, size: int, comparison: Comparison) -> Table:
    """Returns a table of an export beside its model.

    Args:
        name: What the export is called.
        size: Its size, in bytes.
        comparison: What was measured.
    """
    headings = ("", ">largest difference", ">same top-1", ">top-1 lost", ">MB")
    headings += (">ms, 1 image", f">ms, {BATCH} images")
    lost = comparison.lost
    cells = (
        f"{comparison.difference:.1e}",
        f"{comparison.agreement:.2%}",
        "-" if lost is None else f"{100 * lost:.2f} points",
        f"{size / 1e6:,.1f}",
    )
    rows = [
        (label, *values, *(f"{1000 * second:.1f}" for second in seconds))
        for label, values, seconds in zip(
            (name, "the model"),
            (cells, ("-",) * len(cells)),
            comparison.seconds,
            strict=True,
        )
    ]
    return make_table(None, headings, rows)
