"""ONNX graphs, without the onnx package.

Field numbers are those of onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

import functools
import math
import mmap
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from keras_alexnet.weights.arrays import (
    Read,
    by_position,
    channels_first_layers,
    normalises_first,
)
from keras_alexnet.weights.buffers import Budget, take, view
from keras_alexnet.weights.protobuf import Message
from keras_alexnet.weights.weight_file import TWO_TOWERS, WeightFile, WeightFileError

# ModelProto and GraphProto.
_PRODUCER, _GRAPH, _NODE, _GRAPH_NAME, _INITIALIZER = 2, 7, 1, 2, 5
# NodeProto and AttributeProto.
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _FLOAT, _INTEGER, _TENSOR = 1, 2, 3, 5
# TensorProto, and the entries of its external data.
_DIMS, _TYPE, _INTEGERS, _NAME, _RAW = 1, 2, 7, 8, 9
_EXTERNAL, _LOCATION, _KEY, _VALUE = 13, 14, 1, 2
# Data types, and the fields of those that have one of their own.
_TYPES = {1: "<f4", 10: "<f2", 11: "<f8", 16: ml_dtypes.bfloat16, 7: "<i8"}
_FIELDS, _INT64 = {1: 4, 11: 10}, 7
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
        norm_first=normalises_first(kinds),
        name=graph.text(_GRAPH_NAME) or None,
    )


def _constants(graph: Message, folder: Path) -> dict[str, Read]:
    """Returns the graph's constants by name."""
    filled = Budget(_MAX_FILLED)

    @functools.cache
    def external(location: str) -> memoryview:
        path = (folder / location).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise WeightFileError(
                f"The graph keeps its weights in other files, and {location!r} is not "
                "beside it."
            )
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    constants = {
        tensor.text(_NAME): functools.partial(_tensor, tensor, external)
        for tensor in graph.messages(_INITIALIZER)
    }
    for node in graph.messages(_NODE):
        kind, value = node.text(_OPERATOR), _attributes(node).get("value")
        shape = constants.get(node.text(_INPUT))
        if value is None or (kind != "Constant" and shape is None):
            continue
        read = functools.partial(_tensor, value.message(_TENSOR), external)
        if kind == "ConstantOfShape":
            read = functools.partial(_filled, shape, read, filled)
        if kind in ("Constant", "ConstantOfShape"):
            constants[node.text(_OUTPUT)] = read
    return constants


def _filled(shape: Read, value: Read, budget: Budget) -> np.ndarray:
    """Returns an array of equal numbers, which takes the memory of one."""
    sizes = [int(size) for size in shape().reshape(-1)[:9]]
    if len(sizes) > 8 or min(sizes, default=0) < 1:
        raise WeightFileError(f"The graph fills arrays of an impossible shape: {sizes}")
    budget.spend(math.prod(sizes))
    return np.broadcast_to(value().reshape(()), sizes)


def _layers(graph: Message, constants: Mapping[str, Read]) -> tuple[list, list]:
    """Returns functions for kernel and bias of each convolution and dense layer."""
    convolutions, dense = [], []
    for node in graph.messages(_NODE):
        kind, inputs = node.text(_OPERATOR), node.texts(_INPUT)
        if kind == "Transpose" and inputs[:1] and inputs[0] not in constants:
            raise WeightFileError(
                "The graph transposes feature maps, as exports from TensorFlow do, and "
                "does not say how fc6 counts them. Import the model it was made from."
            )
        if kind not in ("Conv", "Gemm", "MatMul"):
            continue
        read = [constants[name] for name in inputs[1:] if name in constants]
        if kind == "MatMul" or len(inputs) != 3 or len(read) != 2:
            raise WeightFileError(
                f"A {kind} of the graph has no constant weight and bias."
            )
        if kind == "Gemm" and not _is_transposed(node):
            read[0] = lambda kernel=read[0]: kernel().T
        (convolutions if kind == "Conv" else dense).append(tuple(read))
    return convolutions, dense


def _attributes(node: Message) -> dict[str, Message]:
    return {one.text(_ATTRIBUTE_NAME): one for one in node.messages(_ATTRIBUTE)}


def _is_transposed(gemm: Message) -> bool:
    """Returns whether a Gemm's weight is (out, in)."""
    options = _attributes(gemm)
    factors = [options[name] for name in ("alpha", "beta") if name in options]
    numbers = {name: one.integer(_INTEGER) for name, one in options.items()}
    if numbers.get("transA") or any(
        view(factor.numbers(_FLOAT), "<f4", (1,)) != 1 for factor in factors
    ):
        raise WeightFileError("A Gemm of the graph is more than a dense layer.")
    return bool(numbers.get("transB"))


def _tensor(tensor: Message, external) -> np.ndarray:
    """Returns a tensor's numbers, as a view of the file that they are in.

    Args:
        tensor: A TensorProto.
        external: Returns the bytes of a file beside the graph.
    """
    kind, shape = tensor.integer(_TYPE), tensor.integers(_DIMS)
    if kind not in _TYPES:
        raise WeightFileError(
            f"The graph has weights of data type {kind}; only float32, float16, "
            "bfloat16 and float64 are read."
        )
    if tensor.integer(_LOCATION):
        entries = {e.text(_KEY): e.text(_VALUE) for e in tensor.messages(_EXTERNAL)}
        whole = external(entries.get("location", ""))
        start = int(entries.get("offset", "0"))
        data = take(whole, start, int(entries.get("length", len(whole) - start)))
    elif raw := tensor.views(_RAW):
        data = raw[-1]
    elif kind == _INT64:
        data = memoryview(np.array(tensor.integers(_INTEGERS), "<i8")).cast("B")
    else:
        data = tensor.numbers(_FIELDS[kind])
    return view(data, _TYPES[kind], shape)
