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
import pickle
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from keras_alexnet.weights.buffers import Budget, take, view
from keras_alexnet.weights.weight_file import WeightFileError

# Published files need a few thousand reads.
_MAX_READS, _BYTES_PER_FURTHER_READ = 1_000_000, 64
_MAX_LINE = 256
# Longer byte strings are array data, and stay where they are.
_SHORT = 1 << 10


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


@dataclasses.dataclass
class Dtype:
    """A NumPy dtype as a pickle describes it; the byte order comes later."""

    code: Any
    order: Any = "="


@dataclasses.dataclass
class Array:
    """A NumPy array as a pickle describes it, which nobody has checked.

    Attributes:
        data: The bytes; a list of objects.
        dtype: A `Dtype`.
        shape: The declared shape.
        order: `"F"` or True for Fortran's.
    """

    data: Any = b""
    dtype: Any = None
    shape: Any = ()
    order: Any = "C"

    def numpy(self) -> np.ndarray:
        """Returns the array, as a view of the file.

        Raises:
            WeightFileError: It is no array of numbers, or its shape and bytes disagree.
        """
        code, order = getattr(self.dtype, "code", None), self.dtype and self.dtype.order
        if code not in ("f2", "f4", "f8") or order not in ("<", ">", "="):
            raise WeightFileError("An array holds something else than floats.")
        # Python 2 wrote bytes as text.
        data = self.data
        data = data.encode("latin-1") if isinstance(data, str) else data
        dtype = np.dtype(code).newbyteorder(order)
        if self.order in ("F", True):
            return view(data, dtype, self.shape[::-1]).T
        return view(data, dtype, self.shape)


@dataclasses.dataclass(frozen=True)
class Storage:
    """The numbers behind PyTorch tensors, by the key that the file keeps them under."""

    kind: str
    key: str
    offset: int = 0


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A PyTorch tensor, a window on a storage, which nobody has checked."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


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
    # Text of Python 2 is array data as often as not.
    encoding, errors = "latin-1", "strict"

    def __init__(self, buffer: memoryview, position: int, storages: list[Storage]):
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

    def find_class(self, module: str, name: str) -> Name:
        return Name(module, name)

    def persistent_load(self, reference: Any) -> Any:
        marker, kind, key, *rest = reference
        if marker == "module":
            # The class of a module, with its source, before PyTorch 1.6.
            return kind
        _, _, *rest = rest
        if marker != "storage" or not isinstance(key, str):
            raise WeightFileError("The pickle refers to something that is no storage.")
        offset = rest[0][1] if rest and rest[0] is not None else 0
        self.storages.append(Storage(kind.name, key, offset))
        return self.storages[-1]

    def call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Opaque):
            function = function.kind
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
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
        self.append(self.call(function, arguments))

    def load_call_with_names(self) -> None:
        self.stack.pop()
        self.load_call()

    def load_state(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Array):
            _, target.shape, target.dtype, target.order, target.data = state
        elif isinstance(target, Dtype):
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


# === What the names stand for ===
def _make_dict(machine: _Machine, pairs: Iterable = ()) -> dict:
    made: dict = {}
    machine.budget.spend(len(pairs))
    for key, value in pairs:
        machine.set_items(made, [key, value])
    return made


def _encode(machine: _Machine, text: Any, encoding: Any = "latin1") -> bytes:
    machine.budget.spend(len(text) // 64)
    if encoding not in ("latin1", "latin-1"):
        raise WeightFileError("The pickle has bytes in an unknown encoding.")
    return text.encode("latin-1")


def _first(machine: _Machine, value: Any, *_: Any) -> Any:
    return value


_CALLS: dict[tuple[str, str], Callable] = {
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", lambda machine, *_: Array()),
            ("numeric", "_frombuffer", lambda machine, *state: Array(*state)),
        )
    },
    ("numpy", "dtype"): lambda machine, code, *_: Dtype(code),
    ("collections", "OrderedDict"): _make_dict,
    ("_codecs", "encode"): _encode,
    **{
        ("torch._utils", name): lambda machine, storage, offset, shape, strides, *_: (
            Tensor(storage, offset, shape, strides)
        )
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2")
    },
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    # A tensor on a device that PyTorch cannot read from, as an array.
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _first,
    ("torch.nn.parameter", "Parameter"): _first,
    # A subclass of Tensor, or a tensor with attributes of its own.
    ("torch._tensor", "_rebuild_from_type_v2"): (
        lambda machine, function, kind, arguments, *_: machine.call(function, arguments)
    ),
}
