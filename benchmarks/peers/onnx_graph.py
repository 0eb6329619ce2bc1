"""The network in ONNX, for the systems that read it."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_alexnet.benchmarks.networks import Network, Weights, sample_images


def onnx_graph(network: Network, weights: Weights) -> onnx.ModelProto:
    """Writes the network in ONNX's own operations.

    Its input, `images`, is channels first, for any number of images; its outputs are
    the logits `fc8` and `probabilities`.

    Args:
        network: What to write.
        weights: Kernel and bias of each layer, in our layout.
    """
    graph = _Graph()
    for role, name, options in network.layers:
        if role == "conv":
            kernel, bias = weights[name]
            # (height, width, in / groups, out) to (out, in / groups, height, width).
            kernel = kernel.transpose(3, 2, 0, 1)
            window = {"strides": [options["strides"]] * 2, "group": options["groups"]}
            window["kernel_shape"] = [options["kernel_size"]] * 2
            window["pads"] = [options["padding"]] * 4
            graph.add("Conv", name, kernel, bias, **window)
        elif role == "activation":
            graph.add("Relu", name)
        elif role == "norm":
            # ONNX divides alpha by the size of the window.
            scales = {"alpha": options["alpha"] * options["size"], "bias": options["k"]}
            graph.add("LRN", name, size=options["size"], beta=options["beta"], **scales)
        elif role == "pool":
            window = {"kernel_shape": [options["pool_size"]] * 2}
            graph.add("MaxPool", name, strides=[options["strides"]] * 2, **window)
        elif role == "flatten":
            # Ours flattens pixels first and channels last.
            graph.add("Transpose", "channels_last", perm=[0, 2, 3, 1])
            graph.add("Flatten", name)
        elif role == "dense":
            graph.add("Gemm", name, *weights[name])
    graph.add("Softmax", "probabilities", axis=-1)
    return graph.model(network)


class _Graph:
    """A chain of operations, each on what the one before it returns."""

    def __init__(self):
        self.last = "images"
        self.nodes, self.constants = [], []

    def add(
        self, kind: str, name: str, *parameters: np.ndarray, **attributes: object
    ) -> None:
        inputs = [self.last, *(f"{name}/{n}" for n in range(len(parameters)))]
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        for key, value in zip(inputs[1:], parameters, strict=True):
            array = numpy_helper.from_array(np.ascontiguousarray(value), key)
            self.constants.append(array)
        self.last = name

    def model(self, network: Network) -> onnx.ModelProto:
        shape = [None, 3, network.image_size, network.image_size]
        images, *outputs = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (
                ("images", shape),
                ("fc8", None),
                ("probabilities", None),
            )
        )
        graph = helper.make_graph(
            self.nodes, network.architecture, [images], outputs, self.constants
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
        )


def channels_first(network: Network, count: int) -> np.ndarray:
    """Returns `sample_images` in the layout of the graph's input."""
    return np.ascontiguousarray(sample_images(network, count).transpose(0, 3, 1, 2))
