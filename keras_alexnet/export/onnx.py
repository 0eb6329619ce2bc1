"""ONNX export: one standard operator per layer, with the preprocessing in the graph.

The layers' formulas and those of ONNX (https://onnx.ai/onnx/operators/) differ in
layout, in what alpha of a normalisation multiplies, and in names; here they meet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from onnx import helper, numpy_helper

from keras_alexnet.errors import UserError
from keras_alexnet.export.artefact import TOP, Format
from keras_alexnet.export.comparison import Example, Run
from keras_alexnet.images.preprocessing import Preprocessing
from keras_alexnet.layers import (
    AdaptiveAveragePooling2D,
    ClassicDropout,
    FusedBatchNormalization,
    GroupedConv2D,
    LocalResponseNormalization,
    OverlappingMaxPooling2D,
    ScheduledDropout,
    SpatialResponseNormalization,
)
from keras_alexnet.layers.adaptive_pooling import cells
from keras_alexnet.model import AlexNet

# The first with `Resize(antialias=1)`; onnx 1.13 and ONNX Runtime 1.14 know it.
OPSET, IR_VERSION = 18, 8
FILE = "model.onnx"
# Height and width, where channels come first.
SPATIAL = np.array([2, 3])
# Keras's activations that ONNX has under the same name, with a capital.
ACTIVATIONS = ("relu", "sigmoid", "tanh", "elu", "selu", "softplus", "softmax")


def onnx_model(
    model: keras.Model,
    preprocessing: Preprocessing,
    precision: str = "float32",
    *,
    any_size: bool = True,
) -> onnx.ModelProto:
    """Writes a model and its preprocessing as an ONNX graph.

    Input: `images`, `(batch, height, width, channels)`, uint8, RGB or grey. Outputs:
    `probabilities`, `(batch, classes)`, and `top_probabilities` and `top_classes`,
    `(batch, top)`, the likeliest first; `top` is 5, or the number of classes where
    there are fewer.

    Args:
        model: Returns probabilities. Its layers follow one another.
        preprocessing: What the model expects of images.
        precision: `"float16"` keeps weights and activations so. Preprocessing,
            normalisations and probabilities are float32 as under Keras's
            `mixed_float16`.
        any_size: Whether images of any size are resized and cropped in the graph;
            or else they have the network's size.

    Returns:
        The graph, checked by `onnx.checker`.

    Raises:
        UserError: The model cannot be written in ONNX's operators.
    """
    graph = _Graph()
    channels, size = preprocessing.channels, preprocessing.image_size
    shape = ["height", "width"] if any_size else [size, size]
    inputs = [helper.make_tensor_value_info("images", 2, ["batch", *shape, channels])]
    x = _preprocess(graph, preprocessing, any_size)
    _network(graph, model, x, np.dtype(precision))
    classes = model.output_shape[-1]
    top = min(TOP, classes)
    graph.nodes[-1].output[0] = "probabilities"
    k = graph.constant(np.array([top]))
    names = ["top_probabilities", "top_classes"]
    graph.nodes.append(helper.make_node("TopK", ["probabilities", k], names))
    outputs = [
        helper.make_tensor_value_info(name, kind, ["batch", width])
        for name, kind, width in (
            ("probabilities", onnx.TensorProto.FLOAT, classes),
            ("top_probabilities", onnx.TensorProto.FLOAT, top),
            ("top_classes", onnx.TensorProto.INT64, top),
        )
    ]
    whole = helper.make_model(
        helper.make_graph(graph.nodes, model.name, inputs, outputs, graph.constants),
        producer_name="keras_alexnet",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(whole, full_check=True)
    return whole


def open_onnx(folder: Path) -> Run:
    """Returns a function that runs `model.onnx` in ONNX Runtime, on the CPU."""
    import onnxruntime  # OpenVINO's export does without.

    session = onnxruntime.InferenceSession(
        folder / FILE, providers=["CPUExecutionProvider"]
    )
    return lambda pixels: session.run(["probabilities"], {"images": pixels})[0]


def _write(
    model: AlexNet, folder: Path, precision: str, calibration: Sequence[Example]
) -> None:
    graph = onnx_model(model, model.metadata.preprocessing, precision)
    (folder / FILE).write_bytes(graph.SerializeToString())


FORMAT = Format(
    f"`{FILE}` (ONNX opset {OPSET}) takes `images`, uint8 RGB pixels of any size, "
    "`(batch, height, width, channels)`, and resizes and normalises them itself. It "
    "returns `probabilities`, `(batch, classes)`, and the five likeliest classes: "
    "`top_probabilities` and `top_classes`.",
    ("float32", "float16"),
    True,
    _write,
    open_onnx,
)


class _Graph:
    """An ONNX graph that grows by one operator per call.

    Attributes:
        place: What the names of nodes begin with: a layer's name.
        dtype: What numbers are stored as.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.place = "preprocessing"
        self.dtype = np.dtype("float32")

    def add(self, operator: str, *inputs: str | np.ndarray, **attributes: Any) -> str:
        """Appends an operator; arrays among its inputs become constants."""
        name = f"{self.place}/{operator}_{len(self.nodes)}"
        names = [one if isinstance(one, str) else self.constant(one) for one in inputs]
        self.nodes.append(
            helper.make_node(operator, names, [name], name=name, **attributes)
        )
        return name

    def constant(self, value: np.ndarray) -> str:
        """Stores an array, floating numbers in the dtype of the moment."""
        value = np.asarray(value)
        if value.dtype.kind == "f":
            value = value.astype(self.dtype)
        name = f"{self.place}/{len(self.constants)}"
        array = np.ascontiguousarray(value).reshape(value.shape)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def cast(self, x: str, dtype: str | np.dtype) -> str:
        """Converts to another dtype."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.add("Cast", x, to=kind)


# === From pixels to the network's input ===


def _preprocess(graph: _Graph, preprocessing: Preprocessing, any_size: bool) -> str:
    """Appends what `Preprocessing` does; returns float32, channels first."""
    size, channels = preprocessing.image_size, preprocessing.channels
    x = graph.add("Transpose", "images", perm=[0, 3, 1, 2])
    x = graph.cast(x, "float32")
    if any_size:
        x = _resize(graph, preprocessing, x)
    if preprocessing.channel_order == "bgr":
        x = graph.add("Gather", x, np.array([2, 1, 0]), axis=1)
    # (pixel * pixel_max / 255 - mean) / std * scale, as one product and one sum.
    mean = np.asarray(preprocessing.mean)[None, None]
    if preprocessing.mean_image is not None:
        mean = preprocessing.mean_image.center_crop(size, size)
    factor = preprocessing.scale / np.asarray(preprocessing.std or [1.0] * channels)
    scale = factor[:, None, None] * preprocessing.pixel_max / 255
    if np.any(scale != 1):
        x = graph.add("Mul", x, scale)
    shift = np.moveaxis(mean * factor, -1, 0)
    return graph.add("Sub", x, shift) if np.any(shift) else x


def _resize(graph: _Graph, preprocessing: Preprocessing, x: str) -> str:
    """Appends `Preprocessing.prepare`: the same squares of the same images."""
    add, rule = graph.add, preprocessing.resize_rule
    size = np.array([preprocessing.resize_size] * 2)
    # Where training pads its crops, the network's input is the larger of the two.
    kept = min(preprocessing.resize_size, preprocessing.image_size)
    margin = preprocessing.margin
    first: str | np.ndarray = np.array([max(margin, 0)] * 2)
    if rule != "squash":
        shape = add("Shape", x, start=2)
        shorter = add("ReduceMin", shape, keepdims=1)
    if rule == "shorter_side":
        low = add("Div", add("Sub", shape, shorter), np.array(2))
        x = add("Slice", x, low, add("Add", low, shorter), SPATIAL)
    elif rule == "torchvision":
        size = add("Div", add("Mul", shape, size), shorter)
        border = add("Sub", size, np.array(preprocessing.image_size))
        half = add("Mul", graph.cast(border, "float32"), np.array(0.5))
        first = graph.cast(add("Round", half), "int64")
        if margin < 0:
            first = add("Sub", first, np.array(margin))
    x = add(
        *("Resize", x, "", "", size),
        axes=SPATIAL.tolist(),
        mode="linear",
        antialias=1,
        # Weights are those of the pixels that there are, as TensorFlow's and Pillow's.
        exclude_outside=1,
    )
    if rule == "torchvision":
        x = add("Round", x)
        x = add("Slice", x, first, add("Add", first, np.array(kept)), SPATIAL)
    elif kept < preprocessing.resize_size:
        x = add("Slice", x, first, first + kept, SPATIAL)
    if missing := preprocessing.image_size - kept:
        before, after = [missing // 2] * 2, [missing - missing // 2] * 2
        x = add("Pad", x, np.array([0, 0, *before, 0, 0, *after]))
    return x


# === From the network's input to probabilities ===


def _network(graph: _Graph, model: keras.Model, x: str, dtype: np.dtype) -> None:
    """Appends every layer of a model, the last one in float32."""
    output = model.inputs[0]
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        # Each layer takes what the one before it returns, and nothing else.
        if len(layer._inbound_nodes) != 1 or layer.input is not output:
            raise UserError(
                "Only networks whose layers follow one another can be written as "
                f"ONNX. Received: {layer.name}, which takes something else."
            )
        output = layer.output
        graph.place = layer.name
        # By its very class: one that is derived from it may compute something else.
        translate = _TRANSLATIONS.get(type(layer))
        if translate is None:
            raise UserError(
                f"No ONNX operator is known for the layer {layer.name}. "
                f"Received: {type(layer).__name__}"
            )
        wide = translate in _IN_FLOAT32 or layer is model.layers[-1]
        wanted = np.dtype("float32") if wide else dtype
        if wanted != graph.dtype:
            x = graph.cast(x, wanted)
        graph.dtype = wanted
        x = translate(graph, layer, x)


def _spatial_shape(layer: keras.Layer) -> tuple[int, int]:
    """Height and width of a layer's input."""
    first = 1 if layer.data_format == "channels_last" else 2
    return layer.input.shape[first : first + 2]


def _pads(layer: keras.Layer, window: Sequence[int]) -> list[int]:
    """Returns TensorFlow's padding, as ONNX orders it: top, left, bottom, right."""
    if layer.padding == "valid":
        return [0] * 4
    sides = zip(_spatial_shape(layer), window, layer.strides, strict=True)
    totals = [max((-(-n // s) - 1) * s + size - n, 0) for n, size, s in sides]
    return [n // 2 for n in totals] + [n - n // 2 for n in totals]


def _conv(graph: _Graph, layer: keras.layers.Conv2D, x: str) -> str:
    window = [
        (size - 1) * dilation + 1
        for size, dilation in zip(layer.kernel_size, layer.dilation_rate, strict=True)
    ]
    # (height, width, in / groups, out) to (out, in / groups, height, width).
    kernel, *bias = layer.get_weights()
    x = graph.add(
        *("Conv", x, kernel.transpose(3, 2, 0, 1), *bias),
        group=layer.groups,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        pads=_pads(layer, window),
    )
    return _activation(graph, layer, x)


def _dense(graph: _Graph, layer: keras.layers.Dense, x: str) -> str:
    if len(layer.input.shape) != 2:
        raise UserError(
            f"{layer.name} is a dense layer on images, which ONNX's Gemm does not take."
        )
    return _activation(graph, layer, graph.add("Gemm", x, *layer.get_weights()))


def _activation(graph: _Graph, layer: keras.Layer, x: str) -> str:
    function = layer.activation
    name = getattr(function, "__name__", repr(function))
    if function is None or name == "linear":
        return x
    if name not in ACTIVATIONS or getattr(keras.activations, name) is not function:
        raise UserError(
            f"{layer.name} has no activation of ONNX's: {', '.join(ACTIVATIONS)}. "
            f"Received: {name}"
        )
    # Softmax is over the classes, the channels of images.
    last = {"axis": 1} if name == "softmax" else {}
    return graph.add(name.capitalize(), x, **last)


def _relu(graph: _Graph, layer: keras.layers.ReLU, x: str) -> str:
    if layer.threshold or layer.negative_slope or layer.max_value is not None:
        raise UserError(
            f"Only the plain ReLU can be written as ONNX. Received: {layer.name} with "
            f"max_value={layer.max_value}, negative_slope={layer.negative_slope}, "
            f"threshold={layer.threshold}"
        )
    return graph.add("Relu", x)


def _lrn(graph: _Graph, layer: LocalResponseNormalization, x: str) -> str:
    if layer.size % 2 == 0:
        raise UserError(
            f"ONNX's LRN has windows of odd size only. Received: {layer.name} with "
            f"size={layer.size}"
        )
    first = layer.data_format == "channels_first"
    channels = layer.input.shape[1 if first else -1]
    shape = [-1, channels, *_spatial_shape(layer)]
    if layer.groups > 1:
        # Each tower as an image of its own, whose channels no window leaves.
        towers = [-1, channels // layer.groups, *shape[2:]]
        x = graph.add("Reshape", x, np.array(towers))
    # ONNX divides alpha by the size.
    alpha = layer.alpha if layer.alpha_over_size else layer.alpha * layer.size
    x = graph.add(
        *("LRN", x),
        size=layer.size,
        alpha=float(alpha),
        beta=float(layer.beta),
        bias=float(layer.k),
    )
    return graph.add("Reshape", x, np.array(shape)) if layer.groups > 1 else x


def _spatial_norm(graph: _Graph, layer: SpatialResponseNormalization, x: str) -> str:
    before, after = layer.size // 2, (layer.size - 1) // 2
    mean = graph.add(
        *("AveragePool", graph.add("Mul", x, x)),
        kernel_shape=[layer.size] * 2,
        pads=[before, before, after, after],
        count_include_pad=1,
    )
    base = graph.add("Mul", mean, np.array(float(layer.alpha)))
    base = graph.add("Add", base, np.array(float(layer.k)))
    return graph.add("Div", x, graph.add("Pow", base, np.array(float(layer.beta))))


def _pool(graph: _Graph, layer: keras.layers.MaxPooling2D, x: str) -> str:
    average = isinstance(layer, keras.layers.AveragePooling2D)
    return graph.add(
        *("AveragePool" if average else "MaxPool", x),
        kernel_shape=list(layer.pool_size),
        strides=list(layer.strides),
        pads=_pads(layer, layer.pool_size),
        ceil_mode=int(getattr(layer, "rounding", "floor") == "ceil"),
    )


def _adaptive_pool(graph: _Graph, layer: AdaptiveAveragePooling2D, x: str) -> str:
    (height, rows), (width, columns) = zip(
        _spatial_shape(layer), layer.output_size, strict=True
    )
    if height != rows:
        x = graph.add("MatMul", cells(height, rows).numpy().T, x)
    return x if width == columns else graph.add("MatMul", x, cells(width, columns))


def _batch_norm(graph: _Graph, layer: keras.layers.BatchNormalization, x: str) -> str:
    count = layer.moving_mean.shape[0]
    gamma = np.asarray(layer.gamma) if layer.scale else np.ones(count, "float32")
    beta = np.asarray(layer.beta) if layer.center else np.zeros(count, "float32")
    averages = map(np.asarray, (layer.moving_mean, layer.moving_variance))
    return graph.add(
        "BatchNormalization", x, gamma, beta, *averages, epsilon=float(layer.epsilon)
    )


def _flatten(graph: _Graph, layer: keras.layers.Flatten, x: str) -> str:
    if len(layer.input.shape) == 4:
        # Keras's order: channels last, whatever the data format.
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    return graph.add("Flatten", x)


def _pad(graph: _Graph, layer: keras.layers.ZeroPadding2D, x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, np.array([0, 0, top, left, 0, 0, bottom, right]))


def _global_average(graph: _Graph, layer: keras.Layer, x: str) -> str:
    return graph.add("ReduceMean", x, SPATIAL, keepdims=int(layer.keepdims))


# What 16-bit policies compute in float32.
_IN_FLOAT32 = {_lrn, _spatial_norm, _adaptive_pool, _batch_norm}
_TRANSLATIONS: dict[type, Callable[[_Graph, Any, str], str]] = {
    GroupedConv2D: _conv,
    keras.layers.Conv2D: _conv,
    keras.layers.Dense: _dense,
    keras.layers.Activation: _activation,
    keras.layers.ReLU: _relu,
    LocalResponseNormalization: _lrn,
    SpatialResponseNormalization: _spatial_norm,
    FusedBatchNormalization: _batch_norm,
    keras.layers.BatchNormalization: _batch_norm,
    OverlappingMaxPooling2D: _pool,
    keras.layers.MaxPooling2D: _pool,
    keras.layers.AveragePooling2D: _pool,
    AdaptiveAveragePooling2D: _adaptive_pool,
    keras.layers.GlobalAveragePooling2D: _global_average,
    keras.layers.ZeroPadding2D: _pad,
    keras.layers.Flatten: _flatten,
    ClassicDropout: lambda graph, layer, x: graph.add(
        "Mul", x, np.array(1.0 - layer.rate)
    ),
    ScheduledDropout: lambda graph, layer, x: x,
    keras.layers.Dropout: lambda graph, layer, x: x,
}
