"""Protocol buffers as data: the wire format, without generated code.

A message is a sequence of fields, each a number, a type and a value. Values of variable
length stay views of the file, so a message costs nothing until its fields are asked
for, and no declared size is ever allocated. The wire format is described at
protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from keras_alexnet.weights.weight_file import WeightFileError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# A published network has thousands of fields; only packed numbers come in millions.
MAX_FIELDS = 200_000


class Message:
    """The fields of a message.

    Args:
        buffer: The message's bytes.
        budget: How many fields may still be read, shared by all messages of a file.
    """

    def __init__(self, buffer: memoryview, budget: list[int] | None = None):
        self._buffer = buffer
        self._budget = [MAX_FIELDS] if budget is None else budget
        self._fields: list[tuple[int, int, int | memoryview]] | None = None

    def fields(self) -> list[tuple[int, int, int | memoryview]]:
        """Returns `(number, type, value)` of each field, in the file's order."""
        if self._fields is None:
            self._fields = list(self._parse())
        return self._fields

    def get(self, number: int, kind: int) -> list:
        """Returns the values of a field: views for `BYTES`, integers for `VARINT`."""
        return [v for n, k, v in self.fields() if n == number and k == kind]

    def messages(self, number: int) -> list[Message]:
        """Returns the messages in a field."""
        return [Message(value, self._budget) for value in self.get(number, BYTES)]

    def message(self, number: int) -> Message:
        """Returns the last message in a field; an empty one if there is none."""
        return (self.messages(number) or [Message(memoryview(b""), self._budget)])[-1]

    def text(self, number: int) -> str:
        """Returns a text, cut at 200 bytes; an empty one if there is none."""
        values = self.get(number, BYTES)
        return str(values[-1][:200], "utf-8", "replace") if values else ""

    def integers(self, number: int) -> list[int]:
        """Returns signed integers, packed or not."""
        result = []
        for field, kind, value in self.fields():
            if field == number and kind == VARINT:
                result.append(value)
            elif field == number and kind == BYTES:
                position = 0
                while position < len(value):
                    self._spend()
                    one, position = _varint(value, position)
                    result.append(one)
        return [value - (1 << 64) if value >> 63 else value for value in result]

    def numbers(self, number: int, dtype: str) -> np.ndarray:
        """Returns floating-point numbers, packed or not, as an array.

        Args:
            number: The field.
            dtype: `"<f4"` or `"<f8"`.
        """
        size = np.dtype(dtype).itemsize
        single = FIXED32 if size == 4 else FIXED64
        parts = [v for n, k, v in self.fields() if n == number and k in (BYTES, single)]
        if any(len(part) % size for part in parts):
            raise WeightFileError("A list of numbers is cut in the middle of one.")
        if len(parts) == 1:
            return np.frombuffer(parts[0], dtype)
        return np.frombuffer(b"".join(parts), dtype)

    def _parse(self) -> Iterator[tuple[int, int, int | memoryview]]:
        buffer, position = self._buffer, 0
        while position < len(buffer):
            self._spend()
            tag, position = _varint(buffer, position)
            number, kind = tag >> 3, tag & 7
            if number == 0 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
                raise WeightFileError("The file is damaged: it has an unknown field.")
            if kind == VARINT:
                value, position = _varint(buffer, position)
            else:
                size = {FIXED64: 8, FIXED32: 4}.get(kind)
                if size is None:
                    size, position = _varint(buffer, position)
                value = buffer[position : position + size]
                if len(value) != size:
                    raise WeightFileError("The file is cut in the middle of a field.")
                position += size
            yield number, kind, value

    def _spend(self) -> None:
        self._budget[0] -= 1
        if self._budget[0] < 0:
            raise WeightFileError(
                f"The file has more than {MAX_FIELDS:,} fields, far more than a "
                "network needs."
            )


def _varint(buffer: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(buffer):
            raise WeightFileError("The file is cut in the middle of a number.")
        byte = buffer[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, position
    raise WeightFileError("The file is damaged: it has a number that never ends.")
