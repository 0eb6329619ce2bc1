"""Records of TFRecord files, each read by its number, also behind damage.

A record is its length (8 bytes, little-endian), a checksum of these 8 bytes, the data,
and a checksum of the data (tensorflow/core/lib/io/record_writer.h). The checksums are
CRC-32C (Castagnoli), rotated and shifted. Only lengths are looked at here; TensorFlow
checks the data when it reads them.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_alexnet.data.dataset import Split, digest
from keras_alexnet.data.skipped import Skipped
from keras_alexnet.data.strings import Strings
from keras_alexnet.errors import UserError

_HEADER = 12
_FOOTER = 4
# How many lengths are checked in one go, and how many bytes are searched in one.
_AT_ONCE = 4096
_SEARCHED = 1 << 20


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a file.

    Attributes:
        offsets: Where each begins, int64.
        sizes: How long each is, with length and checksums, int64.
        lost: Begin and end of what is no record, in bytes.
    """

    offsets: np.ndarray
    sizes: np.ndarray
    lost: tuple[tuple[int, int], ...]


def find_records(path: Path) -> Records:
    """Finds the records of a TFRecord file.

    Where a length is damaged, the next place where one fits its checksum is taken to be
    the next record: by chance that is so once in four billion places.

    Args:
        path: The file, not compressed.

    Raises:
        OSError: The file cannot be read.
    """
    offsets: list[int] = []
    sizes: list[int] = []
    lost: list[tuple[int, int]] = []
    file = os.open(path, os.O_RDONLY)
    try:
        end = os.fstat(file).st_size
        place = 0
        while place < end:
            found, place = _follow(file, place, end)
            offsets += [begin for begin, _ in found]
            sizes += [size for _, size in found]
            if len(found) == _AT_ONCE or place >= end:
                continue
            begin, place = place, _search(file, place + 1, end)
            lost.append((begin, place))
    finally:
        os.close(file)
    return Records(np.array(offsets, np.int64), np.array(sizes, np.int64), tuple(lost))


def _follow(file: int, place: int, end: int) -> tuple[list[tuple[int, int]], int]:
    """Begin and size of records up to a damaged one, or `_AT_ONCE`; and their end."""
    headers, found = [], []
    begin = place
    while len(found) < _AT_ONCE and place < end:
        header = os.pread(file, _HEADER, place)
        if len(header) < _HEADER:
            break
        size = struct.unpack_from("<Q", header)[0] + _HEADER + _FOOTER
        if place + size > end:
            break
        headers.append(header)
        found.append((place, size))
        place += size
    if not found:
        return [], begin
    wrong = np.flatnonzero(~_fits(np.frombuffer(b"".join(headers), np.uint8), _HEADER))
    if len(wrong):
        found = found[: wrong[0]]
    return found, sum(found[-1]) if found else begin


def _search(file: int, place: int, end: int) -> int:
    """Returns the first place from `place` on where a record may begin, or the end."""
    while place + _HEADER + _FOOTER <= end:
        piece = os.pread(file, _SEARCHED + _HEADER - 1, place)
        for index in np.flatnonzero(_fits(np.frombuffer(piece, np.uint8), 1)):
            length = struct.unpack_from("<Q", piece, index)[0]
            if place + int(index) + length + _HEADER + _FOOTER <= end:
                return place + int(index)
        place += _SEARCHED
    return end


def _fits(data: np.ndarray, step: int) -> np.ndarray:
    """Says at every `step`-th byte whether a length and its checksum begin there."""
    places = np.arange(0, len(data) - _HEADER + 1, step)
    stored = np.zeros(len(places), np.uint32)
    for byte in range(4):
        stored |= data[places + 8 + byte].astype(np.uint32) << np.uint32(8 * byte)
    crc = np.full(len(places), 0xFFFFFFFF, np.uint32)
    for byte in range(8):
        crc = _CRC[(crc ^ data[places + byte]) & 0xFF] ^ (crc >> 8)
    crc = ~crc
    masked = ((crc >> 15) | (crc << 17)) + np.uint32(0xA282EAD8)
    return masked == stored


def _crc_table() -> np.ndarray:
    """What each value of a byte does to a CRC-32C."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        odd = (table & 1).astype(bool)
        table = np.where(odd, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_CRC = _crc_table()


# === Several files ===


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
        self._parts, self._skipped = parts, skipped
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

    def split(
        self,
        parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]],
        classes: int,
    ) -> Split:
        """Returns the records as a split.

        Args:
            parse: In a TensorFlow graph, from a record to image and label.
            classes: The number of classes.
        """
        paths = [part.path for part in self._parts]
        return Split(
            len(self),
            classes,
            self.name,
            lambda index: parse(self.record(index)),
            digest=digest(
                [
                    *(os.fsencode(f"{path.parent.name}/{path.name}") for path in paths),
                    *(a.tobytes() for a in (self._begins, self._offsets, self._sizes)),
                ]
            ),
            skipped=self._skipped,
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
