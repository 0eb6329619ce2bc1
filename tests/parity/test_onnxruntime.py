"""The networks against ONNX Runtime, on graphs written from the definition of ONNX."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import keras_alexnet

# (kernel, stride, padding on each side, groups) of conv1 to conv5.
CONVOLUTIONS = {
    "alexnet_2012": [
        (11, 4, 0, 1),
        (5, 1, 2, 2),
        (3, 1, 1, 1),
        (3, 1, 1, 2),
        (3, 1, 1, 2),
    ],
    "alexnet_mini": [
        (5, 1, 2, 1),
        (5, 1, 2, 2),
        (3, 1, 1, 1),
        (3, 1, 1, 2),
        (3, 1, 1, 2),
    ],
}
# ONNX divides alpha by the size of the window, the paper does not.
LRN = {"size": 5, "alpha": 5 * 1e-4, "beta": 0.75, "bias": 2.0}


def onnx_graph(architecture, weights, input_shape) -> onnx.ModelProto:
    """The network in ONNX, channels first, with outputs `logits` and `probabilities`.

    Args:
        architecture: A key of CONVOLUTIONS.
        weights: For each of conv1 to fc8, its kernel and bias in our layout.
        input_shape: Height, width and channels.
    """
    nodes, constants = [], []
    last = "images"

    def node(kind, name, *parameters, **attributes):
        nonlocal last
        nodes.append(helper.make_node(kind, [last, *parameters], [name], **attributes))
        last = name

    def constant(name, value):
        value = np.ascontiguousarray(value)
        constants.append(numpy_helper.from_array(value, name))
        return name

    for index, (kernel, stride, pad, groups) in enumerate(CONVOLUTIONS[architecture]):
        index += 1
        w, b = weights[f"conv{index}"]
        node(
            "Conv",
            f"conv{index}",
            # (height, width, in / groups, out) to (out, in / groups, height, width).
            constant(f"w{index}", w.transpose(3, 2, 0, 1)),
            constant(f"b{index}", b),
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            group=groups,
        )
        node("Relu", f"relu{index}")
        if index in (1, 2):
            node("LRN", f"norm{index}", **LRN)
        if index in (1, 2, 5):
            node("MaxPool", f"pool{index}", kernel_shape=[3, 3], strides=[2, 2])
    # Ours flattens pixels first and channels last.
    node("Transpose", "channels_last", perm=[0, 2, 3, 1])
    node("Flatten", "flatten")
    for index in (6, 7, 8):
        w, b = weights[f"fc{index}"]
        node("Gemm", f"fc{index}", constant(f"w{index}", w), constant(f"b{index}", b))
        if index < 8:
            node("Relu", f"relu{index}")
    node("Softmax", "probabilities", axis=-1)
    height, width, channels = input_shape
    graph = helper.make_graph(
        nodes,
        architecture,
        [
            helper.make_tensor_value_info(
                "images", TensorProto.FLOAT, [None, channels, height, width]
            )
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in ("fc8", "probabilities")
        ],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )


@pytest.mark.parametrize("architecture", CONVOLUTIONS)
def test_logits_and_probabilities_are_those_of_onnx_runtime(architecture):
    model = keras_alexnet.build(architecture)
    shape = model.input_shape[1:]
    rng = np.random.default_rng(0)
    # Weights that keep the signal's size from layer to layer, and biases that are not
    # constant, so that nothing is lost in them.
    for layer in model.layers:
        if layer.weights:
            fan_in = np.prod(layer.kernel.shape[:-1])
            kernel = rng.standard_normal(layer.kernel.shape, "float32")
            kernel *= np.float32((2 / fan_in) ** 0.5)
            if layer.name == "fc8":  # Not one probability of 1 and many of 0.
                kernel *= np.float32(0.02)
            bias = rng.standard_normal(layer.bias.shape, "float32")
            layer.set_weights([kernel, bias])
    weights = {x.name: x.get_weights() for x in model.layers if x.weights}
    # Mean-free pixels, so that both normalisations are far from the identity.
    images = rng.uniform(-120, 120, (2, *shape)).astype("float32")

    graph = onnx_graph(architecture, weights, shape)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    logits, probabilities = session.run(None, {"images": images.transpose(0, 3, 1, 2)})

    ours = keras.Model(model.input, [model.get_layer("fc8").output, model.output])
    our_logits, our_probabilities = (y.numpy() for y in ours(images))
    assert np.abs(our_logits - logits).max() <= 1e-5 * np.abs(logits).max()
    np.testing.assert_allclose(our_probabilities, probabilities, atol=1e-5)
