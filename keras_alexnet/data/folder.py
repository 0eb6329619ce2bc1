"""Folders of images: one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_alexnet.data.examples import Examples, Source, digest
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def folder(path: Path, seed: int, test_fraction: float, channels: int) -> Source:
    """Opens one sub-folder per class, in `path` itself or in its train/ and val/.

    No image is read: the contents decide later whether a file is one.

    Args:
        path: The folder.
        seed: Decides which images are kept for testing.
        test_fraction: Share of each class that is kept for testing, unless the folder
            is split already.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: The folder is missing or holds nothing to learn from.
    """
    if not path.is_dir():
        raise UserError(f"No such folder: {path}")
    parts = {part.name: part for part in _subfolders(path)}
    held_out = parts.get("val", parts.get("test"))
    skipped = Skipped()
    if "train" not in parts or not held_out or len(parts) != 2:
        class_names = _class_names(path)
        examples = _examples(path, class_names, skipped)
        return Source.split(class_names, channels, examples, seed, test_fraction)
    class_names = _class_names(parts["train"])
    for subfolder in _subfolders(held_out):
        if subfolder.name not in class_names:
            raise UserError(
                f"{held_out} has a class {subfolder.name!r}, which {parts['train']} "
                "has not."
            )
    train = _examples(parts["train"], class_names, skipped)
    test = _examples(held_out, class_names, skipped)
    return Source(class_names, channels, train, test, skipped)


def _subfolders(path: Path) -> list[Path]:
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _subfolders(path))
    if not names:
        raise UserError(
            f"{path} has no sub-folders: put the images of each class into a "
            "sub-folder of the class's name."
        )
    if len(names) == 1:
        raise UserError(
            f"{path} holds only one class, {names[0]!r}: nothing to tell apart."
        )
    return names


def _examples(path: Path, class_names: tuple[str, ...], skipped: Skipped) -> Examples:
    """Lists the files below each class's folder, however deep."""
    counts = np.zeros(len(class_names), np.int64)

    def images() -> Iterator[str]:
        for label, name in enumerate(class_names):
            # Class by class: what is done file by file is done a million times.
            files = list(visible_files(path / name))
            found = [file for file in files if is_image(file)]
            if len(found) < len(files):
                for file in sorted(set(files).difference(found)):
                    reason = "not a JPEG, PNG, GIF or BMP file"
                    skipped.add(str(path / name / file), reason, damaged=False)
            counts[label] = len(found)
            if not found:
                raise UserError(
                    f"The class {name!r} in {path} has no images "
                    f"({', '.join(IMAGE_SUFFIXES)})."
                )
            yield from map(f"{name}/".__add__, found)

    files = Strings(images())
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), counts)
    return file_examples(path, files, labels, len(class_names), skipped)


def file_examples(
    root: Path, files: Strings, labels: np.ndarray, classes: int, skipped: Skipped
) -> Examples:
    """Returns files as examples.

    Args:
        root: The folder that the paths start from.
        files: Their paths; absolute ones start from nowhere else.
        labels: int32, one per file.
        classes: The number of classes.
        skipped: Where to name what cannot be used.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        label_tensor = tf.constant(labels, tf.int32)
    prefix = os.fsencode(root) + b"/"

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        path = files.tensor(index)
        absolute = tf.strings.regex_full_match(path, "(?s)/.*")
        path = tf.where(absolute, path, tf.strings.join([prefix, path]))
        return tf.io.read_file(path), tf.gather(label_tensor, index)

    return Examples(
        len(files),
        classes,
        name=lambda index: os.path.join(root, files.text(index)),
        read=read,
        digest=digest([files.digest.encode(), labels.astype("<i4").tobytes()]),
        labels=labels,
        skipped=skipped,
    )


def is_image(file: str | Path) -> bool:
    """Says whether a file's name ends as that of an image that can be decoded."""
    return str(file).lower().endswith(IMAGE_SUFFIXES)


def visible_files(path: Path) -> Iterator[str]:
    """Lists the files below a folder, through links but through each folder once.

    Yields:
        Paths relative to the folder, in the order of their parts.
    """
    return _walk(str(path), "", set())


def _walk(folder: str, prefix: str, seen: set[str]) -> Iterator[str]:
    real = os.path.realpath(folder)
    # A link to a folder above itself would lead in circles.
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    names = sorted([entry.name for entry in visible])
    subfolders = {entry.name for entry in visible if entry.is_dir()}
    if not subfolders:
        yield from map(prefix.__add__, names)
        return
    for name in names:
        if name in subfolders:
            yield from _walk(f"{folder}/{name}", f"{prefix}{name}/", seen)
        else:
            yield prefix + name
