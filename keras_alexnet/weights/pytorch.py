"""PyTorch state dicts: `.pth` (zip and legacy layout) and `.safetensors`.

The network is looked for among all tensors of a file, whatever they are wrapped in. In
torchvision's naming layers are numbered inside `features` and `classifier`; only those
with weights have entries, so their order tells which is which.
"""

from __future__ import annotations

import functools
import json
import math
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import safe_open

from keras_alexnet.weights.arrays import Read, by_position, channels_first_layers
from keras_alexnet.weights.buffers import read_member, take, view
from keras_alexnet.weights.unpickle import ARRAYS, Opaque, load, numpy_array
from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    TWO_TOWERS,
    WeightFile,
    WeightFileError,
)

# How a legacy file starts: protocol 2, and torch.serialization's magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

_STORAGES = {
    "BFloat16Storage": ml_dtypes.bfloat16,
    "BoolStorage": "u1",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ShortStorage": "i2",
}
_SAFETENSORS = {"BF16": ml_dtypes.bfloat16, "F16": "f2", "F32": "f4", "F64": "f8"}
# The header of a safetensors file describes a tensor in about 100 bytes.
_MAX_HEADER = 1 << 20
# How deep in lists and dicts a state dict may be, and how long a part of its keys.
_MAX_DEPTH, _MAX_KEY = 5, 200
# Layers by number, in torchvision's modules or in the slices that LPIPS cuts them into;
# or by Caffe's names. DataParallel, compilation and averaging wrap the network or its
# features in modules of their own.
_KEY = re.compile(
    r"(?:(?P<prefix>.*)\.)??(?:"
    r"(?:features|slice\d)\.(?:module\.)?(?P<convolution>\d{1,3})|"
    r"classifier\.(?:module\.)?(?P<dense>\d{1,3})|"
    r"(?:(?:features|classifier)\.(?:module\.)?)?(?P<name>conv[1-5]|fc[678])"
    r")\.(?P<kind>weight|bias)"
)
# Dense layers that have a name by themselves, whether all of them are there or not.
_DENSE = {"1": "fc6", "4": "fc7", "6": "fc8", "fc6": "fc6", "fc7": "fc7", "fc8": "fc8"}
_CONTAINERS = (dict, list, tuple)
_ORDERED_DICT = "collections.OrderedDict"
# What makes a tensor, or stands around one: parameters, arrays in place of tensors on
# devices that PyTorch cannot read from, subclasses, tensors with attributes.
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_LEAVES = {
    *(*_TENSORS, *ARRAYS, _FROM_TYPE),
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch.nn.parameter.Parameter",
}
_ADVICE = "Save model.state_dict() rather than the model."


class StateDict(NamedTuple):
    """The tensors of a file.

    Attributes:
        format: The file's format.
        tensors: By key, functions that return the arrays.
    """

    format: str
    tensors: Mapping[str, Read]


# === Files ===


def read_zip(buffer: memoryview, members: Mapping) -> StateDict:
    """Reads what `torch.save` writes since PyTorch 1.6."""
    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise WeightFileError("A PyTorch archive has one data.pkl.")
    folder = pickled[0][: -len("data.pkl")]
    state, _ = load(read_member(buffer, members[pickled[0]]))
    order = b"little"
    if f"{folder}byteorder" in members:
        order = bytes(read_member(buffer, members[f"{folder}byteorder"]))

    @functools.cache
    def storage(key: str) -> memoryview:
        return read_member(buffer, members[f"{folder}data/{key}"])

    return _state_dict(state, storage, {b"little": "<", b"big": ">"}[order])


def read_legacy(buffer: memoryview) -> StateDict:
    """Reads what `torch.save` wrote before PyTorch 1.6."""
    # The magic number and the protocol's, the system, the value, the storages' keys.
    values, position = [], 0
    stored: list[Opaque] = []
    for _ in range(5):
        value, position = load(buffer, position, stored)
        values.append(value)
    _, version, system, state, keys = values
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise WeightFileError("The PyTorch file is of an unknown version.")
    order = "<" if system.get("little_endian", True) else ">"
    kinds = {one.arguments[2]: _dtype(one.arguments[1]) for one in stored}
    storages = {}
    for key in keys:
        (count,) = struct.unpack(f"{order}q", take(buffer, position, 8))
        size = count * kinds[key].itemsize
        storages[key] = take(buffer, position + 8, size)
        position += 8 + size
    return _state_dict(state, storages.__getitem__, order)


def read_safetensors(path: Path, buffer: memoryview, header_size: int) -> StateDict:
    """Reads a file of the safetensors library."""
    if header_size > _MAX_HEADER:
        raise WeightFileError(
            f"The safetensors file has a header of {header_size:,} B."
        )
    # The library checks the header, that its arrays lie side by side in the file too,
    # and would copy them out of it one by one: half as fast.
    with safe_open(path, framework="np"):
        header = json.loads(bytes(buffer[8 : 8 + header_size]))
    data = buffer[8 + header_size :]

    def read(entry: dict) -> np.ndarray:
        start, stop = entry["data_offsets"]
        return view(data[start:stop], _SAFETENSORS[entry["dtype"]], entry["shape"])

    header.pop("__metadata__", None)
    tensors = {key: functools.partial(read, entry) for key, entry in header.items()}
    return StateDict("safetensors", tensors)


def _state_dict(
    state: Any, storage: Callable[[str], memoryview], order: str
) -> StateDict:
    """Returns the tensors of a checkpoint, or says what it is instead."""
    tensors, module = _tensors(state)
    if not any(map(_KEY.fullmatch, tensors)) and module is not None:
        raise WeightFileError(
            f"The PyTorch file holds a whole {module.name[:160]}, whose code would "
            f"have to be run. {_ADVICE}"
        )
    if not tensors:
        raise WeightFileError(f"The PyTorch file holds no state dict. {_ADVICE}")
    read = {
        key: functools.partial(_array, tensor, storage, order)
        for key, tensor in tensors.items()
    }
    return StateDict("torch", read)


def _tensors(state: Any) -> tuple[dict[str, Opaque], Opaque | None]:
    """Returns all tensors of a checkpoint, and a module that was pickled as a whole."""
    tensors: dict[str, Opaque] = {}
    module = None
    if isinstance(state, Opaque) and state.name != _ORDERED_DICT:
        module = state
    waiting, seen = [("", 0, state)] if isinstance(state, _CONTAINERS) else [], set()
    while waiting:
        where, depth, value = waiting.pop()
        if isinstance(value, Opaque):
            if value.name in _LEAVES:
                tensors[where] = value
                continue
            if isinstance(value.state, dict) and "_modules" in value.state:
                module = value
        if id(value) not in seen and depth < _MAX_DEPTH:
            waiting += [
                (f"{where}.{key}" if where else str(key), depth + 1, item)
                for key, item in _items(value, seen)
                if isinstance(item, _CONTAINERS) and _may_lead_to_weights(key)
            ]
        seen.add(id(value))
    return tensors, module


def _items(value: dict | list | tuple, seen: set[int]) -> Iterable[tuple[Any, Any]]:
    """Returns what is in a container; what two share only once."""
    if not isinstance(value, dict):
        return enumerate(value)
    items = list(value.items())
    if isinstance(value, Opaque) and value.name == _ORDERED_DICT and value.arguments:
        # Python 2 gives it its items as pairs.
        pairs = value.arguments[0]
        items += [] if id(pairs) in seen else [(key, item) for key, item in pairs]
        seen.add(id(pairs))
    return items


def _may_lead_to_weights(key: Any) -> bool:
    return not isinstance(key, str) or (
        len(key) <= _MAX_KEY and not key.startswith("optim")
    )


def _dtype(storage: Any) -> np.dtype:
    """Returns the type of a storage's numbers, by the name of its class."""
    return np.dtype(_STORAGES[str(storage).rpartition(".")[2]])


def _array(value: Opaque, storage: Callable, order: str) -> np.ndarray:
    """Returns a tensor as a view of the file.

    Args:
        value: A call of one of `_LEAVES`.
        storage: Returns the bytes of a storage by its key.
        order: The byte order, `"<"` or `">"`.
    """
    if value.name in ARRAYS:
        return numpy_array(value)
    if value.name == _FROM_TYPE:
        function, _, arguments, *_ = value.arguments
        return _array(Opaque(function, arguments), storage, order)
    if value.name not in _TENSORS:
        (value, *_) = value.arguments
        if not isinstance(value, Opaque) or value.name not in _LEAVES:
            raise WeightFileError("The PyTorch file has a parameter without numbers.")
        return _array(value, storage, order)
    stored, offset, shape, strides, *_ = value.arguments
    if not isinstance(stored, Opaque) or stored.name != "storage":
        raise WeightFileError("The PyTorch file has a tensor without numbers.")
    _, kind, key, _, _, *window = stored.arguments
    starts = (offset, window[0][1]) if window and window[0] else (offset,)
    numbers = *starts, *shape, *strides
    if not all(type(number) is int and 0 <= number < 1 << 40 for number in numbers):
        raise WeightFileError("The PyTorch file has a tensor of an impossible shape.")
    dtype = _dtype(kind).newbyteorder(order)
    data = storage(key)
    numbers = np.frombuffer(data, dtype, len(data) // dtype.itemsize)[sum(starts) :]
    size = math.prod(shape)
    last = sum((n - 1) * step for n, step in zip(shape, strides, strict=False))
    # A tensor that shows numbers repeatedly could be of any size.
    if (
        not len(shape) == len(strides) <= 8
        or size > numbers.size
        or (size and last >= numbers.size)
    ):
        raise WeightFileError(
            f"A tensor of {size:.6g} numbers is larger than its storage of "
            f"{numbers.size:,}."
        )
    strides = [stride * dtype.itemsize for stride in strides]
    return np.lib.stride_tricks.as_strided(numbers, shape, strides, writeable=False)


# === The network in them ===


def from_state_dict(
    tensors: Mapping[str, Read], form: str, prefix: str | None = None
) -> WeightFile:
    """Finds the network among the tensors of a file, and names its layers.

    Args:
        tensors: By key, functions that return the arrays.
        form: The file's format.
        prefix: Where there are several networks, what the keys of one begin with.

    Raises:
        WeightFileError: It is no AlexNet, or several.
    """
    # prefix -> whether it is a convolution -> number or name -> kind -> tensor
    networks: dict[str, dict[bool, dict[str, dict[str, Read]]]] = {}
    for key, tensor in tensors.items():
        if match := _KEY.fullmatch(key):
            layer = match["convolution"] or match["dense"] or match["name"]
            is_convolution = bool(match["convolution"]) or layer in CONVOLUTIONS
            network = networks.setdefault(match["prefix"] or "", {True: {}, False: {}})
            network[is_convolution].setdefault(layer, {})[match["kind"]] = tensor
    network = networks[_choose(networks, list(tensors), prefix)]
    # By number; names are of equal length.
    convolutions, dense = (
        sorted(network[kind], key=lambda layer: (len(layer), layer))
        for kind in (True, False)
    )
    order = by_position(convolutions, dense)
    if set(dense) <= _DENSE.keys():
        # Those before one that is missing keep their place.
        order = by_position(convolutions, ()) | {_DENSE[name]: name for name in dense}
    weights = {}
    for name, layer in order.items():
        found = network[name in CONVOLUTIONS][layer]
        if set(found) != {"weight", "bias"}:
            raise WeightFileError(f"{name} ({layer}) should have a weight and a bias.")
        weights[name] = found["weight"], found["bias"]
    layers = channels_first_layers(weights)
    by_torch = convolutions[0].isdigit() and layers["conv2"].kernel.shape != TWO_TOWERS
    return WeightFile(form, layers, preprocessing="torch" if by_torch else None)


def _choose(networks: dict[str, dict], keys: list[str], prefix: str | None) -> str:
    """Returns what the keys of the network begin with that is meant."""
    if any("_packed_params" in key for key in keys):
        raise WeightFileError(
            "The network is quantised. Save the state dict of the one it was made from."
        )
    # Another network beside an AlexNet leaves no choice.
    found = [where for where, layers in networks.items() if len(layers[True]) == 5]
    if not found:
        if networks and any(key.endswith(".running_mean") for key in keys):
            raise WeightFileError(
                "The network has batch normalisation, which no AlexNet of PyTorch has."
            )
        raise WeightFileError(
            "Expected the keys of torchvision's AlexNet, such as features.0.weight, of "
            "five convolutions. "
            f"Found: {', '.join(key[:40] for key in keys[:5]) or 'none'}."
        )
    names = ", ".join(repr(where[:80]) for where in found[:8])
    if prefix is not None:
        wanted = prefix.strip(".")
        found = [where for where in found if where == wanted] or [
            where for where in found if wanted and f".{wanted}." in f".{where}."
        ]
        if not found:
            raise WeightFileError(
                f"No keys of a network begin with {prefix!r}. Found: {names}."
            )
    if len(found) > 1:
        raise WeightFileError(
            f"The file holds several networks, whose keys begin with {names}. Choose "
            "one of them: prefix=... in Python, --prefix on the command line."
        )
    return found[0]
