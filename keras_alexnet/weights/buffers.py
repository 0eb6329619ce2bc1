"""Bounded reading: ranges, budgets, zip members, checked before memory is taken."""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from keras_alexnet.weights.weight_file import WeightFileError

# An index of more bytes would name more members than any file of weights has.
_MAX_INDEX, _SIZE_OF_INDEX = 1 << 20, 5
# How much a member may grow. Weights hardly shrink when compressed; small files may.
_SMALL, _LARGEST, _FACTOR = 1 << 26, 1 << 31, 16


class Budget:
    """How many parts of a file may still be read: rings and floods of them end here.

    Args:
        parts: How many there may be.
    """

    def __init__(self, parts: int):
        self.left = parts

    def spend(self, parts: int = 1) -> None:
        """Counts parts.

        Raises:
            WeightFileError: There have been too many.
        """
        self.left -= parts
        if self.left < 0:
            raise WeightFileError("The file has far more parts than a network needs.")


def take(buffer: memoryview, start: int, size: int) -> memoryview:
    """Returns a part of a file, as a view.

    Args:
        buffer: The file.
        start: Where the part starts, in bytes.
        size: Its declared size.

    Raises:
        WeightFileError: It does not lie inside.
    """
    if not 0 <= start <= start + size <= len(buffer):
        raise WeightFileError("The file is damaged, or cut short.")
    return buffer[start : start + size]


def view(buffer, dtype: np.dtype | str, shape: Sequence[int]) -> np.ndarray:
    """Returns the array that bytes are, as a view.

    Args:
        buffer: Bytes, or a view of them.
        dtype: Type of the elements.
        shape: The declared shape.

    Raises:
        WeightFileError: The shape is impossible, or needs more or fewer bytes.
    """
    dtype, shape = np.dtype(dtype), tuple(shape)
    if len(shape) > 8 or not all(0 <= size < 1 << 40 for size in shape):
        raise WeightFileError("An array has an impossible shape.")
    if math.prod(shape) * dtype.itemsize != len(buffer):
        raise WeightFileError(
            f"An array says that it is of shape {shape}, and has {len(buffer):,} bytes."
        )
    return np.frombuffer(buffer, dtype).reshape(shape)


# === Zip archives ===


def open_zip(buffer: memoryview) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of a zip archive by name.

    Args:
        buffer: A mapped file.

    Raises:
        WeightFileError: It is damaged.
    """
    file = buffer.obj
    try:
        end = zipfile._EndRecData(file)
        if end and end[_SIZE_OF_INDEX] > _MAX_INDEX:
            raise WeightFileError("The zip archive has an index of more than 1 MB.")
        with zipfile.ZipFile(file) as archive:
            return {info.filename: info for info in archive.infolist()}
    except WeightFileError:
        raise
    except (
        *(zipfile.BadZipFile, ValueError, OSError, struct.error, LookupError),
        NotImplementedError,
    ) as error:
        raise WeightFileError(f"The zip archive is damaged: {error}.") from error


def read_member(buffer: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Returns a member's bytes, as a view of the file where it is not compressed.

    Raises:
        WeightFileError: It is damaged, encrypted, or larger than it can be.
    """
    what = f"The zip archive's {info.filename[:80]!r}"
    header = take(buffer, info.header_offset, 30)
    if header[:4] != b"PK\3\4" or info.flag_bits & 1:
        raise WeightFileError(f"{what} is damaged.")
    start = info.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    data = take(buffer, start, info.compress_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        limit = min(max(_SMALL, _FACTOR * len(data)), _LARGEST)
        if info.file_size > limit:
            raise WeightFileError(
                f"{what} claims to hold {info.file_size:,} bytes of "
                f"{len(data):,} compressed ones: too many."
            )
        try:
            # No more than it claims, and one byte.
            stream = zlib.decompressobj(-zlib.MAX_WBITS)
            data = memoryview(stream.decompress(data, info.file_size + 1))
        except zlib.error as error:
            raise WeightFileError(f"{what} is damaged: {error}.") from error
    elif info.compress_type != zipfile.ZIP_STORED:
        raise WeightFileError(f"{what} is compressed in an unknown way.")
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise WeightFileError(f"{what} is damaged: its checksum differs.")
    return data
