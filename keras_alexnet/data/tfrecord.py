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

import dataclasses
import glob
import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.progress import track

from keras_alexnet.data.dataset import SPLIT_NAMES, Dataset, Split
from keras_alexnet.data.folder import is_irregular, visible_files
from keras_alexnet.data.record_files import Part, RecordFiles
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


@dataclasses.dataclass(frozen=True)
class _Classes:
    """The classes: their names, and the label that the first one has."""

    names: tuple[str, ...]
    first: int


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
    numbers = {key: _number(key, options[key]) for key in ("first", "classes")}
    skipped = Skipped()
    opened = {
        name: _Shards(part, options, skipped) for name, part in _splits(files).items()
    }
    classes = _classes(files, list(opened.values()), **numbers)
    lost = sum(shards.records.lost for shards in opened.values())
    splits = {name: shards.split(classes) for name, shards in opened.items()}
    return Dataset(pattern, classes.names, channels, splits, skipped, lost)


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


class _Shards:
    """The records of several files, with the features that images and labels have.

    Args:
        files: The files.
        options: The names of the features.
        skipped: Where to name what is damaged.
    """

    def __init__(self, files: list[Path], options: dict[str, str], skipped: Skipped):
        self.skipped = skipped
        self.records = RecordFiles([Part(file) for file in files], skipped)
        self._features = options

    def split(self, classes: _Classes) -> Split:
        """Returns the records as a split."""
        image, label = self._features["image"], self._features["label"]

        def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            features = tf.io.parse_single_example(
                self.records.record(index),
                {
                    image: tf.io.FixedLenFeature((), tf.string),
                    label: tf.io.FixedLenFeature((), tf.int64),
                },
            )
            number = features[label] - classes.first
            # Too large for the labels' dtype is as wrong as any other.
            return features[image], tf.cast(
                tf.clip_by_value(number, -1, 2**30), tf.int32
            )

        return Split(
            len(self.records),
            len(classes.names),
            self.records.name,
            read,
            digest=self.records.digest,
            skipped=self.skipped,
        )

    def read_labels(self) -> tuple[np.ndarray, dict[int, str]]:
        """Reads all records for their labels, and the names that belong to these.

        Returns:
            The label of each record, int64, -1 where it cannot be read; and the names.
        """
        label, text = self._features["label"], self._features["text"]

        def parse(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            features = tf.io.parse_single_example(
                self.records.record(index),
                {
                    label: tf.io.FixedLenFeature((), tf.int64),
                    text: tf.io.FixedLenFeature((), tf.string, b""),
                },
            )
            return index, features[label], features[text]

        labels = np.full(len(self.records), -1, np.int64)
        names: dict[int, str] = {}
        records = tf.data.Dataset.range(len(self.records))
        records = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        # What is left out here is named when its image is read.
        batches = records.ignore_errors().batch(512).as_numpy_iterator()
        total = -(-len(self.records) // 512)
        for rows in track(batches, "Reading labels", total, transient=True):
            labels[rows[0]] = rows[1]
            for number, name in zip(rows[1].tolist(), rows[2], strict=True):
                names.setdefault(number, name.decode("utf-8", "replace"))
        return labels, names


def _classes(
    files: list[Path], parts: list[_Shards], first: int | None, classes: int | None
) -> _Classes:
    """Finds out which classes there are."""
    for folder in (files[0].parent, files[0].parent.parent):
        if (folder / CLASSES_FILE).is_file():
            text = (folder / CLASSES_FILE).read_text(encoding="utf-8")
            return _Classes(tuple(text.splitlines()), first or 0)
    if classes is not None:
        return _Classes(tuple(map(str, range(classes))), first or 0)
    read = [shards.read_labels() for shards in parts]
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
    return _Classes(tuple(given), first)
