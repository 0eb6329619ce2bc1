"""Zip archives from elsewhere, with limits against decompression bombs."""

from __future__ import annotations

import struct
import zipfile
import zlib

from keras_alexnet.weights.buffers import take
from keras_alexnet.weights.weight_file import WeightFileError

# An index of more bytes would name more members than any file of weights has.
_MAX_INDEX, _SIZE_OF_INDEX = 1 << 20, 5
# How much a member may grow. Weights hardly shrink when compressed; small files may.
_SMALL, _LARGEST, _FACTOR = 1 << 26, 1 << 31, 16


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
