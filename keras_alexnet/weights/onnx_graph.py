"""ONNX graphs, without the onnx package.

Field numbers are those of onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_alexnet.weights.arrays import by_position, channels_first_layers
from keras_alexnet.weights.buffers import view
from keras_alexnet.weights.protobuf import FIXED32, Message
from keras_alexnet.weights.weight_file import TWO_TOWERS, WeightFile, WeightFileError

# ModelProto and GraphProto.
_PRODUCER, _GRAPH, _NODE, _GRAPH_NAME, _INITIALIZER = 2, 7, 1, 2, 5
# NodeProto and AttributeProto.
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _FLOAT, _INTEGER, _TENSOR = 1, 2, 3, 5
# TensorProto, and the entries of its external data.
_DIMS, _TYPE, _FLOATS, _INTEGERS, _NAME, _RAW, _DOUBLES = 1, 2, 4, 7, 8, 9, 10
_EXTERNAL, _LOCATION, _KEY, _VALUE = 13, 14, 1, 2
_TYPES = {1: "<f4", 10: "<f2", 11: "<f8", 16: ml_dtypes.bfloat16, 7: "<i8"}
_INT64 = 7
# Numbers that a graph may fill arrays with, of which it holds one only.
_MAX_FILLED = 1 << 26


def read(buffer: memoryview, folder: Path) -> WeightFile:
    """Reads the convolutions and dense layers (Gemm) of a graph, in its order.

    Args:
        buffer: The file.
        folder: Where files with its weights may be.
    """
    model = Message(buffer)
    graph = model.message(_GRAPH)
    kinds = [node.text(_OPERATOR) for node in graph.messages(_NODE)]
    convolutions, dense = _layers(graph, _constants(graph, folder))
    norm_first = None
    if "LRN" in kinds and "MaxPool" in kinds:
        norm_first = kinds.index("LRN") < kinds.index("MaxPool")
    layers = channels_first_layers(by_position(convolutions, dense))
    producer, preprocessing = model.text(_PRODUCER), None
    # The model zoo's graphs were made from Caffe's networks. PyTorch exports what was
    # trained with torchvision's preprocessing, unless it is one of Caffe's networks.
    if "caffe" in producer:
        preprocessing = "caffe"
    elif producer == "pytorch" and layers["conv2"].kernel.shape != TWO_TOWERS:
        preprocessing = "torch"
    return WeightFile(
        "onnx",
        layers,
        preprocessing=preprocessing,
        norm_first=norm_first,
        name=graph.text(_GRAPH_NAME) or None,
    )


def _constants(graph: Message, folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Returns the graph's constants by name, as functions that return their arrays."""
    files: dict[str, memoryview] = {}
    constants = {
        tensor.text(_NAME): lambda tensor=tensor: _tensor(tensor, folder, files)
        for tensor in graph.messages(_INITIALIZER)
    }
    left = [_MAX_FILLED]
    for node in graph.messages(_NODE):
        kind = node.text(_OPERATOR)
        value = [
            attribute.message(_TENSOR)
            for attribute in node.messages(_ATTRIBUTE)
            if attribute.text(_ATTRIBUTE_NAME) == "value"
        ]
        if kind == "Constant" and value:
            constants[_names(node, _OUTPUT)[0]] = lambda tensor=value[-1]: _tensor(
                tensor, folder, files
            )
        elif kind == "ConstantOfShape" and value:
            shape = constants.get(_names(node, _INPUT)[0])
            if shape is not None:
                constants[_names(node, _OUTPUT)[0]] = (
                    lambda shape=shape, tensor=value[-1]: _filled(
                        shape(), _tensor(tensor, folder, files), left
                    )
                )
    return constants


def _filled(shape: np.ndarray, value: np.ndarray, left: list[int]) -> np.ndarray:
    """Returns an array of equal numbers, which takes the memory of one."""
    sizes = [int(size) for size in shape.reshape(-1)[:9]]
    left[0] -= math.prod(sizes)
    if len(sizes) > 8 or min(sizes, default=0) < 1 or left[0] < 0 or value.size != 1:
        raise WeightFileError(
            f"The graph fills arrays of an impossible shape: {sizes[:8]}."
        )
    return np.broadcast_to(value.reshape(()), sizes)


def _layers(graph: Message, constants: Mapping[str, Callable]) -> tuple[list, list]:
    """Returns functions for kernel and bias of each convolution and dense layer."""
    convolutions, dense = [], []
    for node in graph.messages(_NODE):
        kind, inputs = node.text(_OPERATOR), _names(node, _INPUT)
        if kind == "Transpose" and inputs[:1] and inputs[0] not in constants:
            raise WeightFileError(
                "The graph transposes feature maps, as exports from TensorFlow do, and "
                "does not say how fc6 counts them. Import the model it was made from."
            )
        if kind not in ("Conv", "Gemm", "MatMul"):
            continue
        if (
            kind == "MatMul"
            or len(inputs) != 3
            or not set(inputs[1:]) <= set(constants)
        ):
            raise WeightFileError(
                f"A {kind} of the graph has no constant weight and bias."
            )
        kernel, bias = constants[inputs[1]], constants[inputs[2]]
        transposed = kind == "Gemm" and not _gemm_is_transposed(node)
        layer = (
            lambda kernel=kernel, transposed=transposed: (
                kernel().T if transposed else kernel()
            ),
            lambda bias=bias: bias().reshape(-1),
        )
        (convolutions if kind == "Conv" else dense).append(layer)
    return convolutions, dense


def _names(node: Message, field: int) -> list[str]:
    return [str(value[:200], "utf-8", "replace") for value in node.get(field, 2)]


def _gemm_is_transposed(node: Message) -> bool:
    """Returns whether a Gemm's weight is (out, in)."""
    options = {}
    for attribute in node.messages(_ATTRIBUTE):
        name = attribute.text(_ATTRIBUTE_NAME)
        numbers = attribute.get(_FLOAT, FIXED32)
        if name in ("alpha", "beta") and numbers:
            options[name] = float(np.frombuffer(numbers[-1], "<f4")[0])
        elif name in ("transA", "transB"):
            options[name] = (attribute.integers(_INTEGER) or [0])[-1]
    if options.get("transA", 0) or (
        options.get("alpha", 1.0) != 1.0 or options.get("beta", 1.0) != 1.0
    ):
        raise WeightFileError("A Gemm of the graph is more than a dense layer.")
    return bool(options.get("transB", 0))


def _tensor(tensor: Message, folder: Path, files: dict[str, memoryview]) -> np.ndarray:
    """Returns a tensor's numbers, as a view of the file that they are in."""
    kind, shape = (tensor.integers(_TYPE) or [0])[-1], tensor.integers(_DIMS)
    if kind not in _TYPES:
        raise WeightFileError(
            f"The graph has weights of data type {kind}; only float32, float16, "
            "bfloat16 and float64 are read."
        )
    raw = tensor.get(_RAW, 2)
    if (tensor.integers(_LOCATION) or [0])[-1]:
        data = _external(tensor, folder, files)
    elif raw:
        data = raw[-1]
    elif kind == _INT64:
        data = memoryview(np.array(tensor.integers(_INTEGERS), "<i8")).cast("B")
    elif kind in (1, 11):
        field = _FLOATS if kind == 1 else _DOUBLES
        data = memoryview(tensor.numbers(field, _TYPES[kind])).cast("B")
    else:
        data = memoryview(b"")
    array = view(data, _TYPES[kind], shape)
    if array.nbytes != len(data) or not math.prod(shape):
        raise WeightFileError(
            f"A tensor says that it is of shape {tuple(shape)}, and holds "
            f"{len(data):,} bytes."
        )
    return array


def _external(
    tensor: Message, folder: Path, files: dict[str, memoryview]
) -> memoryview:
    """Returns a tensor's bytes in another file, which must be beside the graph's."""
    entries = {e.text(_KEY): e.text(_VALUE) for e in tensor.messages(_EXTERNAL)}
    location = entries.get("location", "")
    if location not in files:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise WeightFileError(
                f"The graph keeps its weights in other files, and {location!r} is not "
                "beside it."
            )
        with open(path, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        files[location] = memoryview(mapped)
    whole = files[location]
    start = int(entries.get("offset", "0"))
    size = int(entries.get("length", str(len(whole) - start)))
    data = whole[start : start + size] if start >= 0 <= size else b""
    if len(data) != size:
        raise WeightFileError(f"{location!r} is too short for the graph's weights.")
    return data
