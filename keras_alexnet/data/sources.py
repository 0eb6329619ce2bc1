"""Sources: labelled images that can be read in any order."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf
from rich.progress import track

from keras_alexnet.errors import unknown
from keras_alexnet.preprocessing import decode

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png"}


@dataclasses.dataclass(frozen=True)
class Examples:
    """Labelled images, numbered from zero.

    Attributes:
        labels: int32, one class number per image.
        names: What to call each image: a path, or a number within a data set.
        read: Reads an image in a TensorFlow graph: an int64 scalar to a uint8 image of
            shape `(height, width, channels)`.
    """

    labels: np.ndarray
    names: Sequence[str]
    read: Callable[[tf.Tensor], tf.Tensor]

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, split in two.

    Attributes:
        class_names: The classes, in the order of the labels.
        channels: Colour channels of the images: 1 or 3.
        train: What to learn from.
        test: What to judge by.
        skipped: The files that could not be read, each with the reason.
    """

    class_names: tuple[str, ...]
    channels: int
    train: Examples
    test: Examples
    skipped: tuple[tuple[str, str], ...] = ()

    def fingerprint(self) -> str:
        """Returns a digest of which images there are, and which are for testing."""
        text = json.dumps([list(self.train.names), list(self.test.names)])
        return hashlib.sha256(text.encode()).hexdigest()

    def check_unchanged(self, fingerprint: str) -> None:
        """Raises if the images are others than those a run began with.

        Raises:
            ValueError: Files have come, gone or broken since.
        """
        if self.fingerprint() != fingerprint:
            raise ValueError(
                "The images have changed since the run began, so that training and "
                "test images can no longer be told apart. Restore them, or judge by "
                "images from elsewhere with evaluate --data."
            )

    def print_skipped(self) -> None:
        """Names the files that could not be read, and says how many they are."""
        for path, why in self.skipped:
            print(f"Left out {path}: {why}")
        if self.skipped:
            print(f"{len(self.skipped)} unreadable files were left out.")


def open_source(
    spec: str, *, seed: int, test_fraction: float = 0.2, channels: int | None = None
) -> Source:
    """Opens the images that a `--data` argument names.

    Args:
        spec: `digits`, or `folder:PATH`.
        seed: Decides which images are kept for testing.
        test_fraction: Share of each class that is kept for testing, unless the source
            is already split.
        channels: 1 for grey, 3 for RGB; what the source has by default.

    Raises:
        ValueError: The source is unknown, missing, or holds nothing to learn from.
    """
    kind, _, argument = spec.partition(":")
    if spec == "digits":
        return _digits(seed, test_fraction, channels or 1)
    if kind == "folder" and argument:
        return _folder(Path(argument).expanduser(), seed, test_fraction, channels or 3)
    raise ValueError(unknown(spec, "data source", ["digits", "folder:PATH"]))


# === Digits ===


def _digits(seed: int, test_fraction: float, channels: int) -> Source:
    """scikit-learn's 1,797 handwritten digits, which come inside the package."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    # 17 levels of grey, 16 the darkest ink; on the scale of 0-255 that everything else
    # has.
    images = np.round(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    images = np.repeat(images, channels, axis=-1)
    labels = labels.astype(np.int32)

    def examples(indices: np.ndarray) -> Examples:
        pixels = images[indices]

        def read(index: tf.Tensor) -> tf.Tensor:
            # A tensor of the graph that calls, not of the one that is current here.
            return tf.gather(tf.constant(pixels), index)

        names = [f"digits/{index}" for index in indices]
        return Examples(labels[indices], names, read)

    train, test = _split(labels, seed, test_fraction)
    return Source(
        class_names=tuple("0123456789"),
        channels=channels,
        train=examples(train),
        test=examples(test),
    )


# === Folders ===


def _folder(path: Path, seed: int, test_fraction: float, channels: int) -> Source:
    """One sub-folder per class, in `path` itself or in its train/ and val/."""
    if not path.is_dir():
        raise ValueError(f"No such folder: {path}")
    parts = {part.name: part for part in _subfolders(path)}
    held_out = parts.get("val", parts.get("test"))
    if "train" in parts and held_out and len(parts) == 2:
        class_names = _class_names(parts["train"])
        for folder in _subfolders(held_out):
            if folder.name not in class_names:
                raise ValueError(
                    f"{held_out} has a class {folder.name!r}, which "
                    f"{parts['train']} has not."
                )
        files, skipped = _readable_files(parts["train"], class_names, channels)
        train = np.arange(len(files))
        test_files, test_skipped = _readable_files(held_out, class_names, channels)
        test = np.arange(len(test_files)) + len(files)
        files, skipped = files + test_files, skipped + test_skipped
        labels = np.array([label for _, label in files], np.int32)
    else:
        class_names = _class_names(path)
        files, skipped = _readable_files(path, class_names, channels)
        labels = np.array([label for _, label in files], np.int32)
        train, test = _split(labels, seed, test_fraction)
    names = [str(file) for file, _ in files]

    def examples(indices: np.ndarray) -> Examples:
        paths = [names[index] for index in indices]

        def read(index: tf.Tensor) -> tf.Tensor:
            encoded = tf.io.read_file(tf.gather(tf.constant(paths), index))
            return decode(encoded, channels)

        return Examples(labels[indices], paths, read)

    return Source(class_names, channels, examples(train), examples(test), skipped)


def _subfolders(path: Path) -> list[Path]:
    return sorted(
        entry
        for entry in path.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )


def _class_names(path: Path) -> tuple[str, ...]:
    names = tuple(folder.name for folder in _subfolders(path))
    if not names:
        raise ValueError(
            f"{path} has no sub-folders: put the images of each class into a "
            "sub-folder of the class's name."
        )
    if len(names) == 1:
        raise ValueError(
            f"{path} holds only one class, {names[0]!r}: nothing to tell apart."
        )
    return names


def _class_files(path: Path, class_names: Sequence[str]) -> list[tuple[Path, int]]:
    """Lists the files below each class's folder, however deep, with their labels."""
    files = []
    for label, name in enumerate(class_names):
        found = sorted(visible_files(path / name))
        if not any(is_image(file) for file in found):
            raise ValueError(
                f"The class {name!r} in {path} has no images "
                f"({', '.join(sorted(IMAGE_SUFFIXES))})."
            )
        files += [(file, label) for file in found]
    return files


def is_image(file: Path) -> bool:
    """Says whether a file's name ends as that of an image that can be decoded."""
    return file.suffix.lower() in IMAGE_SUFFIXES


def visible_files(path: Path) -> Iterator[Path]:
    """Lists the files below a folder, through links but through each folder once."""
    seen = set()
    for folder, subfolders, files in os.walk(path, followlinks=True):
        # A link to a folder above itself would lead in circles.
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(sub for sub in subfolders if not sub.startswith("."))
        yield from (Path(folder, file) for file in files if not file.startswith("."))


def _readable_files(
    path: Path, class_names: Sequence[str], channels: int
) -> tuple[list[tuple[Path, int]], tuple[tuple[str, str], ...]]:
    """Lists the images that decode, with their labels, and those that do not, and why.

    Raises:
        ValueError: A class has no image that decodes.
    """
    files = _class_files(path, class_names)
    good, skipped = _readable(files, channels)
    missing = set(range(len(class_names))) - {label for _, label in good}
    if missing:
        name = class_names[min(missing)]
        of_class = [file for file, label in files if label == min(missing)]
        first = str(next(file for file in of_class if is_image(file)))
        raise ValueError(
            f"No image of class {name!r} in {path} can be read; the first that was "
            f"tried: {first}: {dict(skipped)[first]}"
        )
    return good, skipped


def _readable(
    files: list[tuple[Path, int]], channels: int
) -> tuple[list[tuple[Path, int]], tuple[tuple[str, str], ...]]:
    """Separates the files that decode from those that do not, with the reasons."""

    def problem(item: tuple[Path, int]) -> str | None:
        if not is_image(item[0]):
            return "not a JPEG, PNG, GIF or BMP file"
        try:
            encoded = item[0].read_bytes()
            if not encoded:
                return "the file is empty"
            decode(tf.constant(encoded), channels)
        except OSError as error:
            return error.strerror or str(error)
        except tf.errors.OpError as error:
            return reason(error)
        return None

    # Decoding releases Python's lock, so threads do help.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        problems = list(
            track(
                pool.map(problem, files),
                description="Checking images",
                total=len(files),
                transient=True,
            )
        )
    good = [item for item, reason in zip(files, problems, strict=True) if not reason]
    skipped = tuple(
        (str(item[0]), reason)
        for item, reason in zip(files, problems, strict=True)
        if reason
    )
    return good, skipped


def reason(error: tf.errors.OpError) -> str:
    """Returns TensorFlow's message without the operation that it came from."""
    message = error.message.split("[Op:")[0].split("{{")[-1]
    return message.split("}} ")[-1].strip().splitlines()[0]


def _split(
    labels: np.ndarray, seed: int, test_fraction: float
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the indices, keeping `test_fraction` of each class for testing."""
    from sklearn.model_selection import train_test_split

    try:
        train, test = train_test_split(
            np.arange(len(labels)),
            test_size=test_fraction,
            random_state=seed,
            stratify=labels,
        )
    except ValueError as error:
        raise ValueError(f"The images cannot be split: {error}") from None
    return np.sort(train), np.sort(test)
