"""The part of HDF5 that Keras writes: groups, text attributes, contiguous arrays.

The HDF5 library trusts the sizes in a file: one that was damaged by a few bytes makes
it take gigabytes. This reader looks at the mapped file where it is and takes nothing
that a file declares. Layouts are those of the HDF5 file format specification, version
0 of the superblock and 1 of the object headers, which h5py writes unless it is told
otherwise. Compressed, chunked, external and virtual arrays and links to other places
are refused; Keras writes none.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np

from keras_alexnet.weights.buffers import view
from keras_alexnet.weights.weight_file import WeightFileError

MAGIC = b"\x89HDF\r\n\x1a\n"
# Of messages, entries and nodes together; a saved AlexNet has about a thousand.
_MAX_PARTS = 100_000
_NONE = (1 << 64) - 1
# Kinds of messages in an object's header.
_SPACE, _TYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOLS = 0x0C, 0x10, 0x11
_FLOATS = {2: "f2", 4: "f4", 8: "f8"}


class File:
    """An HDF5 file in memory.

    Args:
        buffer: The file's bytes.

    Raises:
        WeightFileError: It is no HDF5 file, or of a version that Keras does not write.
    """

    def __init__(self, buffer: memoryview):
        self.buffer, self.parts = buffer, 0
        if bytes(buffer[:8]) != MAGIC:
            raise WeightFileError("The HDF5 file is damaged.")
        if self.unpack("<B4xBB", 8) != (0, 8, 8) or self.unpack("<Q", 24) != (0,):
            raise WeightFileError(
                "The HDF5 file is of a version that Keras does not write."
            )

    @property
    def root(self) -> Object:
        """The group that holds all others."""
        # Not kept: a ring of references would keep the file in memory.
        return Object(self, self.unpack("<Q", 64)[0])

    def unpack(self, form: str, position: int) -> tuple:
        """Returns numbers at a position."""
        return struct.unpack(form, self.take(position, struct.calcsize(form)))

    def take(self, position: int, size: int) -> memoryview:
        """Returns bytes at a position."""
        if position + size > len(self.buffer):
            raise WeightFileError("The HDF5 file is damaged: it ends too early.")
        return self.buffer[position : position + size]

    def spend(self) -> None:
        """Counts a part; rings and floods of them end here."""
        self.parts += 1
        if self.parts > _MAX_PARTS:
            raise WeightFileError("The HDF5 file has more parts than a network needs.")


class Object:
    """A group or an array.

    Args:
        file: The file it is in.
        position: Where its header starts.
    """

    def __init__(self, file: File, position: int):
        self.file = file
        version, count, size = file.unpack("<BxHxxxxI", position)
        if version != 1:
            raise WeightFileError("The HDF5 file is damaged, or of an unknown version.")
        self.messages: list[tuple[int, memoryview]] = []
        blocks = [(position + 16, size)]
        while blocks and len(self.messages) < count:
            position, size = blocks.pop(0)
            end = position + size
            while position + 8 <= end and len(self.messages) < count:
                file.spend()
                kind, length = file.unpack("<HH", position)
                data = file.take(position + 8, length)
                self.messages.append((kind, data))
                if kind == _CONTINUATION:
                    blocks.append(_unpack("<QQ", data))
                position += 8 + length

    def find(self, kind: int) -> memoryview | None:
        """Returns the first message of a kind."""
        return next((data for k, data in self.messages if k == kind), None)

    def children(self) -> dict[str, int]:
        """Returns where a group's members are, by name."""
        table = self.find(_SYMBOLS)
        if table is None:
            raise WeightFileError("The HDF5 file has an array in place of a group.")
        tree, heap = _unpack("<QQ", table)
        size, _, start = self.file.unpack("<8xQQQ", heap)
        names = self.file.take(start, size)
        return {
            _text(names, offset): header
            for offset, header in self._entries(tree)
            if header != _NONE
        }

    def child(self, name: str) -> Object:
        """Returns a member of a group."""
        children = self.children()
        if name not in children:
            raise WeightFileError(f"The HDF5 file lacks {name!r}.")
        return Object(self.file, children[name])

    def _entries(self, tree: int) -> Iterator[tuple[int, int]]:
        """Yields where a group's names and members are."""
        nodes = [tree]
        while nodes:
            node = nodes.pop()
            self.file.spend()
            mark = bytes(self.file.take(node, 4))
            if mark == b"TREE":
                kind, _, used = self.file.unpack("<4xBBH", node)
                if kind != 0:
                    raise WeightFileError("The HDF5 file is damaged.")
                for index in range(used):
                    self.file.spend()
                    nodes += self.file.unpack("<Q", node + 32 + 16 * index)
            elif mark == b"SNOD":
                (count,) = self.file.unpack("<6xH", node)
                for index in range(count):
                    self.file.spend()
                    name, header, cache = self.file.unpack(
                        "<QQI", node + 8 + 40 * index
                    )
                    # 2 marks a link to another place.
                    if cache not in (0, 1):
                        raise WeightFileError("The HDF5 file has a link in it.")
                    yield name, header
            else:
                raise WeightFileError("The HDF5 file is damaged.")

    def attribute(self, name: str) -> str | None:
        """Returns an attribute that is a text, or None if there is none."""
        for kind, data in self.messages:
            if kind != _ATTRIBUTE:
                continue
            version, name_size, type_size, space_size = _unpack("<BxHHH", data)
            if version not in (1, 3):
                raise WeightFileError("The HDF5 file is of an unknown version.")
            start, step = (8, 8) if version == 1 else (9, 1)
            sizes = [-(-s // step) * step for s in (name_size, type_size, space_size)]
            if bytes(data[start : start + name_size]).rstrip(b"\0") != name.encode():
                continue
            # A text of any length lies in a heap of its own.
            if data[start + sizes[0]] & 15 != 9:
                return None
            length, heap, index = _unpack("<IQI", data[start + sum(sizes) :])
            return str(self._heap_item(heap, index)[: min(length, 200)], "utf-8")
        return None

    def _heap_item(self, heap: int, wanted: int) -> memoryview:
        mark, size = self.file.unpack("<4s4xQ", heap)
        position, end = heap + 16, heap + size
        while mark == b"GCOL" and position + 16 <= end:
            self.file.spend()
            index, size = self.file.unpack("<HxxxxxxQ", position)
            if index == wanted:
                return self.file.take(position + 16, size)
            position += 16 + -(-size // 8) * 8
        raise WeightFileError("The HDF5 file is damaged: a text is missing.")

    def array(self) -> np.ndarray:
        """Returns an array of floating-point numbers, as a view of the file."""
        space, kind, layout = (self.find(k) for k in (_SPACE, _TYPE, _LAYOUT))
        if space is None or kind is None or layout is None:
            raise WeightFileError("The HDF5 file has a group in place of an array.")
        if self.find(_EXTERNAL) is not None or self.find(_FILTERS) is not None:
            raise WeightFileError("The HDF5 file stores weights as Keras does not.")
        version, rank = _unpack("<BB", space)
        if version not in (1, 2) or rank > 8:
            raise WeightFileError("The HDF5 file has an array of an impossible shape.")
        shape = _unpack(f"<{rank}Q", space[8 if version == 1 else 4 :])
        kind, order, size = _unpack("<BBxxI", kind)
        if kind & 15 != 1 or size not in _FLOATS:
            raise WeightFileError("The HDF5 file has other weights than floats.")
        version, kind = _unpack("<BB", layout)
        if version != 3 or kind != 1:
            raise WeightFileError("The HDF5 file stores weights as Keras does not.")
        start, length = _unpack("<QQ", layout[2:])
        if math.prod(shape) * size != length or start + length > len(self.file.buffer):
            raise WeightFileError(
                f"An array says that it is of shape {shape}, and {length:,} bytes."
            )
        dtype = ("<", ">")[order & 1] + _FLOATS[size]
        return view(self.file.buffer[start : start + length], dtype, shape)


def _unpack(form: str, data: memoryview) -> tuple:
    if len(data) < struct.calcsize(form):
        raise WeightFileError("The HDF5 file is damaged: a part is too short.")
    return struct.unpack_from(form, data)


def _text(names: memoryview, offset: int) -> str:
    """Returns a name, which ends in a zero."""
    name = bytes(names[offset : offset + 200])
    if b"\0" not in name:
        raise WeightFileError("The HDF5 file has a name that never ends.")
    return str(name[: name.index(b"\0")], "utf-8")
