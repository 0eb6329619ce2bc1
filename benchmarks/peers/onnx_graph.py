"""The network in ONNX, for the systems that read it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_alexnet.benchmarks.networks import LRN, Network, Weights, sample_images


def onnx_graph(network: Network, weights: Weights) -> onnx.ModelProto:
    """Writes the network in ONNX's own operations.

    Its input, `images`, is channels first, for any number of images; its outputs are
    the logits `fc8` and `probabilities`.

    Args:
        network: What to write.
        weights: Kernel and bias of each layer, in our layout.
    """
    nodes, constants = [], []
    last = "images"

    def node(kind: str, name: str, *parameters: str, **attributes: object) -> None:
        nonlocal last
        nodes.append(helper.make_node(kind, [last, *parameters], [name], **attributes))
        last = name

    def constant(name: str, value: np.ndarray) -> str:
        value = np.ascontiguousarray(value)
        constants.append(numpy_helper.from_array(value, name))
        return name

    for number, conv in enumerate(network.convolutions, 1):
        kernel, bias = weights[f"conv{number}"]
        node(
            "Conv",
            f"conv{number}",
            # (height, width, in / groups, out) to (out, in / groups, height, width).
            constant(f"w{number}", kernel.transpose(3, 2, 0, 1)),
            constant(f"b{number}", bias),
            kernel_shape=[conv.kernel] * 2,
            strides=[conv.stride] * 2,
            pads=[conv.padding] * 4,
            group=conv.groups,
        )
        node("Relu", f"relu{number}")
        if number in network.normalised:
            node(
                "LRN",
                f"norm{number}",
                size=LRN["size"],
                # ONNX divides alpha by the size of the window.
                alpha=LRN["alpha"] * LRN["size"],
                beta=LRN["beta"],
                bias=LRN["k"],
            )
        if number in network.pooled:
            node("MaxPool", f"pool{number}", kernel_shape=[3, 3], strides=[2, 2])
    # Ours flattens pixels first and channels last.
    node("Transpose", "channels_last", perm=[0, 2, 3, 1])
    node("Flatten", "flatten")
    for number in (6, 7, 8):
        kernel, bias = weights[f"fc{number}"]
        parameters = constant(f"w{number}", kernel), constant(f"b{number}", bias)
        node("Gemm", f"fc{number}", *parameters)
        if number < 8:
            node("Relu", f"relu{number}")
    node("Softmax", "probabilities", axis=-1)
    shape = [None, 3, network.image_size, network.image_size]
    graph = helper.make_graph(
        nodes,
        network.architecture,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in ("fc8", "probabilities")
        ],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


def channels_first(network: Network, count: int) -> np.ndarray:
    """Returns `sample_images` in the layout of the graph's input."""
    return np.ascontiguousarray(sample_images(network, count).transpose(0, 3, 1, 2))
