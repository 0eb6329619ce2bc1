"""Decoded dataset: images of one size as bytes, for devices faster than decoders.

`keras-alexnet data SOURCE --to-tfrecord FOLDER --decoded 256` writes it and
`decoded:FOLDER` reads it. An image is the centre square of the shorter side, resized as
in the paper: 256 x 256 x 3 bytes, 250 GB for ImageNet. A file of n images holds first
their pixels, uint8 `(n, side, side, channels)`, then their labels, n little-endian
int32, and then n little-endian uint32, CRC-32 of each image's pixels and label.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Dataset, Split, digest
from keras_alexnet.data.pixels import Batch, Pixels
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.errors import UserError

SUFFIX = ".pixels"
# Of an image: its label and its checksum.
_FOOTER = 8


def write_decoded(path: Path, batches: Iterable[Batch]) -> None:
    """Writes a file of images.

    Args:
        path: The file.
        batches: uint8 images, int32 labels, and weights: 0 for what is left out.
    """
    labels, checksums = [], []
    with path.open("wb") as file:
        for images, numbers, weights in batches:
            for image, label, weight in zip(images, numbers, weights, strict=True):
                if weight:
                    file.write(image.tobytes())
                    labels.append(label)
                    checksums.append(_checksum(image, label))
        file.write(np.array(labels, "<i4").tobytes())
        file.write(np.array(checksums, "<u4").tobytes())


def open_decoded(folder: Path, channels: int | None) -> Dataset:
    """Opens a folder of decoded images; of them, only labels and checksums are read.

    Args:
        folder: What the command wrote.
        channels: 1 for grey, 3 for RGB; as they are by default.

    Raises:
        ValueError: There is no such folder, or a file is cut off.
    """
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
        shape = (index["decoded"], index["decoded"], index["channels"])
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{folder} holds no decoded images: write some with keras-alexnet data "
            "SOURCE --to-tfrecord FOLDER --decoded 256."
        ) from None
    skipped = Skipped()
    splits = {
        split: _open_split(
            [folder / f for f in index["checksums"] if Path(f).parts[0] == split],
            shape,
            len(names),
            digest([index["fingerprint"].encode(), split.encode()]),
            skipped,
        )
        for split in index["images"]
    }
    return Dataset(str(folder), tuple(names), channels or shape[2], splits, skipped)


def _open_split(
    files: list[Path],
    shape: tuple[int, int, int],
    classes: int,
    fingerprint: str,
    skipped: Skipped,
) -> Split:
    """Files as a split."""
    size = int(np.prod(shape))
    footers = [_read_footer(file, size) for file in files]
    begins = np.cumsum([0, *(len(labels) for labels, _ in footers)])
    labels, checksums = map(np.concatenate, zip(*footers, strict=True))
    # What is none is damaged, and found to be when it is read.
    labels = np.where((labels >= 0) & (labels < classes), labels, 0).astype(np.int32)

    def place(number: int) -> tuple[Path, int]:
        file = int(np.searchsorted(begins, number, side="right")) - 1
        return files[file], int(number - begins[file])

    def name(number: int) -> str:
        return "{}:{}".format(*place(number))

    def read(number: int) -> np.ndarray | None:
        path, position = place(number)
        with contextlib.suppress(OSError):
            image = np.fromfile(path, np.uint8, size, offset=position * size)
            if _checksum(image, labels[number]) == checksums[number]:
                return image.reshape(shape)
        return None

    def take(numbers: np.ndarray) -> Batch:
        images = np.zeros((len(numbers), *shape), np.uint8)
        weights = np.zeros(len(numbers), np.float32)
        for row, number in enumerate(numbers):
            image = read(number)
            if image is None:  # A fault of a file server may pass.
                image = read(number)
            if image is None:
                skipped.add(name(number), "the pixels do not fit their checksum")
            else:
                images[row], weights[row] = image, 1
        return images, np.where(weights > 0, labels[numbers], 0), weights

    pixels = Pixels(shape[0], shape[2], take)
    return Split(
        int(begins[-1]),
        classes,
        name,
        functools.partial(_read_file, pixels),
        fingerprint,
        labels=labels,
        skipped=skipped,
        pixels=pixels,
    )


def _read_file(pixels: Pixels, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns an image, for whoever reads one by one, as an uncompressed file."""
    images, labels, weights = pixels.batch(index[None])
    check = tf.debugging.Assert(weights[0] > 0, ["the checksum does not fit"])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.io.encode_png(images[0], compression=0), labels[0]


def _read_footer(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels and checksums of a file's images.

    Raises:
        ValueError: The file is missing or cut off.
    """
    try:
        count, rest = divmod(os.path.getsize(path), size + _FOOTER)
        if rest:
            raise UserError(f"{path} is cut off: call what wrote it once more.")
        with path.open("rb") as file:
            file.seek(count * size)
            footer = np.frombuffer(file.read(), "<u4")
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}") from None
    return footer[:count].view("<i4"), footer[count:]


def _checksum(image: np.ndarray, label: int) -> int:
    return zlib.crc32(int(label).to_bytes(4, "little", signed=True), zlib.crc32(image))
