"""What a pickle may name: arrays, tensors, containers, and things that do nothing.

Each name stands for a function of this module, which makes a plain value of plain
values. Nothing is looked up in the modules that the names come from.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from keras_alexnet.weights.weight_file import WeightFileError

# Classes whose instances carry nothing that we need: command-line options of the 2012
# program, of torchvision's training script.
INERT_MODULES = {"options", "layer", "convnet", "gpumodel", "data", "convdata", "util"}
_INERT = {("argparse", "Namespace"), ("torch", "device"), ("torch", "Size")}


@dataclasses.dataclass(frozen=True)
class Name:
    """A class or function that a pickle names."""

    module: str
    name: str

    def __str__(self):
        return f"{self.module}.{self.name}"


class Inert:
    """An object that stands for another and does nothing."""


class Dtype:
    """A NumPy dtype under construction: the byte order comes later."""

    def __init__(self, code: str):
        self.code, self.order = code, "="

    def numpy(self) -> np.dtype:
        """Returns the dtype of an array of numbers."""
        return np.dtype(self.code).newbyteorder(self.order)


class Array:
    """A NumPy array as a pickle describes it.

    Attributes:
        shape: Its declared shape.
        dtype: A `Dtype`, or None for an array of objects.
        data: The bytes, or the list of objects.
        order: `"C"` or `"F"`.
    """

    def __init__(self, shape=(0,), dtype=None, data=b"", order="C"):
        self.shape, self.dtype, self.data, self.order = shape, dtype, data, order

    def numpy(self) -> np.ndarray:
        """Returns the array, as a view of the file.

        Raises:
            WeightFileError: It is no array of numbers, or its shape and bytes disagree.
        """
        if self.dtype is None or not isinstance(self.data, (bytes, memoryview)):
            raise WeightFileError("An array holds objects instead of numbers.")
        dtype = self.dtype.numpy()
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


class Text(str):
    """A short string of Python 2, which may be text or bytes."""

    __slots__ = ()


def _fill(array: Array, shape, dtype, data, order: str) -> None:
    if not isinstance(shape, tuple) or len(shape) > 8:
        raise WeightFileError("An array has an impossible shape.")
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise WeightFileError("An array has an impossible shape.")
    if isinstance(dtype, Dtype) and dtype.code == "O":
        dtype = None
    elif not isinstance(dtype, Dtype):
        raise WeightFileError("An array has no dtype.")
    if isinstance(data, Text):
        data = data.encode("latin-1")
    if not isinstance(data, list if dtype is None else (bytes, memoryview)):
        raise WeightFileError("An array has no data.")
    array.shape, array.dtype, array.data, array.order = shape, dtype, data, order


# === Calls ===
def _make_dtype(machine, code: Any, *_: Any) -> Dtype:
    allowed = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
    if code not in (*allowed, "O", "O8", "O4"):
        raise WeightFileError("The pickle has arrays of something else than numbers.")
    return Dtype("O" if code[0] == "O" else str(code))


def _make_array(machine, kind: Any, *_: Any) -> Array:
    return Array()


def _from_buffer(machine, data, dtype, shape, order="C") -> Array:
    array = Array()
    _fill(array, shape, dtype, data, "F" if order == "F" else "C")
    return array


def _make_scalar(machine, dtype: Any, data: Any = b"") -> float | int:
    array = Array()
    _fill(array, (1,), dtype, data, "C")
    return array.numpy().item()


def _make_dict(machine, pairs: Any = ()) -> dict:
    result: dict = {}
    machine.spend(len(pairs))
    for key, value in pairs:
        set_item(result, key, value)
    return result


def _encode(machine, text: Any, encoding: Any = "latin1") -> bytes:
    machine.spend(len(text) // 64)
    if encoding not in ("latin1", "latin-1"):
        raise WeightFileError("The pickle has bytes in an unknown encoding.")
    return text.encode("latin-1")


def _make_object(machine, kind: Any, *_: Any) -> Any:
    return call(machine, kind, ())


def _make_tensor(machine, storage, offset, shape, strides, *_: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > 8:
        raise WeightFileError("The pickle has a tensor without numbers.")
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
        raise WeightFileError("The pickle has a tensor of an impossible shape.")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _make_parameter(machine, data: Any, *_: Any) -> Any:
    return data


_CLASSES = {
    ("numpy", "ndarray"),
    ("__builtin__", "object"),
    ("builtins", "object"),
}
_CALLS = {
    ("numpy", "dtype"): _make_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _make_array,
    ("numpy._core.multiarray", "_reconstruct"): _make_array,
    ("numpy.core.multiarray", "scalar"): _make_scalar,
    ("numpy._core.multiarray", "scalar"): _make_scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("collections", "OrderedDict"): _make_dict,
    ("ordereddict", "OrderedDict"): _make_dict,
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _make_object,
    ("copyreg", "_reconstructor"): _make_object,
    ("torch._utils", "_rebuild_tensor"): _make_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _make_tensor,
    ("torch._utils", "_rebuild_parameter"): _make_parameter,
    ("torch.nn.parameter", "Parameter"): _make_parameter,
}


def admitted(module: str, name: str) -> Name:
    """Returns a name.

    Raises:
        WeightFileError: It is not one that files of weights need.
    """
    found = Name(module, name)
    if (
        module.split(".")[0] in INERT_MODULES
        or (module, name) in _INERT
        or (module, name) in _CALLS
        or (module, name) in _CLASSES
        or (module == "torch" and name.endswith("Storage"))
    ):
        return found
    advice = ""
    if module.split(".")[0] in ("torch", "torchvision"):
        advice = " Save model.state_dict() rather than the model."
    raise WeightFileError(
        f"The pickle asks for {found}, which files of weights have no need of. "
        f"Nothing of it was run.{advice}"
    )


def call(machine, function: Any, arguments: Any) -> Any:
    """Returns what a call in a pickle stands for.

    Args:
        machine: The machine that reads the pickle, which counts the cost.
        function: A `Name`, if the file is sound.
        arguments: A tuple, if the file is sound.
    """
    if not isinstance(function, Name) or not isinstance(arguments, tuple):
        raise WeightFileError("The pickle calls something that is no function.")
    key = (function.module, function.name)
    if key in _CALLS:
        return _CALLS[key](machine, *arguments)
    if key in _INERT or function.module.split(".")[0] in INERT_MODULES:
        return Inert()
    raise WeightFileError(f"The pickle calls {function}, which is no function.")


def build(target: Any, state: Any) -> None:
    """Gives a value the state that a pickle has for it."""
    if isinstance(target, Array):
        _, shape, dtype, fortran, data = state
        _fill(target, shape, dtype, data, "F" if fortran else "C")
    elif isinstance(target, Dtype):
        if state[1] not in ("<", ">", "=", "|"):
            raise WeightFileError("A dtype has an unknown byte order.")
        target.order = str(state[1])
    elif not isinstance(target, (Inert, dict)):
        raise WeightFileError("The pickle changes something that has no state.")


def set_item(target: Any, key: Any, value: Any) -> None:
    """Sets an item of a dict."""
    if isinstance(target, Inert):
        return
    if type(target) is not dict:
        raise WeightFileError("The pickle sets items of something else than a dict.")
    # Hashing a deeply nested tuple would exhaust the processor's stack.
    if not isinstance(key, (str, int, float, type(None))):
        raise WeightFileError("The pickle has a dict key that is no text or number.")
    target[key] = value
