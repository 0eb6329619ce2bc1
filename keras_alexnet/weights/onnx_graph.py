"""ONNX graphs, without the onnx package.

Field numbers are those of onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

import math

import numpy as np

from keras_alexnet.weights.arrays import by_position, channels_first_layers, view
from keras_alexnet.weights.protobuf import FIXED32, Message
from keras_alexnet.weights.weight_file import WeightFile, WeightFileError

# ModelProto and GraphProto.
_GRAPH, _NODE, _GRAPH_NAME, _INITIALIZER = 7, 1, 2, 5
# NodeProto and AttributeProto.
_INPUT, _OUTPUT, _OPERATOR, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _FLOAT, _INTEGER, _TENSOR = 1, 2, 3, 5
# TensorProto.
_DIMS, _TYPE, _FLOATS, _NAME, _RAW, _DOUBLES, _LOCATION = 1, 2, 4, 8, 9, 10, 14
_TYPES = {1: "<f4", 10: "<f2", 11: "<f8"}


def read(buffer: memoryview) -> WeightFile:
    """Reads the convolutions and dense layers (Gemm) of a graph, in its order."""
    graph = Message(buffer).message(_GRAPH)
    constants = {tensor.text(_NAME): tensor for tensor in graph.messages(_INITIALIZER)}
    convolutions, dense, kinds = [], [], []
    for node in graph.messages(_NODE):
        kind = node.text(_OPERATOR)
        kinds.append(kind)
        if kind == "Constant":
            for attribute in node.messages(_ATTRIBUTE):
                if attribute.text(_ATTRIBUTE_NAME) == "value":
                    constants[_names(node, _OUTPUT)[0]] = attribute.message(_TENSOR)
        elif kind in ("Conv", "Gemm"):
            inputs = _names(node, _INPUT)
            if len(inputs) != 3 or not set(inputs[1:]) <= set(constants):
                raise WeightFileError(
                    f"A {kind} of the graph has no constant weight and bias."
                )
            kernel, bias = constants[inputs[1]], constants[inputs[2]]
            transposed = kind == "Gemm" and not _gemm_is_transposed(node)
            layer = (
                lambda kernel=kernel, transposed=transposed: (
                    _tensor(kernel).T if transposed else _tensor(kernel)
                ),
                lambda bias=bias: _tensor(bias).reshape(-1),
            )
            (convolutions if kind == "Conv" else dense).append(layer)
    norm_first = None
    if "LRN" in kinds and "MaxPool" in kinds:
        norm_first = kinds.index("LRN") < kinds.index("MaxPool")
    return WeightFile(
        "onnx",
        channels_first_layers(by_position(convolutions, dense)),
        # The graphs of the ONNX model zoo were made from Caffe's; others say nothing.
        channel_order="BGR" if norm_first is not None else None,
        norm_first=norm_first,
        name=graph.text(_GRAPH_NAME) or None,
    )


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


def _tensor(tensor: Message) -> np.ndarray:
    """Returns a tensor's numbers, as a view of the file."""
    if (tensor.integers(_LOCATION) or [0])[-1]:
        raise WeightFileError(
            "The graph keeps its weights in other files, which are not read. Save it "
            "with its weights inside."
        )
    kind = (tensor.integers(_TYPE) or [0])[-1]
    if kind not in _TYPES:
        raise WeightFileError(
            f"The graph has weights of data type {kind}; only float32, float16 and "
            "float64 are read."
        )
    shape = tensor.integers(_DIMS)
    raw = tensor.get(_RAW, 2)
    if raw:
        data = raw[-1]
    elif kind == 1:
        data = memoryview(tensor.numbers(_FLOATS, "<f4")).cast("B")
    elif kind == 11:
        data = memoryview(tensor.numbers(_DOUBLES, "<f8")).cast("B")
    else:
        data = memoryview(b"")
    array = view(data, _TYPES[kind], shape)
    if array.nbytes != len(data) or not math.prod(shape):
        raise WeightFileError(
            f"A tensor says that it is of shape {tuple(shape)}, and holds "
            f"{len(data):,} bytes."
        )
    return array
