"""PyTorch state dicts in torchvision's naming: `.pth` (zip, legacy) and `.safetensors`.

Layers are numbered inside `features` and `classifier`; only those with weights have
entries, so their order tells which is which.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from keras_alexnet.weights import pickles
from keras_alexnet.weights.archives import read_member
from keras_alexnet.weights.arrays import by_position, channels_first_layers, view
from keras_alexnet.weights.pickle_values import Tensor
from keras_alexnet.weights.weight_file import WeightFile, WeightFileError

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
_KEY = re.compile(
    r"(?:.*\.)?(features|classifier)\.(?:module\.)?(\d{1,3})\.(weight|bias)"
)


def read_zip(buffer: memoryview, members: Mapping) -> WeightFile:
    """Reads what `torch.save` writes since PyTorch 1.6."""
    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise WeightFileError("A PyTorch archive has one data.pkl.")
    folder = pickled[0][: -len("data.pkl")]
    state, _ = pickles.load(read_member(buffer, members[pickled[0]]))
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

    return _from_pickle(state, storage, order)


def read_legacy(buffer: memoryview) -> WeightFile:
    """Reads what `torch.save` wrote before PyTorch 1.6."""
    # The magic number and the protocol's, the system, the value, the storages' keys.
    values, stored, position = [], [], 0
    for _ in range(5):
        value, position = pickles.load(buffer, position, stored)
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

    return _from_pickle(state, storage, order)


def read_safetensors(path: Path, buffer: memoryview, header_size: int) -> WeightFile:
    """Reads a file of the safetensors library with PyTorch's names."""
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
    return from_state_dict(
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
    return _widened(array) if kind == "BFloat16Storage" else array


def from_state_dict(
    tensors: Mapping[str, Callable[[], np.ndarray]], form: str
) -> WeightFile:
    """Names the layers of a state dict.

    Args:
        tensors: By key, functions that return the arrays.
        form: The file's format.

    Raises:
        WeightFileError: It is no AlexNet.
    """
    parts: dict[str, dict[int, dict[str, Callable]]] = {
        "features": {},
        "classifier": {},
    }
    for key, tensor in tensors.items():
        if isinstance(key, str) and len(key) < 200 and (match := _KEY.fullmatch(key)):
            part, index, kind = match.groups()
            parts[part].setdefault(int(index), {})[kind] = tensor
    layers = [
        [(f"{part}.{index}", entries) for index, entries in sorted(layers.items())]
        for part, layers in parts.items()
    ]
    if not layers[0]:
        raise WeightFileError(
            "Expected the keys of torchvision's AlexNet, such as features.0.weight. "
            f"Found: {', '.join(str(key)[:40] for key in list(tensors)[:5]) or 'none'}."
        )
    weights = {}
    for name, (key, entries) in by_position(*layers).items():
        if set(entries) != {"weight", "bias"}:
            raise WeightFileError(f"{key} should have a weight and a bias.")
        weights[name] = entries["weight"], entries["bias"]
    return WeightFile(form, channels_first_layers(weights), channel_order="RGB")


def _from_pickle(state, storage: Callable[[str], memoryview], order: str) -> WeightFile:
    return from_state_dict(
        {
            key: lambda tensor=tensor: _array(tensor, storage, order)
            for key, tensor in _tensors(state).items()
        },
        "torch",
    )


def _tensors(state) -> dict[str, Tensor]:
    """Returns the tensors of a state dict, or of a checkpoint that holds one."""
    for _ in range(2):
        if not isinstance(state, dict):
            break
        tensors = {
            key: value
            for key, value in state.items()
            if isinstance(key, str) and isinstance(value, Tensor)
        }
        if tensors:
            return tensors
        state = state.get("state_dict", state.get("model"))
    raise WeightFileError(
        "The PyTorch file holds no state dict. Save model.state_dict(), not the model."
    )


def _array(tensor: Tensor, storage: Callable, order: str) -> np.ndarray:
    """Returns a tensor as a view of the file."""
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
    return _widened(array) if kind == "BFloat16Storage" else array


def _widened(array: np.ndarray) -> np.ndarray:
    """Returns the float32 numbers whose upper halves are given."""
    wide = array.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
