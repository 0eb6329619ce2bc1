"""Pickles as data: a reader that cannot run anything.

A pickle is a program for a small stack machine, and Python's own machine imports and
calls what the program names. This one interprets the same instructions, but a name
stands for itself: only the handful in `pickle_values` mean anything. Every
instruction costs a bounded amount of time and memory, long strings stay views of the
file, and nothing here walks a structure recursively, so that deep nesting and cycles do
no harm.
"""

from __future__ import annotations

import struct
from typing import Any

from keras_alexnet.weights.pickle_values import (
    Inert,
    Name,
    Storage,
    Text,
    admitted,
    build,
    call,
    set_item,
)
from keras_alexnet.weights.weight_file import WeightFileError

# Published files need a few thousand instructions. A checkpoint of 2012 lists the
# errors of each batch since the start of training, some million instructions beside
# hundreds of megabytes of weights.
MAX_INSTRUCTIONS, BYTES_PER_FURTHER_INSTRUCTION = 500_000, 64
# Longer text, integers and names do not occur in files of weights.
MAX_TEXT, MAX_INTEGER, MAX_LINE = 1 << 20, 256, 256
# Longer byte strings are array data, and stay where they are.
_SHORT = 1 << 10


def load(
    buffer: memoryview, start: int = 0, storages: list[Storage] | None = None
) -> tuple[Any, int]:
    """Reads a pickle of protocol 2 or later.

    Args:
        buffer: The file.
        start: Where the pickle starts.
        storages: Takes up the storages of PyTorch that the pickle refers to.

    Returns:
        The value, of dicts, lists, tuples, numbers, text, views of byte strings and
        the classes of this module; and where the pickle ends.

    Raises:
        WeightFileError: It is damaged, larger than files of weights are, or names
            anything but arrays and containers.
    """
    machine = _Machine(buffer, start, [] if storages is None else storages)
    try:
        return machine.run(), machine.position
    except WeightFileError:
        raise
    except (LookupError, TypeError, ValueError, ArithmeticError, struct.error) as error:
        raise WeightFileError(
            f"The pickle is damaged at byte {machine.position:,}."
        ) from error


class _Machine:
    def __init__(self, buffer: memoryview, position: int, storages: list[Storage]):
        self.buffer, self.position, self.storages = buffer, position, storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.cost = 0
        self.limit = MAX_INSTRUCTIONS + len(buffer) // BYTES_PER_FURTHER_INSTRUCTION

    def run(self) -> Any:
        while True:
            self.spend(1)
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.stack.pop()
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise WeightFileError(
                    f"The pickle has the instruction {code:#04x}, which files of "
                    "weights do not need."
                )
            operation(self)

    def spend(self, amount: int) -> None:
        self.cost += amount
        if self.cost > self.limit:
            raise WeightFileError(
                f"The pickle has more than {self.limit:,} parts, far more than "
                "files of weights need."
            )

    # === Reading ===
    def take(self, size: int) -> memoryview:
        end = self.position + size
        if size < 0 or end > len(self.buffer):
            raise WeightFileError("The pickle ends in the middle of a value.")
        taken = self.buffer[self.position : end]
        self.position = end
        return taken

    def number(self, form: str) -> int | float:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        ahead = bytes(self.buffer[self.position : self.position + MAX_LINE])
        length = ahead.find(b"\n")
        if length < 0:
            raise WeightFileError("The pickle has a name that never ends.")
        self.position += length + 1
        return ahead[:length].decode("ascii")

    def text(self, size: int) -> str:
        if size > MAX_TEXT:
            raise WeightFileError(f"The pickle has a text of {size:,} bytes.")
        return str(self.take(size), "utf-8", "surrogatepass")

    def string(self, size: int) -> str | memoryview:
        """Reads a string of Python 2: text if it is short, array data otherwise."""
        data = self.take(size)
        return data if size > _SHORT else Text(str(data, "latin-1"))

    # === Stack ===
    def pop(self) -> Any:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise WeightFileError("The pickle takes more than it has put down.")
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def set_items(self, items: list[Any]) -> None:
        for key, value in _pairs(items):
            set_item(self.stack[-1], key, value)


# === Instructions ===
def _frame(m: _Machine) -> None:
    if m.number("<Q") > len(m.buffer) - m.position:
        raise WeightFileError("The pickle is cut short.")


def _protocol(m: _Machine) -> None:
    if not 2 <= m.take(1)[0] <= 5:
        raise WeightFileError("The pickle is of an unknown protocol.")


def _long(m: _Machine, size: int) -> None:
    if not 0 <= size <= MAX_INTEGER:
        raise WeightFileError(f"The pickle has an integer of {size:,} bytes.")
    m.push(int.from_bytes(m.take(size), "little", signed=True))


def _integer_line(m: _Machine) -> None:
    line = m.line()
    m.push(line == "01" if line in ("00", "01") else int(line.rstrip("L")))


def _tuple(m: _Machine, size: int) -> None:
    items = [m.pop() for _ in range(size)]
    m.push(tuple(reversed(items)))


def _append(m: _Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if isinstance(target, Inert):
        return
    if type(target) is not list:
        raise WeightFileError("The pickle appends to something that is no list.")
    target.extend(items)


def _dict(m: _Machine) -> None:
    items = m.pop_mark()
    m.push({})
    m.set_items(items)


def _set_item(m: _Machine) -> None:
    value, key = m.pop(), m.pop()
    m.set_items([key, value])


def _reduce(m: _Machine) -> None:
    arguments, function = m.pop(), m.pop()
    m.push(call(m, function, arguments))


def _object(m: _Machine) -> None:
    kind, *arguments = m.pop_mark()
    m.push(call(m, kind, tuple(arguments)))


def _instance(m: _Machine) -> None:
    module, name = m.line(), m.line()
    m.push(call(m, admitted(module, name), tuple(m.pop_mark())))


def _build(m: _Machine) -> None:
    state = m.pop()
    build(m.stack[-1], state)


def _stack_global(m: _Machine) -> None:
    name, module = m.pop(), m.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise WeightFileError("The pickle has a name that is no text.")
    m.push(admitted(module[:MAX_LINE], name[:MAX_LINE]))


def _persistent(m: _Machine) -> None:
    marker, kind, key, _, _, *rest = m.pop()
    if marker != "storage" or not isinstance(kind, Name) or kind.module != "torch":
        raise WeightFileError("The pickle refers to something that is no storage.")
    offset = rest[0][1] if rest and rest[0] is not None else 0
    if type(offset) is not int or not 0 <= offset < 1 << 40 or not isinstance(key, str):
        raise WeightFileError("The pickle refers to an impossible storage.")
    m.storages.append(Storage(kind.name, key, offset))
    m.push(m.storages[-1])


def _put(m: _Machine, index: int) -> None:
    m.memo[index] = m.stack[-1]


_OPERATIONS = {
    # Numbers and constants
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("I"): _integer_line,
    0x8A: lambda m: _long(m, m.number("<B")),
    0x8B: lambda m: _long(m, m.number("<i")),
    ord("G"): lambda m: m.push(m.number(">d")),
    # Strings
    ord("T"): lambda m: m.push(m.string(m.number("<i"))),
    ord("U"): lambda m: m.push(m.string(m.number("<B"))),
    ord("B"): lambda m: m.push(m.take(m.number("<I"))),
    ord("C"): lambda m: m.push(m.take(m.number("<B"))),
    0x8E: lambda m: m.push(m.take(m.number("<Q"))),
    0x96: lambda m: m.push(m.take(m.number("<Q"))),
    ord("X"): lambda m: m.push(m.text(m.number("<I"))),
    0x8C: lambda m: m.push(m.text(m.number("<B"))),
    0x8D: lambda m: m.push(m.text(m.number("<Q"))),
    # Containers
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    ord(")"): lambda m: m.push(()),
    ord("l"): lambda m: m.push(m.pop_mark()),
    ord("d"): _dict,
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: _tuple(m, 1),
    0x86: lambda m: _tuple(m, 2),
    0x87: lambda m: _tuple(m, 3),
    ord("a"): lambda m: _append(m, [m.pop()]),
    ord("e"): lambda m: _append(m, m.pop_mark()),
    ord("s"): _set_item,
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    # Names and what is made of them
    ord("c"): lambda m: m.push(admitted(m.line(), m.line())),
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,
    ord("o"): _object,
    ord("i"): _instance,
    ord("b"): _build,
    ord("Q"): _persistent,
    # The machine itself
    0x80: _protocol,
    0x95: _frame,
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord("0"): lambda m: m.pop(),
    ord("1"): lambda m: m.pop_mark(),
    ord("2"): lambda m: m.push(m.stack[-1]),
    ord("q"): lambda m: _put(m, m.number("<B")),
    ord("r"): lambda m: _put(m, m.number("<I")),
    0x94: lambda m: _put(m, len(m.memo)),
    ord("h"): lambda m: m.push(m.memo[m.number("<B")]),
    ord("j"): lambda m: m.push(m.memo[m.number("<I")]),
}


def _pairs(items: list[Any]):
    return zip(items[::2], items[1::2], strict=True)
