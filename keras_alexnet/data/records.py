"""Where the records of a TFRecord file lie, whatever has happened to it.

A record is its length (8 bytes, little-endian), a checksum of these 8 bytes, the data,
and a checksum of the data (tensorflow/core/lib/io/record_writer.h). The checksums are
CRC-32C (Castagnoli), rotated and shifted. Only lengths are looked at here; TensorFlow
checks the data when it reads them.
"""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path

import numpy as np

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
