"""Folder of images: one sub-folder per class, in `train/`, `val/`, `test/` or not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import SPLIT_NAMES, Dataset, Split, digest
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError
from keras_alexnet.images.limits import KINDS

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def open_folder(path: Path, channels: int) -> Dataset:
    """Opens one sub-folder per class, in `path` itself or in folders named as splits.

    No image is read: the contents decide later whether a file is one.

    Args:
        path: The folder. Where all of its sub-folders are named as splits are (train,
            training, val, valid, validation, test, testing, whatever the case), they
            are the splits. Hidden sub-folders, `__MACOSX` and those without any file
            are ignored.
        channels: 1 for grey, 3 for RGB.

    Raises:
        ValueError: The folder is missing, has no classes, or a class has no images.
    """
    if not path.is_dir():
        raise UserError(f"No such folder: {path}")
    skipped = Skipped()
    folders = _subfolders(path)
    if not folders:
        raise UserError(
            f"{path} has no sub-folders: put the images of each class into a "
            "sub-folder of the class's name."
        )
    names = [SPLIT_NAMES.get(folder.name.lower()) for folder in folders]
    if None in names:
        classes = [folder.name for folder in folders]
        splits = {"all": _list_images(path, classes, classes, skipped)}
        return Dataset(str(path), tuple(classes), channels, splits, skipped)
    if len(set(names)) < len(names):
        found = ", ".join(folder.name for folder in folders)
        raise UserError(f"{path} has two folders for the same split: {found}")
    inside = {
        name: (folder, [one.name for one in _subfolders(folder)])
        for name, folder in zip(names, folders, strict=True)
    }
    classes = sorted({one for _, there in inside.values() for one in there})
    if not classes:
        raise UserError(f"{folders[0]} has no sub-folders of classes.")
    splits = {
        name: _list_images(folder, classes, there, skipped)
        for name, (folder, there) in inside.items()
    }
    return Dataset(str(path), tuple(classes), channels, splits, skipped)


def _subfolders(path: Path) -> list[Path]:
    """Lists the sub-folders that hold files, in alphabetical order."""
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir()
        and not entry.name.startswith(".")
        and entry.name != "__MACOSX"
        and _holds_files(entry)
    )


def _holds_files(path: Path) -> bool:
    with os.scandir(path) as entries:
        # Nearly always the first one says so.
        if any(not one.name.startswith(".") and not one.is_dir() for one in entries):
            return True
    return next(visible_files(path), None) is not None


def _list_images(
    path: Path, class_names: Sequence[str], there: Sequence[str], skipped: Skipped
) -> Split:
    """Split of the files below each class's folder, however deep.

    `there` are the classes that have a folder in this split.
    """
    counts = np.zeros(len(class_names), np.int64)

    def images() -> Iterator[str]:
        for label, name in enumerate(class_names):
            if name not in there:
                continue
            # Class by class: what is done file by file is done a million times.
            # A pipe would be waited for.
            irregular: set[str] = set()
            files = list(visible_files(path / name, irregular))
            found = [file for file in files if is_image(file)]
            if irregular:
                found = [file for file in found if file not in irregular]
            if len(found) < len(files):
                for file in sorted(set(files).difference(found)):
                    reason = f"not a {KINDS} file"
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
    return file_split(path, files, labels, len(class_names), skipped)


def file_split(
    root: Path, files: Strings, labels: np.ndarray, classes: int, skipped: Skipped
) -> Split:
    """Image files as a split; paths start from `root` unless they are absolute."""
    with tf.init_scope(), tf.device("CPU:0"):
        label_tensor = tf.constant(labels, tf.int32)
    prefix = os.fsencode(root) + b"/"

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        path = files.tensor(index)
        absolute = tf.strings.regex_full_match(path, "(?s)/.*")
        path = tf.where(absolute, path, tf.strings.join([prefix, path]))
        return tf.io.read_file(path), tf.gather(label_tensor, index)

    return Split(
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


def is_irregular(file: str | Path) -> bool:
    """Says whether a file is a pipe, a socket or a device, which may never end."""
    return os.path.exists(file) and not os.path.isfile(file)


def visible_files(path: Path, irregular: set[str] | None = None) -> Iterator[str]:
    """Lists the files below a folder, through links but through each folder once.

    Args:
        path: The folder.
        irregular: Takes those of the files that are pipes, sockets and devices.

    Yields:
        Paths relative to the folder, in the order of their parts.
    """
    return _walk(str(path), "", set(), set() if irregular is None else irregular)


def _walk(
    folder: str, prefix: str, seen: set[str], irregular: set[str]
) -> Iterator[str]:
    real = os.path.realpath(folder)
    # A link to a folder above itself would lead in circles.
    if real in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
    names = sorted([entry.name for entry in visible])
    subfolders = {entry.name for entry in visible if entry.is_dir()}
    for entry in visible:
        # Mostly known from the listing, without asking for each file.
        if not entry.is_file() and not entry.is_dir() and is_irregular(entry.path):
            irregular.add(prefix + entry.name)
    if not subfolders:
        yield from map(prefix.__add__, names)
        return
    for name in names:
        if name in subfolders:
            inner = f"{prefix}{name}/"
            yield from _walk(f"{folder}/{name}", inner, seen, irregular)
        else:
            yield prefix + name
