"""The records of several TFRecord files, each read by its number."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import digest
from keras_alexnet.data.records import Records, find_records
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Part:
    """Some of the records of a file.

    Attributes:
        path: The file, not compressed.
        count: How many records were written to it; None where nobody knows.
        begin: The first one that is wanted.
        end: The one after the last; None for all.
    """

    path: Path
    count: int | None = None
    begin: int = 0
    end: int | None = None


class RecordFiles:
    """The records of several files.

    Only their lengths are read, so that any record can be read at any time. Where a
    length is damaged, the records behind it are found again.

    Args:
        parts: The files, and which of their records.
        skipped: Where to name what cannot be found.

    Attributes:
        lost: How many records, or places that held some, cannot be found.

    Raises:
        ValueError: A file cannot be read, or there is no record at all.
    """

    def __init__(self, parts: Sequence[Part], skipped: Skipped):
        self._parts = parts
        # Waiting for disks, not computing, takes the time.
        with ThreadPoolExecutor(16) as pool:
            try:
                found = list(pool.map(find_records, [part.path for part in parts]))
            except OSError as error:
                raise UserError(
                    f"Cannot read {error.filename}: {error.strerror}"
                ) from None
        chosen, self._numbers, self.lost = [], [], 0
        for part, records in zip(parts, found, strict=True):
            numbers, missing = _numbered(records, part.count)
            inside = numbers >= part.begin
            if part.end is not None:
                inside &= numbers < part.end
                missing = [n for n in missing if part.begin <= n < part.end]
            names = [f"{part.path}:{number}" for number in missing]
            if part.count is None:
                names = [f"{part.path}: bytes {a}-{b}" for a, b in records.lost]
            for name in names:
                skipped.add(name, "no record can be found there")
            self.lost += len(names)
            self._numbers.append(numbers[inside])
            chosen.append((records.offsets[inside], records.sizes[inside]))
        self._begins = np.cumsum([0, *map(len, self._numbers)])
        if not self._begins[-1]:
            raise UserError(
                f"{parts[0].path} holds no records: is it a TFRecord file, not "
                "compressed?"
            )
        self._offsets, self._sizes = map(np.concatenate, zip(*chosen, strict=True))
        with tf.init_scope(), tf.device("CPU:0"):
            self._paths = Strings(os.fspath(part.path) for part in parts)
            self._tensors = tuple(
                tf.constant(array, tf.int64)
                for array in (self._begins, self._offsets, self._sizes)
            )

    def __len__(self) -> int:
        return int(self._begins[-1])

    @property
    def digest(self) -> str:
        """Differs where other records of other files are read."""
        paths = [part.path for part in self._parts]
        return digest(
            [
                *(os.fsencode(f"{path.parent.name}/{path.name}") for path in paths),
                *(a.tobytes() for a in (self._begins, self._offsets, self._sizes)),
            ]
        )

    def name(self, index: int) -> str:
        """Returns the file of a record and its number there."""
        file = int(np.searchsorted(self._begins, index, side="right")) - 1
        number = self._numbers[file][index - self._begins[file]]
        return f"{self._parts[file].path}:{number}"

    def record(self, index: tf.Tensor) -> tf.Tensor:
        """Reads a record in a TensorFlow graph, and checks its data.

        Raises:
            tf.errors.DataLossError: The data do not fit their checksum.
        """
        begins, offsets, sizes = self._tensors
        file = tf.searchsorted(begins, index[None], side="right", out_type=tf.int64)
        # TensorFlow's only operation that reads from the middle of a file.
        records = tf.raw_ops.TFRecordDatasetV2(
            filenames=self._paths.tensor(file[0] - 1)[None],
            compression_type="",
            buffer_size=tf.gather(sizes, index),
            byte_offsets=tf.gather(offsets, index)[None],
        )
        kind = {"output_types": [tf.string], "output_shapes": [()]}
        one = tf.raw_ops.TakeDataset(
            input_dataset=records, count=tf.constant(1, tf.int64), **kind
        )
        return tf.raw_ops.DatasetToSingleElement(dataset=one, **kind)[0]


def _numbered(records: Records, count: int | None) -> tuple[np.ndarray, list[int]]:
    """Numbers of the records of a file as they were written, and of those missing.

    `count` is how many were written; None numbers those that were found. A gap is taken
    to have held one record, the longest gap also all further ones.
    """
    found = len(records.offsets)
    if count is None:
        return np.arange(found), []
    held = [1] * len(records.lost)
    if held:
        longest = int(np.argmax([end - begin for begin, end in records.lost]))
        held[longest] = max(1, count - found - len(held) + 1)
    ends = [end for _, end in records.lost]
    before = np.concatenate([[0], np.cumsum(held, dtype=np.int64)])
    passed = np.searchsorted(ends, records.offsets, side="right")
    numbers = np.arange(found) + before[passed]
    return numbers, sorted(set(range(count)).difference(numbers.tolist()))
