"""Zip archives from elsewhere, with limits against decompression bombs."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from keras_alexnet.weights.weight_file import WeightFileError

# An index of more bytes would name more members than any file of weights has.
_MAX_INDEX = 1 << 20
# How much a member may grow. Weights hardly shrink when compressed; small files may.
_SMALL, _LARGEST, _FACTOR = 1 << 26, 1 << 31, 16
# How much is decompressed at a time.
_STEP = 1 << 18


class _Index(io.RawIOBase):
    """The file as `zipfile` sees it, which reads an index of any size otherwise."""

    def __init__(self, buffer: memoryview):
        self.buffer, self.position, self.budget = buffer, 0, _MAX_INDEX

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self.position, len(self.buffer))[whence]
        self.position = start + offset
        if self.position < 0:
            raise WeightFileError("The zip archive is damaged.")
        return self.position

    def read(self, size: int = -1) -> bytes:
        end = len(self.buffer) if size < 0 else self.position + size
        data = self.buffer[self.position : end]
        self.budget -= len(data)
        if self.budget < 0:
            raise WeightFileError("The zip archive has an index of more than 1 MB.")
        self.position += len(data)
        return bytes(data)


def open_zip(buffer: memoryview) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of a zip archive by name.

    Raises:
        WeightFileError: It is damaged.
    """
    try:
        with zipfile.ZipFile(_Index(buffer)) as archive:
            return {info.filename: info for info in archive.infolist()}
    except WeightFileError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, struct.error, LookupError) as e:
        raise WeightFileError("The zip archive is damaged.") from e
    except NotImplementedError as error:
        raise WeightFileError(f"The zip archive cannot be read: {error}.") from error


def read_member(buffer: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """Returns a member's bytes, as a view of the file where it is not compressed.

    Raises:
        WeightFileError: It is damaged, encrypted, or larger than it can be.
    """
    header = buffer[info.header_offset : info.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\3\4" or info.flag_bits & 1:
        raise WeightFileError(f"The zip archive's {_name(info)} is damaged.")
    name_size, extra_size = struct.unpack("<HH", header[26:30])
    start = info.header_offset + 30 + name_size + extra_size
    data = buffer[start : start + info.compress_size]
    if len(data) != info.compress_size:
        raise WeightFileError(f"The zip archive's {_name(info)} is cut short.")
    if info.compress_type == zipfile.ZIP_DEFLATED:
        data = inflate(data, info.file_size)
    elif info.compress_type != zipfile.ZIP_STORED:
        raise WeightFileError(
            f"The zip archive's {_name(info)} is compressed in an unknown way."
        )
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise WeightFileError(
            f"The zip archive's {_name(info)} is damaged: its checksum differs."
        )
    return data


def inflate(data: memoryview, size: int) -> memoryview:
    """Decompresses a member, and stops where weights would have stopped.

    Args:
        data: The deflated bytes.
        size: The declared size.
    """
    limit = min(max(_SMALL, _FACTOR * len(data)), _LARGEST)
    if size > limit:
        raise WeightFileError(
            f"{len(data):,} compressed bytes claim to hold {size:,}: too many."
        )
    stream, result = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
    try:
        for start in range(0, len(data), _STEP):
            piece = data[start : start + _STEP]
            while piece and not stream.eof:
                result += stream.decompress(piece, _STEP)
                piece = stream.unconsumed_tail
                if len(result) > limit:
                    raise WeightFileError(
                        f"The compressed data hold more than {limit:,} bytes: too many."
                    )
    except zlib.error as error:
        raise WeightFileError(f"The compressed data are damaged: {error}.") from error
    if not stream.eof:
        result += stream.flush()
    if not stream.eof:
        raise WeightFileError("The compressed data are cut short.")
    return memoryview(result).toreadonly()


def _name(info: zipfile.ZipInfo) -> str:
    return repr(info.filename[:80])
