"""TFRecord dataset: files of encoded images, such as ImageNet's are usually made into.

`tfrecord:FILES` takes a folder or a pattern, and options behind it, all with defaults:
`tfrecord:FILES?image=image/encoded&label=image/class/label&text=image/class/text&
first=1&classes=1000`. `image`, `label` and `text` name the features that hold an image,
its label and its class's name; `first` is the label of the first class, and `classes`
says how many there are.

Where the name of each file, or of its folder, begins with the name of a split (train,
val, validation, test and their other forms), these are the splits. The names of the
classes are in a `classes.txt`, one a line, beside the files or in the folder above.
Without it, and without `classes`, all records are read once to find out.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.progress import track

from keras_alexnet.data.dataset import SPLIT_NAMES, Dataset
from keras_alexnet.data.folder import is_irregular, visible_files
from keras_alexnet.data.records import Part, RecordFiles
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError

CLASSES_FILE = "classes.txt"
OPTIONS = {
    "image": "image/encoded",
    "label": "image/class/label",
    "text": "image/class/text",
    "first": "",
    "classes": "",
}
NO_RECORDS = {".csv", ".json", ".txt"}


def open_tfrecord(pattern: str, options: dict[str, str], channels: int) -> Dataset:
    """Opens TFRecord files.

    Only lengths of records are read, so that any record can be read at any time.
    Damaged ones are named, and those behind them found again.

    Args:
        pattern: A folder or a pattern of files.
        options: As said above.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: There are no such files, or they hold no labelled images.
    """
    files = _files(os.path.expanduser(pattern))
    first, classes = (_number(key, options[key]) for key in ("first", "classes"))
    skipped = Skipped()
    opened = {
        name: RecordFiles([Part(file) for file in part], skipped)
        for name, part in _splits(files).items()
    }
    names, first = _classes(files, opened.values(), options, first, classes)
    parse = _parser(options, first)
    splits = {name: one.split(parse, len(names)) for name, one in opened.items()}
    lost = sum(records.lost for records in opened.values())
    return Dataset(pattern, names, channels, splits, skipped, lost)


def _number(name: str, text: str) -> int | None:
    if text and not text.isdecimal():
        raise UserError(f"The option {name} must be a number. Received: {text!r}")
    return int(text) if text else None


def _files(pattern: str) -> list[Path]:
    if os.path.isdir(pattern):
        found = [Path(pattern, file) for file in visible_files(Path(pattern))]
    else:
        found = sorted(map(Path, glob.glob(pattern, recursive=True)))
    files = [
        file
        for file in found
        if file.suffix not in NO_RECORDS and not is_irregular(file)
    ]
    if not files:
        raise UserError(f"No such files: {pattern}")
    return files


def _splits(files: list[Path]) -> dict[str, list[Path]]:
    """Returns the files of each split; all as one where not all names say theirs."""
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        words = (re.match("[a-z]*", name)[0] for name in (file.name, file.parent.name))
        named = (SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES)
        splits.setdefault(next(named, None), []).append(file)
    return {"all": files} if None in splits else splits


def _parser(
    options: dict[str, str], first: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns what finds image and label in a record."""
    image, label = options["image"], options["label"]

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_single_example(
            record,
            {
                image: tf.io.FixedLenFeature((), tf.string),
                label: tf.io.FixedLenFeature((), tf.int64),
            },
        )
        # Too large for the labels' dtype is as wrong as any other.
        number = tf.clip_by_value(features[label] - first, -1, 2**30)
        return features[image], tf.cast(number, tf.int32)

    return parse


def _read_labels(
    records: RecordFiles, options: dict[str, str]
) -> tuple[np.ndarray, dict[int, str]]:
    """Labels of all records that can be read, int64, and the names that they have."""
    label, text = options["label"], options["text"]

    def parse(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = tf.io.parse_single_example(
            records.record(index),
            {
                label: tf.io.FixedLenFeature((), tf.int64),
                text: tf.io.FixedLenFeature((), tf.string, b""),
            },
        )
        return features[label], features[text]

    labels, names = [np.zeros(0, np.int64)], {}
    rows = tf.data.Dataset.range(len(records))
    rows = rows.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
    # What is left out here is named when its image is read.
    batches = rows.ignore_errors().batch(512).as_numpy_iterator()
    total = -(-len(records) // 512)
    for numbers, texts in track(batches, "Reading labels", total, transient=True):
        labels.append(numbers)
        for number, name in zip(numbers.tolist(), texts, strict=True):
            names.setdefault(number, name.decode("utf-8", "replace"))
    return np.concatenate(labels), names


def _classes(
    files: list[Path],
    parts: Iterable[RecordFiles],
    options: dict[str, str],
    first: int | None,
    classes: int | None,
) -> tuple[tuple[str, ...], int]:
    """Names of the classes, and the label that the first one has."""
    for folder in (files[0].parent, files[0].parent.parent):
        if (folder / CLASSES_FILE).is_file():
            text = (folder / CLASSES_FILE).read_text(encoding="utf-8")
            return tuple(text.splitlines()), first or 0
    if classes is not None:
        return tuple(map(str, range(classes))), first or 0
    read = [_read_labels(records, options) for records in parts]
    labels = np.unique(np.concatenate([labels[labels >= 0] for labels, _ in read]))
    if not len(labels):
        raise UserError(
            f"No record of {files[0]} has a label: name the features that it has, as "
            "in tfrecord:FILES?image=image/encoded&label=image/class/label"
        )
    first = int(labels[0]) if first is None else first
    if labels[-1] - first >= 2**20:
        raise UserError(
            f"A record has the label {labels[-1]}: say how many classes there are, as "
            "in tfrecord:FILES?classes=1000"
        )
    names = {number: name for _, found in read for number, name in found.items()}
    numbers = range(first, int(labels[-1]) + 1)
    given = [names.get(number, "") for number in numbers]
    if not all(given) or len(set(given)) < len(given):
        # Names that do not tell the classes apart.
        given = [str(number) for number in numbers]
    return tuple(given), first
