"""PyTorch state dicts: `.pth` (zip and legacy layout) and `.safetensors`.

The network is looked for among all tensors of a file, whatever they are wrapped in. In
torchvision's naming layers are numbered inside `features` and `classifier`; only those
with weights have entries, so their order tells which is which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_alexnet.weights.archives import read_member
from keras_alexnet.weights.arrays import by_position, channels_first_layers, view, widen
from keras_alexnet.weights.unpickle import Array, Opaque, Storage, Tensor, load
from keras_alexnet.weights.weight_file import (
    CONVOLUTIONS,
    LAYER_NAMES,
    TWO_TOWERS,
    WeightFile,
    WeightFileError,
)

# How a legacy file starts: protocol 2, and torch.serialization's magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"

# `bfloat16` is unknown to NumPy: it is the upper half of a float32.
_STORAGES = {
    "BFloat16Storage": "u2",
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
# The header of a safetensors file describes a tensor in about 100 bytes.
_MAX_HEADER = 1 << 20
_SAFETENSORS = {
    "BF16": "BFloat16Storage",
    "F16": "HalfStorage",
    "F32": "FloatStorage",
    "F64": "DoubleStorage",
}
# How deep in lists and dicts a state dict may be, and how long a part of its keys.
_MAX_DEPTH, _MAX_KEY = 5, 200
# Layers by number, in torchvision's modules or in the slices that LPIPS cuts them into;
# or by Caffe's names. DataParallel, compilation and averaging wrap the network or its
# features in modules of their own.
_KEY = re.compile(
    r"(?:(.*)\.)??(?:(features|classifier|slice\d)\.(?:module\.)?(\d{1,3})|"
    r"(?:(?:features|classifier)\.(?:module\.)?)?(conv[1-5]|fc[678]))\.(weight|bias)"
)
# torchvision's dense layers; those before the one that is missing keep their place.
_TORCHVISION_DENSE = {1: "fc6", 4: "fc7", 6: "fc8"}
_ADVICE = "Save model.state_dict() rather than the model."


# What is made of the tensors of a file, read one by one, and of the file's format.
Finish = Callable[[Mapping[str, Callable[[], np.ndarray]], str], Any]


def read_zip(buffer: memoryview, members: Mapping, finish: Finish) -> Any:
    """Reads what `torch.save` writes since PyTorch 1.6."""
    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise WeightFileError("A PyTorch archive has one data.pkl.")
    folder = pickled[0][: -len("data.pkl")]
    state, _ = load(read_member(buffer, members[pickled[0]]))
    order = "<"
    if f"{folder}byteorder" in members:
        name = bytes(read_member(buffer, members[f"{folder}byteorder"])[:8])
        order = {b"little": "<", b"big": ">"}.get(name)
        if order is None:
            raise WeightFileError("The PyTorch archive is of an unknown byte order.")
    read: dict[str, memoryview] = {}

    def storage(key: str) -> memoryview:
        if key not in read:
            info = members.get(f"{folder}data/{key}")
            if info is None:
                raise WeightFileError(f"The PyTorch archive lacks data/{key[:80]}.")
            read[key] = read_member(buffer, info)
        return read[key]

    return _from_pickle(state, storage, order, finish)


def read_legacy(buffer: memoryview, finish: Finish) -> Any:
    """Reads what `torch.save` wrote before PyTorch 1.6."""
    # The magic number and the protocol's, the system, the value, the storages' keys.
    values, position = [], 0
    stored: list[Storage] = []
    for _ in range(5):
        value, position = load(buffer, position, stored)
        values.append(value)
    _, version, system, state, keys = values
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise WeightFileError("The PyTorch file is of an unknown version.")
    order = "<" if system.get("little_endian", True) else ">"
    kinds = {storage.key: storage.kind for storage in stored}
    storages = {}
    for key in keys:
        if not isinstance(key, str) or kinds.get(key) not in _STORAGES:
            raise WeightFileError("The PyTorch file has a storage of an unknown kind.")
        count = int(view(buffer, f"{order}i8", (1,), position)[0])
        size = np.dtype(_STORAGES[kinds[key]]).itemsize
        position += 8
        if not 0 <= count * size <= len(buffer) - position:
            raise WeightFileError(
                f"A storage of {count:,} numbers is larger than the file's rest."
            )
        storages[key] = buffer[position : position + count * size]
        position += count * size

    def storage(key: str) -> memoryview:
        if key not in storages:
            raise WeightFileError(f"The PyTorch file lacks the storage {key[:80]}.")
        return storages[key]

    return _from_pickle(state, storage, order, finish)


def read_safetensors(
    path: Path, buffer: memoryview, header_size: int, finish: Finish
) -> Any:
    """Reads a file of the safetensors library."""
    if header_size > _MAX_HEADER:
        raise WeightFileError(
            f"The safetensors file has a header of {header_size:,} B."
        )
    from safetensors import SafetensorError, safe_open

    try:
        # The library checks the header, that its arrays lie side by side in the file
        # too, and would copy them out of it one by one; they are used where they are.
        with safe_open(path, framework="np"):
            pass
        header = json.loads(bytes(buffer[8 : 8 + header_size]))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise WeightFileError(f"The safetensors file is damaged: {error}") from None
    data = buffer[8 + header_size :]
    return finish(
        {
            key: lambda entry=entry: _safetensor(data, entry)
            for key, entry in header.items()
            if key != "__metadata__"
        },
        "safetensors",
    )


def _safetensor(data: memoryview, entry: dict) -> np.ndarray:
    """Returns a tensor as a view of the file."""
    if entry["dtype"] not in _SAFETENSORS:
        raise WeightFileError(f"The safetensors file has {entry['dtype']} as weights.")
    kind = _SAFETENSORS[entry["dtype"]]
    start, stop = entry["data_offsets"]
    array = view(data[start:stop], np.dtype(_STORAGES[kind]), entry["shape"])
    return widen(array) if kind == "BFloat16Storage" else array


def from_state_dict(
    tensors: Mapping[str, Callable[[], np.ndarray]],
    form: str,
    prefix: str | None = None,
) -> WeightFile:
    """Finds the network among the tensors of a file, and names its layers.

    Args:
        tensors: By key, functions that return the arrays.
        form: The file's format.
        prefix: Where there are several networks, what the keys of one begin with.

    Raises:
        WeightFileError: It is no AlexNet, or several.
    """
    networks: dict[str, dict[tuple[str, int], dict[str, Callable]]] = {}
    for key, tensor in tensors.items():
        if match := _KEY.fullmatch(key):
            where, part, index, name, kind = match.groups()
            part = "classifier" if part == "classifier" else part and "features"
            layer = (name, 0) if name else (part, int(index))
            network = networks.setdefault(where or "", {})
            network.setdefault(layer, {})[kind] = tensor
    layers = networks[_choose(networks, list(tensors), prefix)]
    features, classifier = (
        sorted(layer for layer in layers if layer[0] == part)
        for part in ("features", "classifier")
    )
    if features:
        if len(features) != 5 and any(key.endswith(".running_mean") for key in tensors):
            raise WeightFileError(
                "The network has batch normalisation, which no AlexNet here has."
            )
        order = by_position(features, classifier)
        if {index for _, index in classifier} <= set(_TORCHVISION_DENSE):
            dense = {_TORCHVISION_DENSE[layer[1]]: layer for layer in classifier}
            order = {**dict(zip(CONVOLUTIONS, features, strict=True)), **dense}
    elif _convolutions(layers) == 5:
        order = {name: (name, 0) for name in LAYER_NAMES if (name, 0) in layers}
    else:
        raise WeightFileError(_no_alexnet(list(tensors)))
    weights = {}
    for name, layer in order.items():
        if set(layers[layer]) != {"weight", "bias"}:
            own = f"{layer[0]}.{layer[1]}" if features else name
            raise WeightFileError(f"{own} should have a weight and a bias.")
        weights[name] = layers[layer]["weight"], layers[layer]["bias"]
    converted = channels_first_layers(weights)
    by_torch = features and converted["conv2"].kernel.shape != TWO_TOWERS
    return WeightFile(form, converted, preprocessing="torch" if by_torch else None)


def _choose(networks: dict[str, dict], keys: list[str], prefix: str | None) -> str:
    """Returns what the keys of the network begin with that is meant."""
    found = {
        where: layers
        for where, layers in networks.items()
        if {"features", "conv1"} & {part for part, _ in layers}
    }
    if not found:
        raise WeightFileError(_no_alexnet(keys))
    # Another network beside an AlexNet leaves no choice.
    whole = [where for where, layers in found.items() if _convolutions(layers) == 5]
    chosen = whole or list(found)
    if prefix is not None:
        wanted = prefix.strip(".")
        chosen = [where for where in chosen if where == wanted] or [
            where for where in chosen if wanted and f".{wanted}." in f".{where}."
        ]
    names = ", ".join(repr(where[:80]) for where in (whole or list(found))[:8])
    if len(chosen) > 1 and whole:
        raise WeightFileError(
            f"The file holds several networks, whose keys begin with {names}. Choose "
            "one of them: prefix=... in Python, --prefix on the command line."
        )
    if prefix is not None and not chosen:
        raise WeightFileError(
            f"No keys of a network begin with {prefix!r}. Found: {names}."
        )
    if len(chosen) > 1:
        raise WeightFileError(_no_alexnet(keys))
    return chosen[0]


def _no_alexnet(keys: list[str]) -> str:
    return (
        "Expected the keys of torchvision's AlexNet, such as features.0.weight. "
        f"Found: {', '.join(key[:40] for key in keys[:5]) or 'none'}."
    )


def _convolutions(layers: dict[tuple[str, int], dict]) -> int:
    return sum(part == "features" or part in CONVOLUTIONS for part, _ in layers)


def _from_pickle(
    state: Any, storage: Callable[[str], memoryview], order: str, finish: Finish
) -> Any:
    tensors, module = _tensors(state)
    if not any(map(_KEY.fullmatch, tensors)) and module is not None:
        raise WeightFileError(
            f"The PyTorch file holds a whole {module.kind}, whose code would have to "
            f"be run. {_ADVICE}"
        )
    if not tensors:
        raise WeightFileError(f"The PyTorch file holds no state dict. {_ADVICE}")
    return finish(
        {
            key: lambda tensor=tensor: _array(tensor, storage, order)
            for key, tensor in tensors.items()
        },
        "torch",
    )


def _tensors(state: Any) -> tuple[dict[str, Tensor | Array], Opaque | None]:
    """Returns all tensors of a checkpoint, and a module that was pickled as a whole."""
    tensors: dict[str, Tensor | Array] = {}
    module = state if isinstance(state, Opaque) else None
    waiting, seen = [("", 0, state)], set()
    while waiting:
        where, depth, value = waiting.pop()
        if isinstance(value, (Tensor, Array)):
            tensors[where] = value
        if isinstance(value, Opaque) and value.is_module:
            module = value
        if not isinstance(value, (dict, list, tuple)) or id(value) in seen:
            continue
        seen.add(id(value))
        items = value.items() if isinstance(value, dict) else enumerate(value)
        if depth < _MAX_DEPTH:
            waiting += [
                (f"{where}.{key}" if where else str(key), depth + 1, item)
                for key, item in items
                if isinstance(item, (Tensor, Array, dict, list, tuple))
                and _may_lead_to_weights(key)
            ]
    return tensors, module


def _may_lead_to_weights(key: Any) -> bool:
    return not isinstance(key, str) or (
        len(key) <= _MAX_KEY and not key.startswith("optim")
    )


def _array(tensor: Tensor | Array, storage: Callable, order: str) -> np.ndarray:
    """Returns a tensor as a view of the file."""
    if isinstance(tensor, Array):
        return tensor.numpy()
    kind = tensor.storage.kind
    if kind not in _STORAGES:
        raise WeightFileError(f"The PyTorch file has a tensor of {kind[:40]}.")
    dtype = np.dtype(_STORAGES[kind]).newbyteorder(order)
    data = storage(tensor.storage.key)
    numbers = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    numbers = numbers[tensor.storage.offset + tensor.offset :]
    size = 1
    last = 0
    for length, stride in zip(tensor.shape, tensor.strides, strict=True):
        size *= length
        last += max(length - 1, 0) * stride
    # A tensor that shows numbers repeatedly could be of any size.
    if size > numbers.size or (size and last >= numbers.size):
        raise WeightFileError(
            f"A tensor of {size:.6g} numbers is larger than its storage of "
            f"{numbers.size:,}."
        )
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    array = np.lib.stride_tricks.as_strided(
        numbers, tensor.shape, strides, writeable=False
    )
    return widen(array) if kind == "BFloat16Storage" else array
