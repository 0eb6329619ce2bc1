"""Writing a source as TFRecord files, which are faster to read than many small files.

The folder holds a folder of records for each split, `classes.txt`, `index.json` with
checksums, and `skipped.csv` if anything could not be read. `tfrecord:FOLDER` reads it.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from rich.progress import Progress

from keras_alexnet.data.attempts import read_or_skip
from keras_alexnet.data.dataset import Dataset, Split
from keras_alexnet.data.decoded import SUFFIX, write_decoded
from keras_alexnet.data.pixels import Batch
from keras_alexnet.data.tfrecord import CLASSES_FILE
from keras_alexnet.errors import UserError
from keras_alexnet.files import digest_of, replacing, write_whole
from keras_alexnet.images.preprocessing import get_preprocessing

# As many as ImageNet's 1,024 customary shards hold: 140 MB of photographs.
IMAGES_PER_SHARD = 1250


def write_shards(
    source: Dataset,
    folder: Path,
    shards: int | None = None,
    decoded: int | None = None,
) -> None:
    """Writes all images of a source, as they are encoded, into TFRecord files.

    The files of a split hold the same number of images, within one, and are shuffled,
    for readers that go from the first record to the last. What cannot be read is left
    out and named; whether the others decode is not looked at. Called again after it was
    stopped, it writes what is missing.

    Args:
        source: The images.
        folder: Where to write; it is made, or holds what an earlier call has written.
        shards: How many files of training images; the test images are put into files
            of the same size. By default `IMAGES_PER_SHARD` images in each.
        decoded: Height and width of images that are written decoded and resized, into
            files that `keras_alexnet.data.decoded` describes; None for encoded ones.

    Raises:
        ValueError: There are more files than images, or the folder holds other things.
    """
    counts = {name: len(split) for name, split in source.splits.items()}
    shards = shards or -(-counts["train"] // IMAGES_PER_SHARD)
    if not 1 <= shards <= counts["train"]:
        raise UserError(
            f"{counts['train']:,} training images cannot be put into {shards:,} files."
        )
    numbers = {
        name: max(1, round(count * shards / counts["train"]))
        for name, count in counts.items()
    }
    described = {
        "fingerprint": source.fingerprint(),
        "images": counts,
        "files": numbers,
    }
    if decoded is not None:
        described |= {"decoded": decoded, "channels": source.channels}
    index = _begin(folder, described)
    write_whole(folder / CLASSES_FILE, "\n".join(source.class_names) + "\n")
    suffix = ".tfrecord" if decoded is None else SUFFIX
    with Progress(transient=True) as progress:
        task = progress.add_task("Writing", total=sum(counts.values()))
        for split, examples in source.splits.items():
            # The first ones are longer by one where it does not come out even.
            ends = [
                len(examples) * number // numbers[split]
                for number in range(numbers[split] + 1)
            ]
            for number, (begin, end) in enumerate(itertools.pairwise(ends)):
                name = f"{split}/{split}-{number:05d}-of-{numbers[split]:05d}{suffix}"
                if not _is_written(folder, name, index):
                    items = examples.items(begin, end, seed=0).batch(16)
                    with replacing(folder / name) as partial:
                        if decoded is None:
                            with tf.io.TFRecordWriter(str(partial)) as writer:
                                for record in _records(examples, items, source):
                                    writer.write(record)
                        else:
                            pixels = _decoded(examples, items, decoded, source.channels)
                            write_decoded(partial, pixels)
                        index["checksums"][name] = _checksum(partial)
                    if len(source.skipped):
                        source.skipped.write(folder / "skipped.csv")
                    _write_index(folder, index)
                progress.advance(task, end - begin)


def _begin(folder: Path, described: dict[str, Any]) -> dict[str, Any]:
    """Makes the folder, or reads how far an earlier call came.

    Raises:
        ValueError: It holds something else.
    """
    index = {**described, "checksums": {}}
    if (folder / "index.json").is_file():
        with contextlib.suppress(ValueError):
            found = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            if {**found, "checksums": {}} == index:
                return found
        raise UserError(
            f"{folder} holds other images, or as many in another number of files: "
            "choose another folder."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there and holds other things.")
    for part in described["images"]:
        (folder / part).mkdir(parents=True, exist_ok=True)
    _write_index(folder, index)
    return index


def _write_index(folder: Path, index: dict[str, Any]) -> None:
    write_whole(folder / "index.json", json.dumps(index, indent=2) + "\n")


def _is_written(folder: Path, name: str, index: dict[str, Any]) -> bool:
    checksum = index["checksums"].get(name)
    return (folder / name).is_file() and _checksum(folder / name) == checksum


def _checksum(path: Path) -> str:
    return digest_of(path).removeprefix("sha256:")


def _decoded(
    examples: Split, items: tf.data.Dataset, side: int, channels: int
) -> Iterator[Batch]:
    """Yields batches of uint8 images, labels, and weights of 0 for damaged ones."""
    geometry = get_preprocessing(
        "none",
        image_size=side,
        resize_size=side,
        channels=channels,
        mean=(0.0,) * channels,
    )

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        encoded, label = examples.load(number)
        image = geometry.resize(geometry.decode(encoded))
        return tf.cast(tf.round(image), tf.uint8), label, tf.constant(1.0)

    blank = np.zeros((side, side, channels), np.uint8), np.int32(0), np.float32(0)
    return read_or_skip(items, read, examples, blank).as_numpy_iterator()


def _records(
    examples: Split, items: tf.data.Dataset, source: Dataset
) -> Iterator[bytes]:
    """Yields the images that can be read, as serialised `tf.train.Example`."""

    def read(number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return *examples.load(number), number

    blank = np.array(b"", object), np.int32(0), np.int64(-1)
    files = read_or_skip(items, read, examples, blank)
    for encoded, label, number in files.unbatch().as_numpy_iterator():
        if number >= 0:
            name = examples.name(int(number)).encode("utf-8", "replace")
            features = {
                "image/encoded": _feature(encoded),
                "image/class/label": tf.train.Feature(
                    int64_list=tf.train.Int64List(value=[label])
                ),
                "image/class/text": _feature(source.class_names[label].encode()),
                "image/filename": _feature(name),
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            yield example.SerializeToString()


def _feature(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
