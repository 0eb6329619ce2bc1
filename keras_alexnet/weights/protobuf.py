"""Protocol buffers as data: the wire format, without generated code.

A message is a sequence of fields, each a number, a type and a value. Values of variable
length stay views of the file, so a message costs nothing until its fields are asked
for, and no declared size is ever allocated. The wire format is described at
protobuf.dev/programming-guides/encoding. Google's library (7.36) takes 26 bytes for
each byte of a file that is full of empty messages.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from keras_alexnet.weights.buffers import Budget, take
from keras_alexnet.weights.weight_file import WeightFileError

_VARINT, _BYTES, _SIZES = 0, 2, {1: 8, 5: 4}

# A published network has thousands of fields; only packed numbers come in millions.
_MAX_FIELDS = 200_000


class Message:
    """The fields of a message.

    Args:
        buffer: The message's bytes.
        budget: How many fields may still be read, shared by all messages of a file.
    """

    def __init__(self, buffer: memoryview, budget: Budget | None = None):
        self._buffer, self._budget = buffer, budget or Budget(_MAX_FIELDS)

    @functools.cached_property
    def fields(self) -> list[tuple[int, int | memoryview]]:
        """Number and value of each field, in the file's order."""
        return list(self._parse())

    def views(self, number: int) -> list[memoryview]:
        """Returns the values of a field that are no integers."""
        return [v for n, v in self.fields if n == number and not isinstance(v, int)]

    def messages(self, number: int) -> list[Message]:
        """Returns the messages in a field."""
        return [Message(value, self._budget) for value in self.views(number)]

    def message(self, number: int) -> Message:
        """Returns the last message in a field; an empty one if there is none."""
        return (self.messages(number) or [Message(memoryview(b""), self._budget)])[-1]

    def texts(self, number: int) -> list[str]:
        """Returns the texts in a field, cut at 200 bytes."""
        return [str(value[:200], "utf-8", "replace") for value in self.views(number)]

    def text(self, number: int) -> str:
        """Returns the last text in a field; an empty one if there is none."""
        return (self.texts(number) or [""])[-1]

    def integers(self, number: int) -> list[int]:
        """Returns signed integers, packed or not."""
        result = []
        for field, value in self.fields:
            if field == number and isinstance(value, int):
                result.append(value)
            elif field == number:
                position = 0
                while position < len(value):
                    self._budget.spend()
                    one, position = _varint(value, position)
                    result.append(one)
        return [value - (1 << 64) if value >> 63 else value for value in result]

    def integer(self, number: int) -> int:
        """Returns the last integer in a field; 0 if there is none."""
        return (self.integers(number) or [0])[-1]

    def numbers(self, number: int) -> memoryview:
        """Returns the bytes of floating-point numbers, packed or not."""
        parts = self.views(number)
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def _parse(self) -> Iterator[tuple[int, int | memoryview]]:
        buffer, position = self._buffer, 0
        while position < len(buffer):
            self._budget.spend()
            tag, position = _varint(buffer, position)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, position = _varint(buffer, position)
            else:
                size = _SIZES.get(kind)
                if kind == _BYTES:
                    size, position = _varint(buffer, position)
                if size is None or number == 0:
                    raise WeightFileError("The file has an unknown kind of field.")
                value = take(buffer, position, size)
                position += size
            yield number, value


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = 0
    # A byte more than 64 bits need ends a number that never ends.
    for index, byte in enumerate(buffer[position : position + 10]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value & (1 << 64) - 1, position + index + 1
    raise WeightFileError("The file is damaged: it has a number that never ends.")
