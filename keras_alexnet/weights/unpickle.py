"""Restricted unpickler: a pickle as plain data, with nothing in it imported or called.

The standard library's machine, with a bounded number of steps. A class or function that
a pickle names is its mere name, and what it would make an `Opaque` that remembers the
call, so that whatever stands beside weights does not hide them. Long byte strings stay
views of the file, and nothing walks a structure recursively.

This is the machine in Python, of which steps can be replaced. That in C,
`pickle.Unpickler`, takes gigabytes for a memo index of 2^32, and a deeply nested tuple
as the key of a dict ends the process.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from keras_alexnet.weights.buffers import Budget, take, view
from keras_alexnet.weights.weight_file import WeightFileError

# Published files need a few thousand reads.
_MAX_READS, _BYTES_PER_FURTHER_READ = 1_000_000, 64
_MAX_LINE = 256
# Longer byte strings are array data, and stay where they are.
_SHORT = 1 << 10


class Opaque(dict):
    """What a call would have made, with the items that it was given afterwards.

    Attributes:
        name: The class or function, with its module.
        arguments: What it was called with.
        state: What `__setstate__` would have been called with, if anything.
    """

    def __init__(self, name: str, arguments: tuple = ()):
        super().__init__()
        self.name, self.arguments, self.state = name, arguments, None


def load(
    buffer: memoryview, start: int = 0, storages: list[Opaque] | None = None
) -> tuple[Any, int]:
    """Reads a pickle.

    Args:
        buffer: The file.
        start: Where the pickle starts.
        storages: Takes up the storages of PyTorch that the pickle refers to.

    Returns:
        The value, of dicts, lists, tuples, numbers, text, views of byte strings and
        `Opaque`; and where the pickle ends.

    Raises:
        WeightFileError: It is damaged, or larger than files of weights are.
    """
    machine = _Machine(buffer, start, [] if storages is None else storages)
    try:
        return machine.run(), machine.position
    except WeightFileError:
        raise
    except Exception as error:
        raise WeightFileError(
            f"The pickle is damaged at byte {machine.position:,}."
        ) from error


class _Machine(pickle._Unpickler):
    # Text of Python 2 is array data as often as not.
    encoding, errors = "latin-1", "strict"

    def __init__(self, buffer: memoryview, position: int, storages: list[Opaque]):
        self.buffer, self.position, self.storages = buffer, position, storages
        self.budget = Budget(_MAX_READS + len(buffer) // _BYTES_PER_FURTHER_READ)
        self.memo, self.metastack, self.stack = {}, [], []
        self.append, self.proto = self.stack.append, 0

    def run(self) -> Any:
        while (code := self.read(1)[0]) != pickle.STOP[0]:
            operation = self.dispatch.get(code)
            if operation is None:
                raise WeightFileError(
                    f"The pickle has the instruction {code:#04x}, which files of "
                    "weights do not need."
                )
            operation(self)
        return self.stack.pop()

    def read(self, size: int) -> bytes | memoryview:
        self.budget.spend()
        data = take(self.buffer, self.position, size)
        self.position += size
        return data if size > _SHORT else bytes(data)

    def readline(self) -> bytes:
        ahead = bytes(self.buffer[self.position : self.position + _MAX_LINE])
        length = ahead.find(b"\n") + 1
        if not length:
            raise WeightFileError("The pickle has a name that never ends.")
        return self.read(length)

    def find_class(self, module: str, name: str) -> str:
        return f"{module}.{name}"

    def persistent_load(self, reference: Any) -> Any:
        if reference[0] == "module":
            # The class of a module, with its source, before PyTorch 1.6.
            return reference[1]
        self.storages.append(Opaque("storage", reference))
        return self.storages[-1]

    def set_items(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict):
            raise WeightFileError("The pickle sets items of something that has none.")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys belong to no state dict; to hash a deeply nested tuple would
            # exhaust the processor's stack.
            if isinstance(key, (str, int, float, type(None))):
                target[key] = value

    # === Instructions that differ from the standard library's ===

    def _decode_string(self, value: bytes | memoryview) -> Any:
        return super()._decode_string(value) if isinstance(value, bytes) else value

    def load_items(self) -> None:
        items = self.pop_mark()
        self.set_items(self.stack[-1], items)

    def load_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items(self.stack[-1], [key, value])

    def load_new_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.set_items(self.stack[-1], items)

    def load_list_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Opaque):
            raise WeightFileError("The pickle appends to something that is no list.")

    def load_call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, Opaque) else function
        if not isinstance(name, str) or not isinstance(arguments, tuple):
            raise WeightFileError("The pickle calls something that is no function.")
        self.append(Opaque(name, arguments))

    def load_call_with_names(self) -> None:
        self.stack.pop()
        self.load_call()

    def load_state(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], Opaque):
            raise WeightFileError("The pickle changes something that has no state.")
        self.stack[-1].state = state

    def load_set(self) -> None:
        self.append(Opaque("builtins.set"))

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.load_set()

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.FRAME[0]: lambda m: m.read(8),
        # The original takes memory for what the file claims to hold.
        pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],
        pickle.DICT[0]: load_new_dict,
        pickle.SETITEM[0]: load_item,
        pickle.SETITEMS[0]: load_items,
        pickle.APPEND[0]: lambda m: m.load_list_items([m.stack.pop()]),
        pickle.APPENDS[0]: lambda m: m.load_list_items(m.pop_mark()),
        pickle.REDUCE[0]: load_call,
        pickle.NEWOBJ[0]: load_call,
        pickle.NEWOBJ_EX[0]: load_call_with_names,
        pickle.BUILD[0]: load_state,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.ADDITEMS[0]: lambda m: m.pop_mark(),
    }
    # Objects of protocols 0 and 1, registered extensions, and what is outside the file.
    for _code in (
        *(pickle.INST, pickle.OBJ, pickle.EXT1, pickle.EXT2, pickle.EXT4),
        *(pickle.PERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        del dispatch[_code[0]]


# === NumPy's arrays ===

_MODULES = [f"numpy.{core}." for core in ("core", "_core")]
_RECONSTRUCT = [f"{module}multiarray._reconstruct" for module in _MODULES]
_FROMBUFFER = [f"{module}numeric._frombuffer" for module in _MODULES]
ARRAYS = (*_RECONSTRUCT, *_FROMBUFFER)


def numpy_array(value: Opaque) -> np.ndarray | list:
    """Returns the array that a call would have made, as a view of the file.

    Args:
        value: A call of one of `ARRAYS`.

    Returns:
        The array; of an array of objects, these.

    Raises:
        WeightFileError: It is none, or its shape and bytes disagree.
    """
    if value.name in _FROMBUFFER:
        data, dtype, shape, order = value.arguments
    else:
        _, shape, dtype, order, data = value.state
    if isinstance(data, list):
        return data
    # Protocols without bytes, and Python 2, write them as text.
    if isinstance(data, Opaque) and data.name == "_codecs.encode":
        data = data.arguments[0]
    if isinstance(data, str):
        data = data.encode("latin-1")
    if not isinstance(dtype, Opaque) or not isinstance(data, (bytes, memoryview)):
        raise WeightFileError("An array has no data.")
    code, byte_order = dtype.arguments[0], (dtype.state or (3, "="))[1]
    if code not in ("f2", "f4", "f8") or byte_order not in ("<", ">", "="):
        raise WeightFileError("An array holds something else than floats.")
    dtype = np.dtype(code).newbyteorder(byte_order)
    if order in ("F", True):
        return view(data, dtype, shape[::-1]).T
    return view(data, dtype, shape)
