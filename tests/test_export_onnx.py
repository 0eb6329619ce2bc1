"""ONNX exports, run by ONNX Runtime, which is not ours."""

import collections
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from exported_networks import check_program, network
from reduced import changed, reduced

import keras_alexnet
from keras_alexnet.errors import UserError
from keras_alexnet.export.onnx import onnx_model
from keras_alexnet.images.preprocessing import Preprocessing, get_preprocessing


def run(graph, images):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(None, {"images": images})


@pytest.mark.parametrize("name", keras_alexnet.list_architectures())
def test_probabilities_of_every_architecture(name):
    model, preprocessing, images = network(
        keras_alexnet.get_architecture(name).widened(1 / 8), classes=10
    )
    graph = onnx_model(model, preprocessing, any_size=False)
    expected = model.predict_on_batch(preprocessing.normalize(images))
    for count in (1, 3):
        found, best, classes = run(graph, images[:count])
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
        np.testing.assert_array_equal(classes, np.argsort(-found)[:, :5])
        np.testing.assert_array_equal(best, -np.sort(-found)[:, :5])
    assert expected.max() > 0.5
    operators = collections.Counter(node.op_type for node in graph.graph.node)
    layers = collections.Counter(type(layer).__name__ for layer in model.layers)
    assert operators["LRN"] == layers["LocalResponseNormalization"]
    assert operators["Conv"] == layers["GroupedConv2D"]
    assert operators["MaxPool"] == layers["OverlappingMaxPooling2D"]


def test_the_network_of_2012_is_23_nodes():
    model, preprocessing, _ = network(reduced("alexnet_2012"))
    neutral = Preprocessing(227, 227, 3, (0.0, 0.0, 0.0), 1.0)
    graph = onnx_model(model, neutral, any_size=False)
    # Pixels in their layout, as floating numbers; and top-k.
    beside = ["Transpose", "Cast", "TopK"]
    nodes = [node.op_type for node in graph.graph.node]
    assert nodes[:2] + nodes[-1:] == beside and len(nodes) - len(beside) == 23
    assert graph.opset_import[0].version == 18
    # The image's resizing, mean and scale are a few more.
    assert len(onnx_model(model, get_preprocessing("torch")).graph.node) <= 41


@pytest.fixture(scope="module")
def mini():
    return network("alexnet_mini")


@pytest.mark.parametrize("mode", ["caffe", "torch", "alexnet_2012"])
@pytest.mark.parametrize("resize", [32, 24])
def test_images_of_any_size_are_resized_as_the_model_does(mini, mode, resize):
    model = mini[0]
    size = {"image_size": 28, "resize_size": resize, "scale": 1 / 64}
    preprocessing = get_preprocessing(mode, **size)
    if mode == "caffe":
        mean = np.random.default_rng(2).uniform(90, 130, (32, 32, 3))
        preprocessing = get_preprocessing(preprocessing, mean_image=mean)
    session = onnxruntime.InferenceSession(
        onnx_model(model, preprocessing).SerializeToString()
    )
    for shape in ((40, 61), (61, 40), (32, 32), (20, 27), (300, 200)):
        images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), "uint8")
        found = session.run(["probabilities"], {"images": images})[0]
        expected = model.predict_on_batch(preprocessing(images))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_float16_halves_the_file_and_keeps_probabilities_in_float32(mini):
    model, preprocessing, images = mini
    whole, half = (
        onnx_model(model, preprocessing, precision, any_size=False)
        for precision in ("float32", "float16")
    )
    assert half.ByteSize() < 0.52 * whole.ByteSize()
    found, expected = (run(graph, images)[0] for graph in (half, whole))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02)
    operators = {node.op_type: node for node in half.graph.node}
    types = {one.name: one.data_type for one in half.graph.initializer}
    assert types[operators["Conv"].input[1]] == onnx.TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("alexnet_mini", {"pool": "max_pooling2d"}),
        ("alexnet_mini", {"norm": "spatial_response_norm", "activation": "tanh"}),
        ("alexnet_mini", {"norm": "batch_normalization", "groups": 1}),
        (
            changed(keras_alexnet.get_architecture("alexnet_mini"), "norm1", groups=2),
            {},
        ),
        (
            changed(keras_alexnet.get_architecture("alexnet_mini"), "conv1", strides=2),
            {"input_shape": (57, 57, 3)},
        ),
        # 7x7 pixels, averaged to 6x6.
        (reduced("alexnet_owt"), {"input_shape": (256, 256, 3)}),
    ],
)
def test_other_parts(architecture, options):
    model, preprocessing, images = network(architecture, **options)
    found = run(onnx_model(model, preprocessing, any_size=False), images)[0]
    expected = model.predict_on_batch(preprocessing.normalize(images))
    np.testing.assert_allclose(found, expected, atol=1e-5)


class Doubled(keras.layers.ReLU):
    """Not what its base class computes."""

    def call(self, inputs):
        return 2 * super().call(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": Doubled}, "relu1. Received: Doubled"),
        ({"activation": "hard_sigmoid"}, "relu1 .* Received: hard_sigmoid"),
        ({"norm": lambda **k: keras_alexnet.layers.LocalResponseNormalization(4, **k)},
         "norm1 with size=4"),
        ({"activation": lambda **k: keras.layers.ReLU(6, **k)}, "relu1 .* max_value=6"),
    ],
)  # fmt: skip
def test_what_onnx_cannot_say_is_refused(options, message):
    model = keras_alexnet.build("alexnet_mini", **options)
    with pytest.raises(UserError, match=message):
        onnx_model(model, get_preprocessing("none").with_image_size(28))


def test_networks_with_branches_are_refused():
    inputs = x = keras.Input((28, 28, 3))
    x = keras.layers.Flatten()(x)
    x = keras.layers.Add()([keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    with pytest.raises(UserError, match="follow one another"):
        onnx_model(
            keras_alexnet.AlexNet(inputs, x),
            get_preprocessing("none").with_image_size(28),
        )


def test_a_program_without_this_package_uses_the_export(tmp_path, command):
    check_program("onnx", command, tmp_path, tolerance=0.11)


def test_a_missing_extra_and_a_wrong_precision_are_one_line(command, monkeypatch):
    export = ("export", "nowhere", "--format", "onnx", "--out", "out")
    code, _, error = command(*export, "--precision", "bfloat16")
    assert code == 2 and "onnx can be written in float32, float16" in error
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, _, error = command(*export)
    assert code == 2 and 'pip install "keras-alexnet[onnx]"' in error
