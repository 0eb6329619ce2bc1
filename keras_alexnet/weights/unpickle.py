"""Restricted unpickler: a pickle as plain data, with nothing in it imported or called.

The standard library's machine, with a bounded number of steps. A class or function that
a pickle names stands for itself: a few make arrays, tensors and dicts, any other makes
an `Opaque`, so that whatever stands beside weights does not hide them. Long byte
strings stay views of the file, and nothing walks a structure recursively.

This is the machine in Python, of which steps can be replaced. That in C,
`pickle.Unpickler`, takes gigabytes for a memo index of 2^32, and a deeply nested tuple
as the key of a dict ends the process.
"""

from __future__ import annotations

import dataclasses
import math
import pickle
import struct
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_alexnet.weights.weight_file import WeightFileError

# Published files need a few thousand reads.
_MAX_READS, _BYTES_PER_FURTHER_READ = 1_000_000, 64
_MAX_LINE = 256
# Longer byte strings are array data, and stay where they are.
_SHORT = 1 << 10
_DTYPES = {f"{kind}{size}" for kind in "fiu" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module[:80]}.{self.name[:80]}"


class Opaque(dict):
    """An instance of a class that means nothing to us, with the items that it has.

    Attributes:
        kind: Its class.
        is_module: Whether it is a module of PyTorch.
    """

    def __init__(self, kind: Name):
        super().__init__()
        self.kind, self.is_module = kind, False


class Dtype:
    """A NumPy dtype under construction: the byte order comes later."""

    def __init__(self, code: str):
        self.code, self.order = code, "="


class Array:
    """A NumPy array as a pickle describes it.

    Attributes:
        shape: Its declared shape.
        dtype: A `Dtype`, or None for an array of objects.
        data: The bytes, or the list of objects.
        order: `"C"` or `"F"`.
    """

    def __init__(self, *state: Any):
        self.shape, self.dtype, self.data, self.order = (0,), None, b"", "C"
        if state:
            self.fill(*state)

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any = "C") -> None:
        """Takes the state that a pickle has for the array.

        Raises:
            WeightFileError: It is none.
        """
        if not isinstance(shape, tuple) or len(shape) > 8:
            raise WeightFileError("An array has an impossible shape.")
        if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
            raise WeightFileError("An array has an impossible shape.")
        if not isinstance(dtype, Dtype):
            raise WeightFileError("An array has no dtype.")
        dtype = None if dtype.code == "O" else dtype
        if isinstance(data, str):  # Of Python 2.
            data = data.encode("latin-1")
        if not isinstance(data, list if dtype is None else (bytes, memoryview)):
            raise WeightFileError("An array has no data.")
        self.shape, self.dtype, self.data = shape, dtype, data
        self.order = "F" if order in ("F", True, 1) else "C"

    def numpy(self) -> np.ndarray:
        """Returns the array, as a view of the file.

        Raises:
            WeightFileError: It is no array of numbers, or its shape and bytes disagree.
        """
        if self.dtype is None or not isinstance(self.data, (bytes, memoryview)):
            raise WeightFileError("An array holds objects instead of numbers.")
        dtype = np.dtype(self.dtype.code).newbyteorder(self.dtype.order)
        if math.prod(self.shape) * dtype.itemsize != len(self.data):
            raise WeightFileError("An array's shape and its bytes disagree.")
        return np.frombuffer(self.data, dtype).reshape(self.shape, order=self.order)


@dataclasses.dataclass(frozen=True)
class Storage:
    """The numbers behind PyTorch tensors, by the key that the file keeps them under."""

    kind: str
    key: str
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A PyTorch tensor: a window on a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(
    buffer: memoryview, start: int = 0, storages: list[Storage] | None = None
) -> tuple[Any, int]:
    """Reads a pickle.

    Args:
        buffer: The file.
        start: Where the pickle starts.
        storages: Takes up the storages of PyTorch that the pickle refers to.

    Returns:
        The value, of dicts, lists, tuples, numbers, text, views of byte strings and
        the classes of this module; and where the pickle ends.

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
    def __init__(self, buffer: memoryview, position: int, storages: list[Storage]):
        self.buffer, self.position, self.storages = buffer, position, storages
        self.reads_left = _MAX_READS + len(buffer) // _BYTES_PER_FURTHER_READ
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

    def spend(self, reads: int) -> None:
        self.reads_left -= reads
        if self.reads_left < 0:
            raise WeightFileError(
                "The pickle has far more parts than files of weights need."
            )

    def read(self, size: int) -> bytes | memoryview:
        self.spend(1)
        end = self.position + size
        if not self.position <= end <= len(self.buffer):
            raise WeightFileError("The pickle ends in the middle of a value.")
        data, self.position = self.buffer[self.position : end], end
        return data if size > _SHORT else bytes(data)

    def readline(self) -> bytes:
        ahead = bytes(self.buffer[self.position : self.position + _MAX_LINE])
        length = ahead.find(b"\n") + 1
        if not length:
            raise WeightFileError("The pickle has a name that never ends.")
        return self.read(length)

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def persistent_load(self, reference: Any) -> Storage:
        marker, kind, key, _, _, *rest = reference
        if marker != "storage" or not isinstance(kind, Name):
            raise WeightFileError("The pickle refers to something that is no storage.")
        offset = rest[0][1] if rest and rest[0] is not None else 0
        if (
            type(offset) is not int
            or not 0 <= offset < 1 << 40
            or not isinstance(key, str)
        ):
            raise WeightFileError("The pickle refers to an impossible storage.")
        self.storages.append(Storage(kind.name, key, offset))
        return self.storages[-1]

    def call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(arguments, tuple):
            raise WeightFileError("The pickle calls something without arguments.")
        if isinstance(function, Opaque):
            return Opaque(function.kind)
        if not isinstance(function, Name):
            raise WeightFileError("The pickle calls something that is no function.")
        made = _CALLS.get((function.module, function.name))
        return Opaque(function) if made is None else made(self, *arguments)

    def set_items(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict):
            raise WeightFileError("The pickle sets items of something that has none.")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Other keys belong to no state dict; to hash a deeply nested tuple would
            # exhaust the processor's stack.
            if isinstance(key, (str, int, float, type(None))):
                target[key] = value

    # === Instructions that differ from the standard library's ===

    def load_frame(self) -> None:
        if struct.unpack("<Q", self.read(8))[0] > len(self.buffer) - self.position:
            raise WeightFileError("The pickle is cut short.")

    def load_string(self, form: str) -> None:
        """Reads a string of Python 2: text if it is short, array data otherwise."""
        (size,) = struct.unpack(form, self.read(struct.calcsize(form)))
        data = self.read(size)
        self.append(str(data, "latin-1") if isinstance(data, bytes) else data)

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
        self.append(self.call(function, arguments))

    def load_call_with_names(self) -> None:
        self.stack.pop()
        self.load_call()

    def load_instance(self) -> None:
        module, name = (str(self.readline()[:-1], "utf-8") for _ in range(2))
        self.append(self.call(Name(module, name), tuple(self.pop_mark())))

    def load_object(self) -> None:
        kind, *arguments = self.pop_mark()
        self.append(self.call(kind, tuple(arguments)))

    def load_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            _, shape, dtype, order, data = state
            target.fill(data, dtype, shape, order)
        elif isinstance(target, Dtype):
            if state[1] not in ("<", ">", "=", "|"):
                raise WeightFileError("A dtype has an unknown byte order.")
            target.order = state[1]
        elif isinstance(target, Opaque):
            target.is_module = isinstance(state, dict) and "_modules" in state
        elif not isinstance(target, (dict, Tensor)):
            raise WeightFileError("The pickle changes something that has no state.")

    def load_set(self) -> None:
        self.append(Opaque(Name("builtins", "set")))

    def load_frozenset(self) -> None:
        self.pop_mark()
        self.load_set()

    dispatch = {
        **pickle._Unpickler.dispatch,
        pickle.FRAME[0]: load_frame,
        pickle.BINSTRING[0]: lambda m: m.load_string("<i"),
        pickle.SHORT_BINSTRING[0]: lambda m: m.load_string("<B"),
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
        pickle.INST[0]: load_instance,
        pickle.OBJ[0]: load_object,
        pickle.BUILD[0]: load_state,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.ADDITEMS[0]: lambda m: m.pop_mark(),
    }
    # Registered extensions, and buffers and objects that are outside the file.
    for _code in (
        *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
        *(pickle.PERSID, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
    ):
        del dispatch[_code[0]]


# === What the names stand for ===
def _make_dtype(machine: _Machine, code: Any, *_: Any) -> Dtype:
    if code in ("O", "O8", "O4"):
        return Dtype("O")
    if not isinstance(code, str) or code not in _DTYPES:
        raise WeightFileError("The pickle has arrays of something else than numbers.")
    return Dtype(code)


def _make_dict(machine: _Machine, pairs: Iterable = ()) -> dict:
    made: dict = {}
    machine.spend(len(pairs))
    for key, value in pairs:
        machine.set_items(made, [key, value])
    return made


def _encode(machine: _Machine, text: Any, encoding: Any = "latin1") -> bytes:
    machine.spend(len(text) // 64)
    if encoding not in ("latin1", "latin-1"):
        raise WeightFileError("The pickle has bytes in an unknown encoding.")
    return text.encode("latin-1")


def _make_tensor(machine: _Machine, storage, offset, shape, strides, *_: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > 8:
        raise WeightFileError("The pickle has a tensor without numbers.")
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
        raise WeightFileError("The pickle has a tensor of an impossible shape.")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _call_again(
    machine: _Machine, function: Any, kind: Any, arguments: Any, *_: Any
) -> Any:
    return machine.call(function, arguments)


def _first(machine: _Machine, value: Any, *_: Any) -> Any:
    return value


_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_CALLS: dict[tuple[str, str], Callable] = {
    ("numpy", "dtype"): _make_dtype,
    **{(module, "_reconstruct"): lambda machine, *_: Array() for module in _ARRAYS},
    **{
        (module, "_frombuffer"): lambda machine, *state: Array(*state)
        for module in ("numpy.core.numeric", "numpy._core.numeric")
    },
    ("collections", "OrderedDict"): _make_dict,
    ("_codecs", "encode"): _encode,
    ("torch._utils", "_rebuild_tensor"): _make_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _make_tensor,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    # A tensor on a device that PyTorch cannot read from, as an array.
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch.nn.parameter", "Parameter"): _first,
    # A subclass of Tensor, or a tensor with attributes of its own.
    ("torch._tensor", "_rebuild_from_type_v2"): _call_again,
}
