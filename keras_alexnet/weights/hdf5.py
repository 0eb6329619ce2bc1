"""The part of HDF5 that Keras writes: groups, text attributes, contiguous arrays.

The HDF5 library trusts what a file says: damaged by a few bytes, it makes the library
take gigabytes, or ends the process (h5py 3.14 with HDF5 1.14.6, one file in a few
thousand). This reader looks at the mapped file where it is and takes nothing that a
file declares. Layouts are those of the HDF5 file format specification, version 0 of the
superblock and 1 of the object headers, which h5py writes unless it is told otherwise.
Compressed, chunked, external and virtual arrays and links to other places are refused;
Keras writes none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from keras_alexnet.weights.buffers import Budget, take, view
from keras_alexnet.weights.weight_file import WeightFileError

MAGIC = b"\x89HDF\r\n\x1a\n"
# Of messages, entries and nodes together; a saved AlexNet has about a thousand.
_MAX_PARTS = 100_000
_NONE = (1 << 64) - 1
# Kinds of messages in an object's header.
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOLS = 0x0C, 0x10, 0x11
_FLOATS = {2: "f2", 4: "f4", 8: "f8"}


class Object:
    """A group or an array.

    Args:
        buffer: The file.
        position: Where its header starts; None for the group that holds all others.
        budget: How many parts of the file may still be read.

    Raises:
        WeightFileError: It is damaged, or of a version that Keras does not write.
    """

    def __init__(
        self,
        buffer: memoryview,
        position: int | None = None,
        budget: Budget | None = None,
    ):
        self.buffer, self.budget = buffer, budget or Budget(_MAX_PARTS)
        if position is None:
            _require(self._unpack("<8sB4xBB", 0) == (MAGIC, 0, 8, 8))
            _require(self._unpack("<Q", 24) == (0,))
            (position,) = self._unpack("<Q", 64)
        version, count, size = self._unpack("<BxHxxxxI", position)
        _require(version == 1)
        self.messages: list[tuple[int, memoryview]] = []
        blocks = [(position + 16, size)]
        while blocks and len(self.messages) < count:
            position, size = blocks.pop(0)
            end = position + size
            while position + 8 <= end and len(self.messages) < count:
                self.budget.spend()
                kind, length = self._unpack("<HH", position)
                data = take(buffer, position + 8, length)
                self.messages.append((kind, data))
                if kind == _CONTINUATION:
                    blocks.append(struct.unpack_from("<QQ", data))
                position += 8 + length

    def _unpack(self, form: str, position: int) -> tuple:
        return struct.unpack(form, take(self.buffer, position, struct.calcsize(form)))

    def _find(self, kind: int) -> memoryview | None:
        """Returns the first message of a kind."""
        return next((data for k, data in self.messages if k == kind), None)

    def children(self) -> dict[str, Object]:
        """Returns a group's members by name."""
        table = self._find(_SYMBOLS)
        if table is None:
            raise WeightFileError("The HDF5 file has an array in place of a group.")
        tree, heap = struct.unpack_from("<QQ", table)
        size, _, start = self._unpack("<8xQQQ", heap)
        names = take(self.buffer, start, size)
        return {
            _text(names, offset): Object(self.buffer, header, self.budget)
            for offset, header in self._entries(tree)
            if header != _NONE
        }

    def _entries(self, tree: int) -> Iterator[tuple[int, int]]:
        """Yields where a group's names and members are."""
        nodes = [tree]
        while nodes:
            node = nodes.pop()
            self.budget.spend()
            mark, count = self._unpack("<4s2xH", node)
            if mark == b"TREE":
                # The keys between the children are offsets of names.
                nodes += (
                    self._unpack("<Q", node + 32 + 16 * i)[0] for i in range(count)
                )
                continue
            _require(mark == b"SNOD")
            for index in range(count):
                self.budget.spend()
                name, header, cache = self._unpack("<QQI", node + 8 + 40 * index)
                # 2 marks a link to another place.
                if cache not in (0, 1):
                    raise WeightFileError("The HDF5 file has a link in it.")
                yield name, header

    def attribute(self, name: str) -> str | None:
        """Returns an attribute that is a text, or None if there is none."""
        for kind, data in self.messages:
            if kind != _ATTRIBUTE:
                continue
            version, *sizes = struct.unpack_from("<BxHHH", data)
            _require(version == 1)
            key, dtype, space = (-(-size // 8) * 8 for size in sizes)
            if bytes(data[8 : 8 + key]).rstrip(b"\0") != name.encode():
                continue
            # A text of any length lies in a heap of its own.
            if data[8 + key] & 15 != 9:
                return None
            value = struct.unpack_from("<IQI", data, 8 + key + dtype + space)
            return self._heap_item(*value)
        return None

    def _heap_item(self, length: int, heap: int, wanted: int) -> str:
        mark, size = self._unpack("<4s4xQ", heap)
        position, end = heap + 16, heap + size
        while mark == b"GCOL" and position + 16 <= end:
            self.budget.spend()
            index, size = self._unpack("<HxxxxxxQ", position)
            if index == wanted:
                text = take(self.buffer, position + 16, size)
                return str(text[: min(length, 200)], "utf-8")
            position += 16 + -(-size // 8) * 8
        raise WeightFileError("The HDF5 file is damaged: a text is missing.")

    def array(self) -> np.ndarray:
        """Returns an array of floating-point numbers, as a view of the file."""
        space, kind, layout = map(self._find, (_SPACE, _TYPE, _LAYOUT))
        if space is None or kind is None or layout is None:
            raise WeightFileError("The HDF5 file has a group in place of an array.")
        version, rank = struct.unpack_from("<BB", space)
        _require(version in (1, 2) and rank <= 8)
        shape = struct.unpack_from(f"<{rank}Q", space, 8 if version == 1 else 4)
        kind, order, size = struct.unpack_from("<BBxxI", kind)
        if kind & 15 != 1 or size not in _FLOATS:
            raise WeightFileError("The HDF5 file has other weights than floats.")
        # Version 3, contiguous.
        elsewhere = self._find(_EXTERNAL) or self._find(_FILTERS)
        _require(elsewhere is None and bytes(layout[:2]) == b"\3\1")
        data = take(self.buffer, *struct.unpack_from("<QQ", layout, 2))
        return view(data, ("<", ">")[order & 1] + _FLOATS[size], shape)


def _require(usual: bool) -> None:
    if not usual:
        raise WeightFileError(
            "The HDF5 file is damaged, or of a version or layout that Keras does not "
            "write."
        )


def _text(names: memoryview, offset: int) -> str:
    """Returns a name, which ends in a zero."""
    name, end, _ = bytes(names[offset : offset + 200]).partition(b"\0")
    if not end:
        raise WeightFileError("The HDF5 file has a name that never ends.")
    return str(name, "utf-8")
